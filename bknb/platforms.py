"""Platforms: operating system, architecture, variant.

The normal forms are containerd's (its ``platforms`` package): ``x86_64`` is ``amd64``, ``aarch64`` is
``arm64``, ``arm64/v8`` has no variant, ``arm`` without one is ``v7``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from urllib.parse import unquote

_SYSTEMS = {"macos": "darwin"}
_KNOWN_SYSTEMS = frozenset(
    "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos".split()
)
_KNOWN_ARCHITECTURES = frozenset(
    "386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 "
    "mips64p32le ppc riscv riscv64 s390 s390x sparc sparc64 wasm".split()
)
_ARM_VARIANTS = {"": "v7", "7": "v7", "5": "v5", "6": "v6", "8": "v8"}
_ARM64_VARIANTS = {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"}
_ENCODED = {"%": "%25", "+": "%2B", "(": "%28", ")": "%29", "/": "%2F"}
_NO_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_PART = re.compile(r"[A-Za-z0-9_.-]+\Z")
_OS_RULE = r'"^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$"'
_OS_PART = re.compile(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?\Z")


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform.

    >>> str(Platform.parse("aarch64"))
    'linux/arm64'
    >>> str(Platform.parse("linux/arm").normalize())
    'linux/arm/v7'
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, *, default: Platform | None = None) -> Platform:
        """Read ``os``, ``arch``, ``os/arch`` or ``os/arch/variant``, the OS as ``os(version+feature)`` too.

        Names are mapped to their usual form (``x86_64`` to ``amd64``), variants too (``7`` to ``v7``).

        Args:
            text: the specifier, in any case.
            default: what a lone OS or architecture is completed with; the host when absent.

        Raises:
            ValueError: not a platform specifier.
        """
        base = default or Platform.host()
        if "*" in text:
            raise ValueError(f"{_quoted(text)}: wildcards not yet supported: invalid argument")
        first, *rest = text.split("/", 3)
        system, version, features = _system(first, text)
        for part in rest:
            if not _PART.match(part):
                raise ValueError(
                    f"{_quoted(part)} is an invalid component of {_quoted(text)}: platform specifier component "
                    'must match "^[A-Za-z0-9_.-]+$": invalid argument'
                )
        match rest:
            case []:
                if system in _KNOWN_SYSTEMS:
                    variant = base.variant if base.architecture == "arm" and base.variant != "v7" else ""
                    return cls(system, base.architecture, variant, version, features)
                architecture, variant = _architecture(first, "")
                if architecture not in _KNOWN_ARCHITECTURES:
                    raise ValueError(
                        f"{_quoted(text)}: unknown operating system or architecture: invalid argument"
                    )
                # The version and features stay empty: they would have been part of the name.
                return cls(base.os, architecture, _unless_v7(architecture, variant))
            case [architecture]:
                architecture, variant = _architecture(architecture, "")
                return cls(system, architecture, _unless_v7(architecture, variant), version, features)
            case [architecture, variant]:
                architecture, variant = _architecture(architecture, variant)
                variant = "v8" if architecture == "arm64" and not variant else variant
                return cls(system, architecture, variant, version, features)
        raise ValueError(f"{_quoted(text)}: cannot parse platform specifier: invalid argument")

    @classmethod
    def host(cls) -> Platform:
        """The platform of this machine, in normal form."""
        uname = os.uname()
        architecture, variant = _architecture(uname.machine.lower(), "")
        if architecture.startswith("armv"):
            architecture, variant = "arm", architecture[3:5]
        return cls(uname.sysname.lower(), architecture, variant).normalize()

    def normalize(self) -> Platform:
        """containerd's normal form: what a worker compares and what cache keys contain."""
        # An empty system is this machine's, as in containerd.
        system = _SYSTEMS.get(self.os.lower(), self.os.lower()) or os.uname().sysname.lower()
        architecture, variant = _architecture(self.architecture, self.variant)
        features = tuple(sorted(set(self.os_features)))
        return replace(self, os=system, architecture=architecture, variant=variant, os_features=features)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def format_all(self) -> str:
        """As `str`, with the OS version in parentheses: ``windows(10.0.17763)/amd64``."""
        if not self.os:
            return "unknown"
        features = sorted({_encoded(name) for name in self.os_features if name})
        details = "".join((_encoded(self.os_version), *(f"+{name}" for name in features)))
        system = f"{self.os}({details})" if details else self.os
        return "/".join(part for part in (system, self.architecture, self.variant) if part)

    def runs(self, other: Platform) -> bool:
        """Whether a machine of this platform runs programs of another one without emulation."""
        mine, theirs = self.normalize(), other.normalize()
        if (mine.os, mine.architecture) == (theirs.os, theirs.architecture):
            return mine.variant == theirs.variant or (
                mine.architecture == "arm" and theirs.variant <= mine.variant
            )
        return mine.os == theirs.os and (mine.architecture, theirs.architecture) == ("amd64", "386")


def _system(part: str, text: str) -> tuple[str, str, tuple[str, ...]]:
    """The name, version and features in the first part of a specifier."""
    found = _OS_PART.match(part)
    if found is None:
        raise ValueError(
            f"{_quoted(part)} is an invalid OS component of {_quoted(text)}: OSAndVersion specifier component "
            f"must match {_OS_RULE}: invalid argument"
        )
    try:
        version = _decoded(found[2] or "")
    except ValueError as error:
        raise ValueError(f"{_quoted(text)} has an invalid OS version {_quoted(found[2])}: {error}") from None
    features = []
    for raw in (found[3] or "").split("+")[1:]:
        try:
            features.append(_decoded(raw))
        except ValueError as error:
            raise ValueError(
                f"{_quoted(text)} has invalid OS features: invalid os feature {_quoted(raw)}: {error}"
            ) from None
    name = found[1].lower()
    return _SYSTEMS.get(name, name), version, tuple(features)


def _architecture(architecture: str, variant: str) -> tuple[str, str]:
    """Both in normal form."""
    architecture, variant = architecture.lower(), variant.lower()
    match architecture:
        case "i386":
            return "386", ""
        case "x86_64" | "x86-64" | "amd64":
            return "amd64", "" if variant == "v1" else variant
        case "aarch64" | "arm64":
            return "arm64", _ARM64_VARIANTS.get(variant, variant)
        case "armhf":
            return "arm", "v7"
        case "armel":
            return "arm", "v6"
        case "arm":
            return "arm", _ARM_VARIANTS.get(variant, variant)
    return architecture, variant


def _unless_v7(architecture: str, variant: str) -> str:
    """The variant where none was given: "" stands for arm's usual one."""
    return "" if architecture == "arm" and variant == "v7" else variant


def _decoded(text: str) -> str:
    wrong = _NO_ESCAPE.search(text)
    if wrong:
        raise ValueError(f"invalid URL escape {_quoted(text[wrong.start() : wrong.start() + 3])}")
    return unquote(text, errors="surrogateescape")


def _encoded(text: str) -> str:
    return "".join(_ENCODED.get(char, char) for char in text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
