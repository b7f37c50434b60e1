"""A socket inside of a container joined to one outside.

An SSH agent checks who connects, and the user of a step is somebody else; so the shim connects in his stead.

One thread for each direction of each connection; agents' talk is short.
"""

from __future__ import annotations

import _thread
import socket


class Mediator:
    """Accepts on a listening socket, and connects each caller to `path` until `close`."""

    def __init__(self, listener: socket.socket, path: str) -> None:
        self._listener = listener
        self._path = path
        self._open: set[socket.socket] = set()
        self._lock = _thread.allocate_lock()
        _thread.start_new_thread(self._accept, ())

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            found = [self._listener, *self._open]
            self._open.clear()
        for each in found:
            _end(each)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                agent.connect(self._path)
            except OSError:
                caller.close()
                agent.close()
                continue
            with self._lock:
                self._open |= {caller, agent}
            _thread.start_new_thread(self._pump, (caller, agent))
            _thread.start_new_thread(self._pump, (agent, caller))

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        """Copy one direction; its end ends the connection."""
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
        except OSError:
            pass
        for each in (source, target):
            _end(each)
            with self._lock:
                mine = each in self._open
                self._open.discard(each)
            if mine:
                each.close()


def _end(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was faster
