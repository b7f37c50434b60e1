"""The default system call filter, compiled once.

Most of a runtime's start goes into compiling this filter (with libseccomp: 9 of crun's 13 ms, 16 of runc's
25). It never changes, so it is compiled here to the kernel's classic BPF and handed over as bytes: crun
takes them in an annotation, bubblewrap as a file descriptor. runc has no such way and gets the profile
itself.

The program looks at the architecture, then finds the call's number by halving (7 comparisons), since a linear
search would be paid by every system call of every build. Four calls depend on an argument. A call newer than
this table fails with ENOSYS, so that libraries fall back, everything else that is not allowed with EPERM, as
in runc. The x32 variant of x86-64 is refused as a whole.
"""

from __future__ import annotations

import base64
import errno
import functools
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bknb.executor import syscalls
from bknb.executor.runc import Filter

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
KILL = 0x80000000
NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
AF_ALG, AF_VSOCK = 38, 40
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
X32_BIT = 0x40000000
NEWEST = 467  # the first number that this table knows nothing of
ARM_PRIVATE = 0x0F0000

_NUMBER, _ARCH, _ARG0 = 0, 4, 16  # offsets in struct seccomp_data; arguments are 8 bytes, low half first
_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _JUMP, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false (both in instructions to skip), operand."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """`audit` is its AUDIT_ARCH number; `table` its calls; `kin` what it runs beside itself."""

    name: str
    audit: int
    table: str
    kin: tuple[str, ...] = ()


ARCHITECTURES = {
    each.name: each
    for each in (
        Architecture("x86_64", 0xC000003E, syscalls.X86_64, ("i386",)),
        Architecture("i386", 0x40000003, syscalls.I386),
        Architecture("aarch64", 0xC00000B7, syscalls.AARCH64, ("arm",)),
        Architecture("arm", 0x40000028, syscalls.ARM),
    )
}


def compile_default(machine: str) -> bytes:
    """The filter as an array of ``struct sock_filter`` for a machine (``uname -m``); b"" for one not known here."""
    native = ARCHITECTURES.get(machine)
    if native is None:
        return b""
    program: list[Instruction] = [(_LOAD, 0, 0, _ARCH)]
    for architecture in (native, *(ARCHITECTURES[name] for name in native.kin)):
        section = _section(architecture)
        program += [(_EQUAL, 1, 0, architecture.audit), (_JUMP, 0, 0, len(section)), *section]
    program.append(_give(KILL))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _give(verdict: int) -> Instruction:
    return _RETURN, 0, 0, verdict


def _refuse(code: int) -> Instruction:
    return _give(ERRNO | code)


def _section(architecture: Architecture) -> list[Instruction]:
    """What is done with the calls of one architecture."""
    table = syscalls.numbers(architecture.table)
    section: list[Instruction] = [(_LOAD, 0, 0, _NUMBER)]
    if architecture.name == "x86_64":
        section += [(_GREATER_EQUAL, 0, 1, X32_BIT), _refuse(errno.ENOSYS)]
    for name, body in _CONDITIONAL.items():
        if name in table:
            section += [(_EQUAL, 0, len(body), table[name]), *body]
    plain = {number for name, number in table.items() if name not in _CONDITIONAL}
    return section + _search(_intervals(plain))


_CONDITIONAL: dict[str, list[Instruction]] = {
    "clone3": [_refuse(errno.ENOSYS)],  # its flags are out of a filter's sight; libraries fall back on clone
    "clone": [(_LOAD, 0, 0, _ARG0), (_ANY_BIT, 0, 1, NAMESPACES), _refuse(errno.EPERM), _give(ALLOW)],
    "socket": [
        (_LOAD, 0, 0, _ARG0),
        (_EQUAL, 1, 0, AF_ALG),
        (_EQUAL, 0, 1, AF_VSOCK),
        _refuse(errno.EPERM),
        _give(ALLOW),
    ],
    "personality": [
        (_LOAD, 0, 0, _ARG0),
        *((_EQUAL, len(PERSONALITIES) - index, 0, value) for index, value in enumerate(PERSONALITIES)),
        _refuse(errno.EPERM),
        _give(ALLOW),
    ],
}
"""Calls that depend on their first argument, of which only the low half means something to the kernel."""


def _intervals(allowed: set[int]) -> list[tuple[int, int]]:
    """The verdicts over all numbers, as (first number, verdict) in order, each different from the one before."""
    found: list[tuple[int, int]] = []
    edges = sorted({0, NEWEST, ARM_PRIVATE, *allowed, *(number + 1 for number in allowed)})
    for number in edges:
        refusal = errno.ENOSYS if NEWEST <= number < ARM_PRIVATE else errno.EPERM
        verdict = ALLOW if number in allowed else ERRNO | refusal
        if not found or found[-1][1] != verdict:
            found.append((number, verdict))
    return found


def _search(intervals: Sequence[tuple[int, int]]) -> list[Instruction]:
    """Halve until one is left. The far half is reached by a jump of its own: conditional ones are short."""
    if len(intervals) == 1:
        return [_give(intervals[0][1])]
    middle = len(intervals) // 2
    above, below = _search(intervals[middle:]), _search(intervals[:middle])
    return [(_GREATER_EQUAL, 1, 0, intervals[middle][0]), (_JUMP, 0, 0, len(above)), *above, *below]


def profile() -> dict[str, Any]:
    """The same as a profile of the OCI runtime specification, for runtimes that compile it themselves."""
    names = {name for each in ARCHITECTURES.values() for name in syscalls.numbers(each.table)}
    plain = sorted(names - set(_CONDITIONAL))
    allow = "SCMP_ACT_ALLOW"

    def where(name: str, value: int, op: str, **more: int) -> dict[str, Any]:
        argument = {"index": 0, "value": value, "op": f"SCMP_CMP_{op}", **more}
        return {"names": [name], "action": allow, "args": [argument]}

    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": _architectures(),
        "syscalls": [
            {"names": plain, "action": allow},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
            where("clone", NAMESPACES, "MASKED_EQ", valueTwo=0),
            where("socket", AF_ALG, "LT"),
            where("socket", AF_ALG + 1, "EQ"),
            where("socket", AF_VSOCK, "GT"),
            *(where("personality", value, "EQ") for value in PERSONALITIES),
        ],
    }


def _architectures() -> list[str]:
    return {
        "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    }.get(platform.machine(), [])


@functools.cache
def default() -> Filter:
    """The default filter of this machine."""
    program = compile_default(platform.machine())
    return Filter(program, base64.b64encode(program).decode(), profile())
