"""How the shim hands out its work."""

from __future__ import annotations

import socket
import threading

import pytest

from bknb.shim.namespaces import Entered
from bknb.shim.server import Cancelled, Context, Server


@pytest.mark.timeout(20)
def test_an_op_that_is_cancelled_already_goes_on_by_itself() -> None:
    """What is done at its cancelling may wait for the op: it is another thread's, also when the cancelling came first."""
    ours, theirs = socket.socketpair()
    server = Server(theirs.detach(), "", "", Entered("none", 0, []))
    context = Context(server)
    context.cancel()
    went_on, done = threading.Event(), threading.Event()

    def act() -> None:
        assert went_on.wait(10)
        done.set()

    context.on_cancel(act)  # returns, although `act` cannot end before it has
    went_on.set()
    assert done.wait(10)
    with pytest.raises(Cancelled):
        context.check()
    ours.close()
