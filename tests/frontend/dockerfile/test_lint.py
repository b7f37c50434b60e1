"""The linter's configuration, and the checks of the text alone."""

from __future__ import annotations

import pytest

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.lint import LintConfig, Linter, check_syntax
from bknb.frontend.dockerfile.parser import parse
from bknb.frontend.dockerfile.rules import RULES


def findings(text: str, config: str | None = None) -> list[str]:
    """The messages for a file, with the configuration of its directive unless another is given."""
    dockerfile = parse(text)
    linter = Linter(LintConfig.of(dockerfile, None if config is None else LintConfig.parse(config)))
    check_syntax(dockerfile, linter)
    return [warning.message for warning in linter.warnings]


def test_there_are_22_rules() -> None:
    """Each with a page in Docker's manual, but for one."""
    assert len(RULES) == 22
    assert [name for name, rule in RULES.items() if not rule.url] == ["InvalidBaseImagePlatform"]
    assert RULES["JSONArgsRecommended"].url.endswith("/json-args-recommended/")


def test_findings_come_in_order() -> None:
    """First the lines, then the instructions, then names and letters of the whole file."""
    assert findings("FROM a as Base\nrun x \\\n\n y\nMAINTAINER me\nFROM b AS base\nFROM c AS scratch") == [
        "NoEmptyContinuation: Empty continuation line (line 4)",
        "StageNameCasing: Stage name 'Base' should be lowercase (line 1)",
        "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
        "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 5)",
        'DuplicateStageName: Duplicate stage name "base", stage names should be unique (line 6)',
        'ReservedStageName: Stage name should not use the same name as reserved stage "scratch" (line 7)',
        (
            "ConsistentInstructionCasing: Command 'run' should match the case of the command majority "
            "(uppercase) (line 2)"
        ),
    ]


def test_skips_of_the_file_and_of_one_instruction() -> None:
    """A directive counts for all, a comment for the instruction below it, the option instead of the directive."""
    text = "# check=skip=MaintainerDeprecated\nFROM a AS X\nMAINTAINER m\n# check=skip=StageNameCasing\nFROM b AS Y"
    assert findings(text) == ["StageNameCasing: Stage name 'X' should be lowercase (line 2)"]
    assert len(findings(text, "skip=all")) == 0
    assert len(findings(text, "")) == 2


def test_experimental_rules_are_asked_for() -> None:
    """By name or all of them, in the file or above one instruction."""
    text = "# wrong\nFROM a AS x\n# other\nARG A B\n"
    assert findings(text) == []
    assert findings(text, "experimental=all") == [
        "InvalidDefinitionDescription: Comment for FROM should follow the format: `# x <description>` (line 2)",
        (
            "InvalidDefinitionDescription: Comment for ARG should follow the format: "
            "`# <arg_key> <description>` (line 4)"
        ),
    ]
    assert len(findings("# check=experimental=InvalidDefinitionDescription\n# wrong\nFROM a AS x")) == 1


def test_checks_end_at_an_error() -> None:
    """What BuildKit finds before it stops is found, no more."""
    assert findings("FROM a AS B\nMAINTAINER\nFROM c AS D") == [
        "StageNameCasing: Stage name 'B' should be lowercase (line 1)",
        "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
    ]
    assert findings("FROM a AS B\nENV K") == []


def test_warnings_can_be_errors() -> None:
    """With error=true, and only those that were not silenced."""
    linter = Linter(LintConfig.parse("error=true;skip=StageNameCasing"))
    linter.run("StageNameCasing", (), "A")
    assert linter.error() is None
    linter.for_comments(["check=skip=x"]).run("UndefinedVar", (), "a", "b")
    linter.run("UndefinedVar", (), "c")
    assert str(linter.error()) == "lint violation found for rules: UndefinedVar"
    assert [warning.text for warning in linter.warnings] == [
        "Usage of undefined variable '$a' (did you mean $b?)",
        "Usage of undefined variable '$c'",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", 'invalid check option "foo"'),
        ("foo=1", 'invalid check option "foo"'),
        ("error=x", 'failed to parse check option "error=x": strconv.ParseBool: parsing "x": invalid syntax'),
    ],
)
def test_wrong_options(text: str, message: str) -> None:
    """In the directive and in the build argument; the option's own words stand in `test_options`."""
    with pytest.raises(DockerfileError) as caught:
        findings(f"# check={text}\nFROM a")
    assert caught.value.message == f"failed to parse check options: {message}"
    with pytest.raises(DockerfileError) as caught:
        findings("FROM a", text)
    assert caught.value.message == message
