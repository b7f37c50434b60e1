"""The files of a result: list, read, compare; and commands run in it."""

from __future__ import annotations

import base64
import secrets as random
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from bknb.errors import PathError, SourceError, UsageError
from bknb.llb.ops import Meta, NetMode
from bknb.protocols import Process, Ref

if TYPE_CHECKING:
    import pandas

    from bknb.builder.local import LocalBuilder

T = TypeVar("T")
Call = Callable[[Callable[["LocalBuilder"], Awaitable[T]]], T]
READ_LIMIT = 256 << 20
"""Largest file that `Files.read` returns, in bytes."""


@dataclass(frozen=True, slots=True)
class File:
    """One file. `size` in bytes; `link` is what a symbolic link says."""

    path: str
    mode: int
    size: int
    uid: int
    gid: int
    link: str = ""

    @property
    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    def __str__(self) -> str:
        arrow = f" -> {self.link}" if self.link else ""
        return f"{stat.filemode(self.mode)} {self.uid}:{self.gid} {self.size:>10} {self.path}{arrow}"


@dataclass(frozen=True, slots=True)
class Change:
    """What a step did to one path: ``added``, ``changed`` or ``removed``; sizes in bytes, None where there is none."""

    kind: str
    path: str
    before: int | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one result, read where they lie.

    Attributes:
        id: of the record; "" is scratch, which has no files.
        base: of the record that it was made from, for `diff`.
    """

    call: Call[Any] = field(repr=False)
    id: str
    base: str = ""

    def ls(self, path: str = "/") -> list[File]:
        """The files of one folder, sorted by name.

        Raises:
            PathError: there is no such folder.
            SourceError: the result is gone from the store.
        """
        return [_file(entry) for entry in self._tree("views.list", path=path)]

    def walk(self, path: str = "/") -> list[File]:
        """Every file at and below a path."""
        found: list[File] = []
        for file in self.ls(path):
            found.append(file)
            if file.is_dir:
                found += self.walk(file.path)
        return found

    def read(self, path: str) -> bytes:
        """A file's bytes.

        Raises:
            PathError: it is not there, no regular file, or larger than 256 MiB.
        """
        answer = self._tree("views.read", path=path, limit=READ_LIMIT)
        if answer is None:
            raise PathError(f'"{path}": not found')
        return base64.b64decode(answer)

    def text(self, path: str) -> str:
        """A file's text."""
        return self.read(path).decode(errors="replace")

    def stat(self, path: str) -> File:
        """What a path is, links not followed.

        Raises:
            PathError: it is not there.
        """
        answer = self._tree("views.stat", path=path)
        if answer is None:
            raise PathError(f'"{path}": not found')
        return _file(answer)

    def exists(self, path: str) -> bool:
        """Whether a path is there."""
        try:
            self.stat(path)
        except PathError:
            return False
        return True

    def diff(self) -> list[Change]:
        """What the step changed: against the result that it was made from."""
        base, id = self.base, self.id

        async def compare(builder: LocalBuilder) -> list[Change]:
            async with _Hold(builder, id) as ref, _Hold(builder, base) as below:
                upper = [m.to_json() for m in await ref.mounts()] if ref is not None else []
                lower = [m.to_json() for m in await below.mounts()] if below is not None else []
                changes = await builder.parts.shim.call("views.changes", lower=lower, upper=upper)
            return [Change(*change) for change in changes]

        found: list[Change] = self.call(compare)
        return found

    def table(self, path: str = "/") -> pandas.DataFrame:
        """`walk` as a DataFrame."""
        import pandas

        from bknb.api.frames import table

        files = self.walk(path)
        columns = {name: [getattr(f, name) for f in files] for name in ("path", "size", "uid", "gid", "link")}
        return table(pandas.DataFrame(
            {"path": columns.pop("path"), "mode": [stat.filemode(f.mode) for f in files], **columns}
        ))

    def _tree(self, op: str, **arguments: Any) -> Any:
        id = self.id

        async def ask(builder: LocalBuilder) -> Any:
            async with _Hold(builder, id) as ref:
                mounts = [m.to_json() for m in await ref.mounts()] if ref is not None else []
                return await builder.parts.shim.call(op, mounts=mounts, **arguments)

        return self.call(ask)

    def __iter__(self) -> Any:
        return iter(self.walk())

    def __repr__(self) -> str:
        if not self.id:
            return "<Files: none>"
        return "\n".join(str(file) for file in self.ls())


class _Hold:
    """A hold on a record for as long as the context lasts; None for scratch."""

    def __init__(self, builder: LocalBuilder, id: str) -> None:
        self._builder = builder
        self._id = id
        self._ref: Ref | None = None

    async def __aenter__(self) -> Ref | None:
        if self._id:
            self._ref = await self._builder.get(self._id)
            if self._ref is None:
                raise SourceError("these files are gone from the store (pruned): build again")
        return self._ref

    async def __aexit__(self, *error: object) -> None:
        if self._ref is not None:
            await self._ref.release()


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that was run in a result: its exit code and what it wrote."""

    code: int
    stdout: str
    stderr: str

    def __repr__(self) -> str:
        text = self.stdout + self.stderr
        return text.rstrip("\n") + (f"\n[exit code {self.code}]" if self.code else "")


def run_in(
    call: Call[Any], id: str, command: str | Sequence[str], config: Mapping[str, Any], *, user: str | None = None,
    cwd: str | None = None, env: Mapping[str, str] | None = None, network: str = "default", stdin: bytes = b"",
) -> Ran:  # fmt: skip
    """Run a command over a result; what it writes is thrown away.

    Args:
        call: runs a coroutine function of the builder.
        id: the record.
        command: a text for ``/bin/sh -c``, or a list of arguments.
        config: the image's ``config``, for env, user and folder.
        user: another user.
        cwd: another folder.
        env: further variables.
        network: ``default``, ``none`` or ``host``.
        stdin: what the command reads.

    Raises:
        UsageError: the result has no files.
        ExecutorError: the command could not be started.
    """
    if not id:
        raise UsageError(
            "there are no files to run a command in: the result is empty, or the step never had one"
        )
    args = ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command)
    variables = [*(config.get("Env") or ()), *(f"{k}={v}" for k, v in (env or {}).items())]
    if not any(entry.startswith("PATH=") for entry in variables):
        variables.append("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    meta = Meta(
        args,
        tuple(variables),
        cwd or config.get("WorkingDir") or "/",
        user if user is not None else config.get("User") or "",
    )
    mode = {"default": NetMode.UNSET, "none": NetMode.NONE, "host": NetMode.HOST}[network]

    async def run(builder: LocalBuilder) -> Ran:
        output: dict[int, list[bytes]] = {1: [], 2: []}
        async with _Hold(builder, id) as ref:
            mutable = await builder.parts.refs.new(ref, description="a look inside", kind="internal")
            try:
                process = Process("bknb-" + random.token_hex(8), meta, await mutable.mounts(), network=mode)
                status = await builder.parts.executor.run(
                    process, lambda stream, data: output[stream].append(data), stdin=stdin
                )
            finally:
                await mutable.discard()
        return Ran(
            status.code,
            b"".join(output[1]).decode(errors="replace"),
            b"".join(output[2]).decode(errors="replace"),
        )

    found: Ran = call(run)
    return found


def _file(entry: Mapping[str, Any]) -> File:
    return File(
        entry["path"],
        entry["mode"],
        entry["size"],
        entry.get("uid", 0),
        entry.get("gid", 0),
        entry.get("link", ""),
    )
