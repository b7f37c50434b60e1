"""The default filter: run here on an interpreter of BPF, and in a real container."""

from __future__ import annotations

import errno
import platform
import struct
import sys
from typing import Any

import pytest

from bknb.executor import seccomp, syscalls
from bknb.protocols import Mount, ProcessMount

ALLOW = seccomp.ALLOW
EPERM, ENOSYS = seccomp.ERRNO | errno.EPERM, seccomp.ERRNO | errno.ENOSYS


def verdict(program: bytes, audit: int, number: int, argument: int = 0) -> int:
    """What the kernel would answer: an interpreter of the few instructions that the filter uses."""
    data = struct.pack("<IIQ6Q", number, audit, 0, argument, 0, 0, 0, 0, 0)
    code = list(struct.iter_unpack("=HBBI", program))
    place = accumulator = 0
    for _ in range(len(code)):
        op, true, false, operand = code[place]
        place += 1
        if op == 0x20:
            accumulator = int.from_bytes(data[operand : operand + 4], "little")
        elif op == 0x06:
            return operand
        elif op == 0x05:
            place += operand
        else:
            found = {
                0x15: accumulator == operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }[op]
            place += true if found else false
    raise AssertionError("the program does not end")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_number(machine: str) -> None:
    """Each number of each architecture gets what the table says."""
    program = seccomp.compile_default(machine)
    assert len(program) % 8 == 0 and len(program) // 8 < 4096  # BPF_MAXINSNS
    native = seccomp.ARCHITECTURES[machine]
    for each in (native, *(seccomp.ARCHITECTURES[name] for name in native.kin)):
        table = syscalls.numbers(each.table)
        allowed = {number for name, number in table.items() if name not in seccomp._CONDITIONAL}
        special = {number for name, number in table.items() if name in seccomp._CONDITIONAL}
        for number in range(seccomp.NEWEST + 20):
            if number not in special:
                expected = ALLOW if number in allowed else ENOSYS if number >= seccomp.NEWEST else EPERM
                assert verdict(program, each.audit, number) == expected, (each.name, number)


def test_arguments() -> None:
    """clone, clone3, socket and personality depend on what they are asked for."""
    program = seccomp.compile_default("x86_64")
    table = syscalls.numbers(syscalls.X86_64)

    def ask(name: str, argument: int) -> int:
        return verdict(program, seccomp.ARCHITECTURES["x86_64"].audit, table[name], argument)

    assert [ask("clone", flags) for flags in (0x11, 0x3D0F00, 0x10000000, 0x20000)] == [
        ALLOW,
        ALLOW,
        EPERM,
        EPERM,
    ]
    assert ask("clone3", 0) == ENOSYS
    assert [ask("socket", family) for family in (1, 2, 38, 39, 40, 41)] == [
        ALLOW,
        ALLOW,
        EPERM,
        ALLOW,
        EPERM,
        ALLOW,
    ]
    assert ask("socket", 1 << 32 | 38) == EPERM  # the kernel looks at the low half only
    assert [ask("personality", p) for p in (0, 8, 0x20000, 0x40000, 0xFFFFFFFF)] == [
        ALLOW,
        ALLOW,
        ALLOW,
        EPERM,
        ALLOW,
    ]


def test_foreign_architectures() -> None:
    """x32 does not exist here, and what nobody knows is killed."""
    program = seccomp.compile_default("x86_64")
    assert verdict(program, seccomp.ARCHITECTURES["x86_64"].audit, 0x40000000) == ENOSYS
    assert verdict(program, 0x12345678, 0) == seccomp.KILL
    assert seccomp.compile_default("riscv64") == b""


@pytest.mark.root
async def test_really_denied(runner: Any) -> None:
    """In a container, calls that are not allowed fail, and ordinary programs run."""
    if platform.machine() != "x86_64":
        pytest.skip("needs x86-64: the numbers below are its")
    code = (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "def ask(*a):\n    return ctypes.get_errno() if c.syscall(*a) < 0 else 0\n"
        "print(ask(272, 0x10000000), ask(250, 0, 0, 0), ask(165, 0, 0, 0, 0, 0), ask(321, 0, 0, 0),"
        " ask(41, 38, 5, 0), ask(435, 0, 0) , ask(39), ask(500))\n"
    )  # unshare keyctl mount bpf, socket(AF_ALG), clone3, getpid, a call of the future
    host = ProcessMount("/host", (Mount("bind", "/"),), readonly=True)
    status = await runner.run(
        runner.process("chroot", "/host", sys.executable, "-I", "-c", code, mounts=(host,))
    )
    answers = [int(word) for word in runner.output.split()]
    assert status.code == 0, runner.errors
    assert answers[:5] == [errno.EPERM] * 5
    assert answers[5:7] == [errno.ENOSYS, 0]
    assert answers[7] == errno.ENOSYS
