"""Work in two processes: one interpreter reads, hashes and writes small files on one core only.

The second is forked, which is cheap here: the shim is small. It makes system calls and hashes, and takes no lock that
another thread may have held; what it found comes back through a pipe.
"""

from __future__ import annotations

import marshal
import os
import sys

from bknb.shim import calls
from bknb.shim.children import Children
from bknb.shim.server import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CHUNK = 1 << 20


def both(children: Children, here: Callable[[], Any], there: Callable[[], Any]) -> tuple[Any, Any]:
    """Call two functions at the same time, the second in a process of its own; what both return.

    Raises:
        Failure, OSError: as either of them.
    """
    reading, writing = os.pipe()
    with children.held() as running:
        pid = os.fork()
        if pid == 0:
            _answer(writing, there)
        running.add(pid)
    os.close(writing)
    try:
        mine = here()
        data = b"".join(iter(lambda: os.read(reading, CHUNK), b""))
    except BaseException:
        os.kill(pid, calls.SIGKILL)
        raise
    finally:
        os.close(reading)
        children.wait(pid)
    return mine, _result(data)


def _answer(pipe: int, act: Callable[[], Any]) -> None:
    """The second process, from its first line to its last."""
    code = 1
    try:
        try:
            data = marshal.dumps({"done": act()})
        except Failure as failure:
            data = marshal.dumps({"failure": (failure.kind, str(failure))})
        except OSError as error:
            data = marshal.dumps({"error": (error.errno, error.strerror, str(error.filename or ""))})
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(pipe, rest) :]
        code = 0
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def _result(data: bytes) -> Any:
    if not data:
        raise Failure("ExecutorError", "the second of two processes that copy files ended too early")
    answer = marshal.loads(data)
    if "failure" in answer:
        raise Failure(*answer["failure"])
    if "error" in answer:
        raise OSError(*answer["error"])
    return answer["done"]
