"""What is written down of contexts, so that another kernel goes on from there.

Each state of a context has a file named after the result that holds it: what was copied and removed since the state
before. So an edit of one file among many writes one row. A small file for each context names its latest state. All
are written aside and renamed: a kernel that is killed leaves the state before.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec

FORMAT = 2
_MAX_DEPTH = 10_000

Row = tuple[str, int, int, str, int, tuple[int, ...], str, dict[str, bytes] | None]
"""Path, mode, size, linkname, device, signature, content hash of a regular file, xattrs (`bknb.shim.transfer`)."""


class State(msgspec.Struct, frozen=True):
    """One state of a context.

    Attributes:
        ref: id of the result that holds it.
        before: id of the state that it was made from; "" where all was copied.
        depth: how many states lie on each other.
        rows: how many rows all of those have; `bytes` is what was copied for them.
    """

    ref: str
    before: str = ""
    depth: int = 1
    rows: int = 0
    bytes: int = 0


class _Saved(msgspec.Struct, array_like=True):
    format: int
    state: State
    removed: list[Any]
    rows: list[Any]


class Journal:
    """The files, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def latest(self, key: str) -> State | None:
        """The state that a context was in last."""
        try:
            return self.state((self._folder / f"{key}.head").read_text())
        except (OSError, ValueError):
            return None

    def beside(self, prefix: str) -> State | None:
        """The latest state of any context whose key begins so."""
        heads = []
        for path in self._folder.glob(f"{prefix}*.head"):
            try:
                heads.append((path.stat().st_mtime_ns, path.name.removesuffix(".head")))
            except OSError:
                continue
        return next((state for _, key in sorted(heads, reverse=True) if (state := self.latest(key))), None)

    def state(self, ref: str) -> State | None:
        """What is written of a state, without its rows."""
        saved = self._read(ref)
        return saved.state if saved is not None else None

    def point(self, key: str, ref: str) -> None:
        """This is the latest state of a context."""
        self._write(f"{key}.head", ref.encode())

    def save(self, state: State, removed: Collection[str], rows: Collection[Row]) -> None:
        """Write down what a state has that the one before had not."""
        saved = _Saved(FORMAT, state, list(removed), list(rows))
        try:
            data = msgspec.msgpack.encode(saved)
        except UnicodeEncodeError:  # a name that is no text
            saved.removed = [os.fsencode(path) for path in removed]
            saved.rows = [(os.fsencode(row[0]), *row[1:3], os.fsencode(row[3]), *row[4:]) for row in rows]
            data = msgspec.msgpack.encode(saved)
        self._write(f"{state.ref}.state", data)

    def rows(self, ref: str) -> list[Row] | None:
        """Everything that there is in a state, folders before what is in them; None if part of it is not known."""
        chain: list[_Saved] = []
        while ref:
            saved = self._read(ref)
            if saved is None or len(chain) > _MAX_DEPTH:
                return None
            chain.append(saved)
            ref = saved.state.before
        rows: dict[str, Any] = {}
        for saved in reversed(chain):
            for path in saved.removed:
                _remove(rows, os.fsdecode(path))
            for path, mode, size, link, device, signature, *rest in saved.rows:
                name = os.fsdecode(path)
                if name in rows and not stat.S_ISDIR(mode):
                    _remove(rows, name)
                rows[name] = (name, mode, size, os.fsdecode(link), device, tuple(signature), *rest)
        return [rows[path] for path in sorted(rows, key=lambda path: path.split("/"))]

    def forget(self, gone: Collection[str]) -> None:
        """Remove what is written of states whose results are gone."""
        for ref in gone:
            (self._folder / f"{ref}.state").unlink(missing_ok=True)
        for path in self._heads() if gone else ():
            try:
                if path.read_text() in gone:
                    path.unlink()
            except OSError:
                continue

    def _heads(self) -> Iterator[Path]:
        return self._folder.glob("*.head")

    def _read(self, ref: str) -> _Saved | None:
        if not ref or "/" in ref:
            return None
        try:
            saved = msgspec.msgpack.decode((self._folder / f"{ref}.state").read_bytes(), type=_Saved)
        except (OSError, msgspec.DecodeError):
            return None
        return saved if saved.format == FORMAT else None

    def _write(self, name: str, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f".{name}.{os.getpid()}"
        draft.write_bytes(data)
        draft.replace(self._folder / name)


def _remove(rows: dict[str, Any], path: str) -> None:
    """A path and all below it."""
    row = rows.pop(path, None)
    if row is None or not stat.S_ISDIR(row[1]):
        return
    below = path + "/"
    for other in [other for other in rows if other.startswith(below)]:
        del rows[other]
