"""The 22 build checks by name (frontend/dockerfile/linter/ruleset.go).

Names, descriptions and messages are BuildKit's: they are what people search for, and what tools compare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from bknb.frontend.dockerfile.gotext import quote

_DOCS: Final = "https://docs.docker.com/go/dockerfile/rule/"


@dataclass(frozen=True, slots=True)
class Rule:
    """A build check.

    Attributes:
        name: as in `# check=skip=NAME`.
        description: what it asks for.
        message: makes the text of a finding; which arguments it takes is seen in the table below.
        documented: it has a page of its own.
        experimental: it runs only where it is asked for.
    """

    name: str
    description: str
    message: Callable[..., str]
    documented: bool = True
    experimental: bool = False

    @property
    def url(self) -> str:
        """Its page in Docker's manual; "" if it has none."""
        if not self.documented:
            return ""
        return _DOCS + re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", self.name).lower() + "/"


def _hint(name: str, sign: str = "") -> str:
    return f" (did you mean {sign}{name}?)" if name else ""


_TABLE: Final = (
    Rule(
        "StageNameCasing",
        "Stage names should be lowercase",
        lambda stage: f"Stage name '{stage}' should be lowercase",
    ),
    Rule(
        "FromAsCasing",
        "The 'as' keyword should match the case of the 'from' keyword",
        lambda from_, as_: f"'{as_}' and '{from_}' keywords' casing do not match",
    ),
    Rule(
        "NoEmptyContinuation",
        "Empty continuation lines will become errors in a future release",
        lambda: "Empty continuation line",
    ),
    Rule(
        "ConsistentInstructionCasing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
        lambda command, case: f"Command '{command}' should match the case of the command majority ({case})",
    ),
    Rule(
        "DuplicateStageName",
        "Stage names should be unique",
        lambda stage: f"Duplicate stage name {quote(stage)}, stage names should be unique",
    ),
    Rule(
        "ReservedStageName",
        "Reserved words should not be used as stage names",
        lambda stage: f"Stage name should not use the same name as reserved stage {quote(stage)}",
    ),
    Rule(
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        lambda name: (
            f"JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
        ),
    ),
    Rule(
        "MaintainerDeprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        lambda: "Maintainer instruction is deprecated in favor of using label",
    ),
    Rule(
        "UndefinedArgInFrom",
        "FROM command must use declared ARGs",
        lambda arg, near="": f"FROM argument '{arg}' is not declared{_hint(near)}",
    ),
    Rule(
        "WorkdirRelativePath",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results "
        "if the base image changes",
        lambda path: f"Relative workdir {quote(path)} can have unexpected results if the base image changes",
    ),
    Rule(
        "UndefinedVar",
        "Variables should be defined before their use",
        lambda name, near="": f"Usage of undefined variable '${name}'{_hint(near, '$')}",
    ),
    Rule(
        "MultipleInstructionsDisallowed",
        "Multiple instructions of the same type should not be used in the same stage",
        lambda name: (
            f"Multiple {name} instructions should not be used in the same stage because only the last one "
            "will be used"
        ),
    ),
    Rule(
        "LegacyKeyValueFormat",
        "Legacy key/value format with whitespace separator should not be used",
        lambda name: f'"{name} key=value" should be used instead of legacy "{name} key value" format',
    ),
    Rule(
        "InvalidBaseImagePlatform",
        "Base image platform does not match expected target platform",
        lambda image, expected, actual: (
            f"Base image {image} was pulled with platform {quote(actual)}, expected {quote(expected)} "
            "for current build"
        ),
        documented=False,
    ),
    Rule(
        "RedundantTargetPlatform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        lambda text: (
            f"Setting platform to predefined {text} in FROM is redundant as this is the default behavior"
        ),
    ),
    Rule(
        "SecretsUsedInArgOrEnv",
        "Sensitive data should not be used in the ARG or ENV commands",
        lambda name, key: f"Do not use ARG or ENV instructions for sensitive data ({name} {quote(key)})",
    ),
    Rule(
        "InvalidDefaultArgInFrom",
        "Default value for global ARG results in an empty or invalid base image name",
        lambda base: f"Default value for ARG {base} results in empty or invalid base image name",
    ),
    Rule(
        "FromPlatformFlagConstDisallowed",
        "FROM --platform flag should not use a constant value",
        lambda platform: f"FROM --platform flag should not use constant value {quote(platform)}",
    ),
    Rule(
        "CopyIgnoredFile",
        "Attempting to Copy file that is excluded by .dockerignore",
        lambda verb, path: f"Attempting to {verb} file {quote(path)} that is excluded by .dockerignore",
    ),
    Rule(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. "
        "If this is not intended to be a description comment, add an empty line or comment between the "
        "instruction and the comment.",
        lambda name, key: f"Comment for {name} should follow the format: `# {key} <description>`",
        experimental=True,
    ),
    Rule(
        "ExposeProtoCasing",
        "Protocol in EXPOSE instruction should be lowercase",
        lambda port: f"Defined protocol '{port}' in EXPOSE instruction should be lowercase",
    ),
    Rule(
        "ExposeInvalidFormat",
        "IP address and host-port mapping should not be used in EXPOSE instruction. "
        "This will become an error in a future release",
        lambda port: (
            f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
        ),
    ),
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType({rule.name: rule for rule in _TABLE})
