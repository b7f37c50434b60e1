"""Build checks: the linter, and those checks that need nothing but the text.

A rule is run by its name with the arguments of its message: `linter.run("StageNameCasing", ranges, "Base")`.
Whether that becomes a warning is the linter's to say: `# check=`, `BUILDKIT_DOCKERFILE_CHECK` and a
`# check=skip=...` comment above an instruction can silence a rule, an experimental one must be asked for
(frontend/dockerfile/linter/linter.go). The rules themselves are in `rules`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from bknb.errors import DockerfileError, Range
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.directives import assignment
from bknb.frontend.dockerfile.gotext import lower, parse_bool, quote, trim_space, upper
from bknb.frontend.dockerfile.rules import RULES, Rule

RESERVED_STAGES: Final = frozenset({"context", "scratch"})

_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LintWarning:
    """One finding.

    Attributes:
        rule: what was broken.
        text: what exactly.
        ranges: where.
    """

    rule: Rule
    text: str
    ranges: tuple[Range, ...]

    @property
    def message(self) -> str:
        """The one line that BuildKit shows."""
        line = self.ranges[0].start_line if self.ranges else 0
        return f"{self.rule.name}: {self.text}" + (f" (line {line})" if line > 0 else "")


@dataclass(frozen=True, slots=True)
class LintConfig:
    """What `check=` says.

    Attributes:
        skip, experimental: names of rules.
        skip_all, experimental_all: every one of them.
        error: a warning fails the build.
    """

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    error: bool = False

    @classmethod
    def parse(cls, text: str) -> LintConfig:
        """Reads `skip=A,B;error=true;experimental=all`.

        Raises:
            DockerfileError: an option that does not exist, or no truth value behind `error`.
        """
        config = cls()
        text = trim_space(text)
        for part in text.split(";", 2) if text else ():
            key, sign, value = part.partition("=")
            key, value = trim_space(key), trim_space(value)
            if not sign:
                raise DockerfileError(f"invalid check option {quote(part)}")
            names = frozenset(map(trim_space, value.split(",")))
            if key == "skip":
                config = replace(config, skip=frozenset() if value == "all" else names)
                config = replace(config, skip_all=config.skip_all or value == "all")
            elif key == "experimental":
                config = replace(config, experimental=frozenset() if value == "all" else names)
                config = replace(config, experimental_all=config.experimental_all or value == "all")
            elif key == "error":
                error = parse_bool(value)
                if error is None:
                    reason = f"strconv.ParseBool: parsing {quote(value)}: invalid syntax"
                    raise DockerfileError(f"failed to parse check option {quote(part)}: {reason}")
                config = replace(config, error=error)
            else:
                raise DockerfileError(f"invalid check option {quote(key)}")
        return config

    @classmethod
    def of(cls, dockerfile: ast.Dockerfile, given: LintConfig | None = None) -> LintConfig:
        """The configuration of one build.

        Args:
            dockerfile: its `check` directive counts where nothing is given.
            given: what the request says.

        Raises:
            DockerfileError: see `parse`.
        """
        if given is not None:
            return given
        directive = dockerfile.check_directive
        try:
            return cls.parse(directive.value if directive else "")
        except DockerfileError as error:
            raise DockerfileError(f"failed to parse check options: {error.message}") from None

    def merged(self, other: LintConfig) -> LintConfig:
        """This one, with what a comment adds; a comment cannot make warnings errors."""
        return replace(
            self,
            skip=self.skip | other.skip,
            skip_all=self.skip_all or other.skip_all,
            experimental=self.experimental | other.experimental,
            experimental_all=self.experimental_all or other.experimental_all,
        )


@dataclass(frozen=True, slots=True)
class Linter:
    """Collects warnings. Those of `for_comments` collect into the same list.

    >>> linter = Linter(LintConfig.parse("skip=UndefinedVar"))
    >>> linter.run("UndefinedVar", (), "x", "")
    >>> linter.run("StageNameCasing", (Range(3, 0, 3, 0),), "Base")
    >>> linter.warnings[0].message
    "StageNameCasing: Stage name 'Base' should be lowercase (line 3)"
    """

    config: LintConfig = LintConfig()
    warnings: list[LintWarning] = field(default_factory=list)

    def run(self, name: str, ranges: Sequence[Range], *arguments: str) -> None:
        """Reports that a rule is broken, unless it is silenced.

        Args:
            name: of the rule.
            ranges: where.
            arguments: what its message takes.
        """
        rule = RULES[name]
        if rule.experimental:
            if not self.config.experimental_all and name not in self.config.experimental:
                return
        elif self.config.skip_all or name in self.config.skip:
            return
        self.warnings.append(LintWarning(rule, rule.message(*arguments), tuple(ranges)))

    def for_comments(self, comments: Iterable[str]) -> Linter:
        """The linter for one instruction: the first `check=` among the comments above it counts."""
        for comment in comments:
            found = assignment(comment, "")
            if found is None or found[0] != "check":
                continue
            try:
                added = LintConfig.parse(found[1].partition(" ")[0])
            except DockerfileError:
                return self
            return Linter(self.config.merged(added), self.warnings)
        return self

    def error(self) -> DockerfileError | None:
        """What fails the build: there are warnings, and `error=true` was asked for."""
        if not self.config.error or not self.warnings:
            return None
        names = ", ".join(dict.fromkeys(warning.rule.name for warning in self.warnings))
        return DockerfileError(f"lint violation found for rules: {names}")


def looks_secret(name: str) -> bool:
    """Whether a variable's name says that its value is a secret (SecretsUsedInArgOrEnv).

    >>> looks_secret("GITHUB_TOKEN"), looks_secret("PUBLIC_KEY"), looks_secret("keyboard")
    (True, False, False)
    """
    return _SECRET.search(name) is not None and _NO_SECRET.search(name) is None


def check_syntax(dockerfile: ast.Dockerfile, linter: Linter) -> None:
    """Runs the checks that BuildKit runs before it looks at stages, in its order.

    A file that could not be cut into instructions is not checked, and behind an instruction that is wrong
    there are no checks either.
    """
    if dockerfile.syntax_errors:
        return
    for found in dockerfile.empty_continuations:
        linter.run("NoEmptyContinuation", ast.line_ranges(found.line, found.line))
    for index, node in enumerate(dockerfile.nodes[: dockerfile.understood + 1]):
        _check_node(node, linter.for_comments(node.comments), understood=index < dockerfile.understood)
    if not dockerfile.instruction_errors:
        _check_stage_names(dockerfile.stages, linter)
        _check_keyword_case(dockerfile.stages, linter)


def _check_node(node: ast.Node, linter: Linter, *, understood: bool) -> None:
    keyword = lower(node.keyword)
    args = node.flat_args()
    if keyword == "maintainer":
        linter.run("MaintainerDeprecated", node.ranges)
    elif keyword == "from":
        if len(args) == 3 and args[2] != lower(args[2]):
            linter.run("StageNameCasing", node.ranges, args[2])
        if len(args) >= 3 and not _same_case(node.keyword, args[1]):
            linter.run("FromAsCasing", node.ranges, node.keyword, args[1])
        if understood and len(args) == 3:
            _check_description("FROM", [lower(args[2])], node, linter)
    elif keyword == "arg" and understood:
        _check_description("ARG", [word.partition("=")[0] for word in args], node, linter)


def _same_case(keyword: str, other: str) -> bool:
    """Whether a second keyword has the case of the first, which may be mixed."""
    if keyword == lower(keyword):
        return other == lower(other)
    return keyword != upper(keyword) or other == upper(other)


def _check_description(instruction: str, names: list[str], node: ast.Node, linter: Linter) -> None:
    if node.comments and node.comments[-1].partition(" ")[0] not in names:
        example = names[0] if len(names) == 1 else "<arg_key>"
        linter.run("InvalidDefinitionDescription", node.ranges, instruction, example)


def _check_stage_names(stages: Sequence[ast.Stage], linter: Linter) -> None:
    seen: set[str] = set()
    for stage in stages:
        name = stage.head.name
        if name in RESERVED_STAGES:
            linter.run("ReservedStageName", stage.head.ranges, name)
        if name in seen:
            linter.run("DuplicateStageName", stage.head.ranges, name)
        if name:
            seen.add(name)


def _check_keyword_case(stages: Sequence[ast.Stage], linter: Linter) -> None:
    """Every keyword should be written as most of them are; the ARGs before the first FROM have no vote."""
    instructions = [instruction for stage in stages for instruction in (stage.head, *stage.commands)]
    words = Counter(one.keyword for one in instructions)
    smalls = sum(count for word, count in words.items() if word == lower(word))
    capitals = sum(count for word, count in words.items() if word == upper(word) != lower(word))
    fold, case = (lower, "lowercase") if smalls > capitals else (upper, "uppercase")
    wrong = {word for word in words if word != fold(word)}
    for instruction in instructions if wrong else ():
        if instruction.keyword in wrong:
            linter.run("ConsistentInstructionCasing", instruction.ranges, instruction.keyword, case)
