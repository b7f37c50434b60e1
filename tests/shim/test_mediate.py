"""A socket inside of a container joined to an agent's outside."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from bknb.shim.mediate import Mediator


def listen(path: Path) -> socket.socket:
    """A listening socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_both_directions(tmp_path: Path) -> None:
    """What the caller says reaches the agent, and its answer comes back; the end of one is the end of both."""
    agent, inside = listen(tmp_path / "agent"), listen(tmp_path / "inside")

    def answer() -> None:
        caller, _ = agent.accept()
        with caller:
            caller.sendall(b"you said " + caller.recv(100))

    thread = threading.Thread(target=answer)
    thread.start()
    mediator = Mediator(inside, str(tmp_path / "agent"))
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(10)
        caller.connect(str(tmp_path / "inside"))
        caller.sendall(b"hello")
        said = b""
        while data := caller.recv(100):
            said += data
    assert said == b"you said hello"
    thread.join()
    mediator.close()
    agent.close()


def test_no_agent(tmp_path: Path) -> None:
    """Without an agent the caller's connection just ends, and after close nobody listens."""
    mediator = Mediator(listen(tmp_path / "inside"), str(tmp_path / "missing"))
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(10)
        caller.connect(str(tmp_path / "inside"))
        assert caller.recv(1) == b""
    mediator.close()
    with socket.socket(socket.AF_UNIX) as caller, pytest.raises(OSError):
        caller.connect(str(tmp_path / "inside"))
