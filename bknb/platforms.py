"""Platforms: operating system, architecture, variant.

The normal forms are containerd's (its ``platforms`` package): ``x86_64`` is ``amd64``, ``aarch64`` is
``arm64``, ``arm64/v8`` has no variant, ``arm`` without one is ``v7``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

_ARCHITECTURES = {
    "i386": ("386", ""), "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"), "armel": ("arm", "v6"),
}  # fmt: skip
_SYSTEMS = {"macos": "darwin"}
_KNOWN_SYSTEMS = frozenset(
    "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos".split()
)
_KNOWN_ARCHITECTURES = frozenset(
    "386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 "
    "mips64p32le ppc riscv riscv64 s390 s390x sparc sparc64 wasm".split()
)
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
        """Read ``os``, ``arch``, ``os/arch`` or ``os/arch/variant``, the OS as ``os(version)`` too.

        Names are mapped to their usual form (``x86_64`` to ``amd64``); the variant is kept as written.

        Args:
            text: the specifier, in any case.
            default: what a lone OS or architecture is completed with; the host when absent.

        Raises:
            ValueError: not a platform specifier.
        """
        base = default or Platform.host()
        parts = text.split("/")
        if not 1 <= len(parts) <= 3:
            raise ValueError(f'"{text}": cannot parse platform specifier: invalid argument')
        found = _OS_PART.match(parts[0])
        if found is None or not all(_PART.match(part) for part in parts[1:]):
            if found is None:
                what, wrong, rule = "invalid OS", parts[0], f"OSAndVersion specifier component must match {_OS_RULE}"
            else:
                what, wrong = "invalid", next(part for part in parts[1:] if not _PART.match(part))
                rule = 'platform specifier component must match "^[A-Za-z0-9_.-]+$"'
            raise ValueError(f'"{wrong}" is an {what} component of "{text}": {rule}: invalid argument')
        system, version = found[1].lower(), found[2] or ""
        system = _SYSTEMS.get(system, system)
        if len(parts) == 1:
            if system in _KNOWN_SYSTEMS:
                architecture, variant = base.architecture, base.variant if base.architecture == "arm" else ""
                return cls(system, architecture, variant, version)
            architecture, variant = _architecture(found[1].lower(), "")
            if architecture in _KNOWN_ARCHITECTURES:
                if architecture == "arm" and not variant:
                    variant = "v7"
                return cls(base.os, architecture, variant)
            raise ValueError(f'"{text}": unknown operating system or architecture: invalid argument')
        architecture, variant = _architecture(parts[1].lower(), parts[2].lower() if len(parts) == 3 else "")
        if len(parts) == 2 and architecture == "arm" and variant == "v7":
            variant = ""
        if len(parts) == 3:
            variant = cls(system, architecture, variant).normalize().variant
            variant = "v8" if architecture == "arm64" and not variant else variant
        return cls(system, architecture, variant, version)

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
        architecture, variant = _architecture(self.architecture.lower(), self.variant.lower())
        if architecture == "arm64" and variant in ("8", "v8"):
            variant = ""
        elif architecture == "arm":
            variant = (
                "v7" if variant in ("", "7") else "v" + variant if variant in ("5", "6", "8") else variant
            )
        elif architecture == "amd64" and variant == "v1":
            variant = ""
        return replace(self, os=system, architecture=architecture, variant=variant)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def format_all(self) -> str:
        """As `str`, with the OS version in parentheses: ``windows(10.0.17763)/amd64``."""
        if not self.os:
            return "unknown"
        details = "".join((self.os_version.replace("%", "%25"), *(f"+{name}" for name in sorted(self.os_features))))
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


def _architecture(architecture: str, variant: str) -> tuple[str, str]:
    mapped, default = _ARCHITECTURES.get(architecture, (architecture, ""))
    return mapped, variant or default
