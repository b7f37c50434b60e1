"""File actions: what `State.file` does.

An action is made without a state, and actions are chained: ``mkdir("/a").mkfile("/a/b", b"text")``. The chain
is one op. ``copy`` takes a state, or a chain bound to one (`FileAction.on`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bknb.errors import DefinitionError
from bknb.llb import ops
from bknb.llb.graph import Constraints, Defaults, Edges, Inputs, Output, Pending
from bknb.llb.values import clean, join
from bknb.llb.vertex import Vertex

if TYPE_CHECKING:
    from bknb.llb.state import State

Owner = str | tuple[int | str, int | str]
"""``"user"``, ``"user:group"``, or both apart; numbers are ids, other words names."""

_Make = Callable[[str, int], ops.Action]


@dataclass(frozen=True, slots=True, eq=False)
class FileAction:
    """An action, and those before it. Made by `mkdir`, `mkfile`, `symlink`, `rm` and `copy`."""

    make: _Make
    """Given the working folder and the index of the base input (-1 for scratch), the op's action."""
    source: State | FileAction | None = None
    before: FileAction | None = None
    state: State | None = None

    def mkdir(self, path: str, mode: int = 0o755, **options: object) -> FileAction:
        """Then make a folder; see `mkdir`."""
        return replace(mkdir(path, mode, **options), before=self)  # type: ignore[arg-type]

    def mkfile(self, path: str, data: bytes | str = b"", mode: int = 0o644, **options: object) -> FileAction:
        """Then write a file; see `mkfile`."""
        return replace(mkfile(path, data, mode, **options), before=self)  # type: ignore[arg-type]

    def symlink(self, old: str, new: str, **options: object) -> FileAction:
        """Then make a symbolic link; see `symlink`."""
        return replace(symlink(old, new, **options), before=self)  # type: ignore[arg-type]

    def rm(self, path: str, **options: object) -> FileAction:
        """Then remove a path; see `rm`."""
        return replace(rm(path, **options), before=self)  # type: ignore[arg-type]

    def copy(self, source: State | FileAction, src: str, dest: str, **options: object) -> FileAction:
        """Then copy; see `copy`."""
        return replace(copy(source, src, dest, **options), before=self)  # type: ignore[arg-type]

    def on(self, state: State) -> FileAction:
        """The chain bound to a state, so that its result can be copied from."""
        bound: FileAction | None = None
        for action in self.chain():
            bound = replace(action, before=bound, state=state)
        assert bound is not None
        return bound

    def chain(self) -> list[FileAction]:
        """Every action, first to last."""
        found = []
        action: FileAction | None = self
        while action is not None:
            found.append(action)
            action = action.before
        return found[::-1]


def mkdir(
    path: str, mode: int = 0o755, *, parents: bool = False, owner: Owner | None = None, created: int = -1
) -> FileAction:
    """Make a folder. `created` is its time in nanoseconds, -1 for now."""
    return FileAction(
        lambda folder, base: ops.MkDirAction(
            normalize(folder, path), mode & 0o777, parents, chown(owner, base), created
        )
    )


def mkfile(
    path: str, data: bytes | str = b"", mode: int = 0o644, *, owner: Owner | None = None, created: int = -1
) -> FileAction:
    """Write a file."""
    content = data.encode() if isinstance(data, str) else data
    return FileAction(
        lambda folder, base: ops.MkFileAction(
            normalize(folder, path), mode & 0o777, content, chown(owner, base), created
        )
    )


def symlink(old: str, new: str, *, owner: Owner | None = None, created: int = -1) -> FileAction:
    """Make a symbolic link at `new` that says `old`."""
    return FileAction(lambda _, base: ops.SymlinkAction(old, new, chown(owner, base), created))


def rm(path: str, *, allow_not_found: bool = False, allow_wildcard: bool = False) -> FileAction:
    """Remove a file or a folder."""
    return FileAction(
        lambda folder, _: ops.RmAction(normalize(folder, path), allow_not_found, allow_wildcard)
    )


def copy(
    source: State | FileAction,
    src: str,
    dest: str,
    *,
    mode: int | str | None = None,
    owner: Owner | None = None,
    created: int = -1,
    follow_symlinks: bool = False,
    contents_only: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    required: Sequence[str] = (),
    unpack: bool = False,
    create_dest: bool = False,
    wildcard: bool = False,
    allow_empty_wildcard: bool = False,
    replace_existing: bool = False,
) -> FileAction:
    """Copy from a state (or a bound chain of actions) into this one.

    Args:
        source: what to copy from.
        src: path in it; relative to its working folder.
        dest: path to copy to; a trailing slash means "into".
        mode: permissions as a number, or symbolic (``"u+x"``); None keeps them.
        owner: new owner; None keeps it.
        created: time in nanoseconds, -1 keeps it.
        follow_symlinks: copy what `src` points at.
        contents_only: of a folder, copy what is in it.
        include: only what matches one of these patterns.
        exclude: not what matches one of these patterns.
        required: paths that must be there; only read beside `include`.
        unpack: an archive is unpacked instead.
        create_dest: make the folders of `dest`.
        wildcard: `src` is a pattern.
        allow_empty_wildcard: it may match nothing.
        replace_existing: what is at `dest` may be of another type.
    """

    def make(folder: str, base: int) -> ops.Action:
        return ops.CopyAction(
            src=_source_path(source, src),
            dest=normalize(folder, dest, keep_slash=True),
            owner=chown(owner, base),
            mode=mode if isinstance(mode, int) else 0 if mode else -1,
            follow_symlink=follow_symlinks,
            dir_copy_contents=contents_only,
            attempt_unpack=unpack,
            create_dest_path=create_dest,
            allow_wildcard=wildcard,
            allow_empty_wildcard=allow_empty_wildcard,
            timestamp=created,
            include_patterns=tuple(include),
            exclude_patterns=tuple(exclude),
            always_replace_existing_dest_paths=replace_existing,
            mode_str=mode if isinstance(mode, str) else "",
            required_paths=tuple(required),
        )

    return FileAction(make, source)


def normalize(folder: str, path: str, *, keep_slash: bool = False) -> str:
    """An absolute path; a trailing ``/`` or ``/.`` is kept on request (client/llb/fileop.go).

    >>> normalize("/w", "a/", keep_slash=True), normalize("/", "/.", keep_slash=True)
    ('/w/a/', '/.')
    """
    cleaned = clean(path)
    if not cleaned.startswith("/"):
        cleaned = join("/", folder, cleaned)
    if keep_slash:
        if path.endswith("/") and not cleaned.endswith("/"):
            cleaned += "/"
        elif path.endswith("/."):
            cleaned += "." if cleaned == "/" else "/."
    return cleaned


def chown(owner: Owner | None, base: int) -> ops.ChownOpt | None:
    """An owner as the op has it; names are looked up in the input `base`."""
    if owner is None:
        return None
    if isinstance(owner, str):
        user, colon, group = owner.partition(":")
        return ops.ChownOpt(_user(user, base), _user(group, base) if colon else None)
    return ops.ChownOpt(*(_user(part, base) for part in owner))


def _user(word: int | str, base: int) -> ops.UserOpt:
    if isinstance(word, int):
        return ops.UserOpt(word & 0xFFFFFFFF)
    if word in ("root", ""):
        return ops.UserOpt(0)
    sign, digits = ("-", word[1:]) if word.startswith("-") else ("", word.removeprefix("+"))
    if digits.isascii() and digits.isdigit() and len(digits.lstrip("0")) < 11:
        number = int(sign + digits)
        if -(1 << 31) <= number < 1 << 31:
            return ops.UserOpt(number & 0xFFFFFFFF)
    return ops.UserOpt(ops.NamedUser(word, base))


def _source_path(source: State | FileAction, src: str) -> str:
    path = clean(src)
    if path.startswith("/"):
        return path
    state = source.state if isinstance(source, FileAction) else source
    return join(state.values.dir if state is not None else "/", path)


class PendingFile(Pending):
    """A file op that has no bytes yet."""

    __slots__ = ("action", "output")

    def __init__(self, base: State, action: FileAction, constraints: Constraints) -> None:
        super().__init__(constraints)
        self.action = action.on(base)
        self.output = Output(self)

    def sources(self) -> Iterable[Output]:
        found: dict[int, Output] = {}
        chains = [self.action.chain()]
        while chains:
            actions = chains[-1]
            if not actions:
                chains.pop()
                continue
            action = actions.pop()
            for state in (action.state, action.source):
                if isinstance(state, FileAction):
                    chains.append(state.chain())
                elif state is not None and state.output is not None:
                    found.setdefault(id(state.output), state.output)
        return found.values()

    def states(self) -> Iterable[State]:
        for action in self.action.chain():
            if action.state is not None:
                yield action.state
            if action.source is not None and not isinstance(action.source, FileAction):
                yield action.source

    def make(self, edges: Edges, defaults: Defaults) -> Vertex:
        plan = _Plan(edges)
        plan.add(self.action)
        return self.finish(plan.op(), plan.inputs.edges, edges, defaults, ("file.base",))


@dataclass(slots=True)
class _Step:
    """An action in the op: indexes of inputs, or of earlier actions."""

    action: FileAction
    base: int
    input: int
    input_is_action: bool
    second: int = -1
    second_is_action: bool = False


class _Plan:
    """Numbers actions and inputs, first to last (client/llb/fileop.go, marshalState)."""

    def __init__(self, edges: Edges) -> None:
        self.inputs = Inputs()
        self._edges = edges
        self._steps: list[_Step] = []
        self._numbers: dict[int, int] = {}

    def add(self, last: FileAction, depth: int = 0) -> int:
        """Number a chain; gives the number of its last action."""
        if depth > 64:
            raise DefinitionError("file actions copy from each other more than 64 deep")
        for action in last.chain():
            if id(action) in self._numbers:
                continue
            base = self._input(action.state)
            step = _Step(action, base, base, input_is_action=False)
            if action.before is not None:
                step.input, step.input_is_action = self._numbers[id(action.before)], True
            if isinstance(action.source, FileAction):
                step.second, step.second_is_action = self.add(action.source, depth + 1), True
            else:
                step.second = self._input(action.source)
            self._numbers[id(action)] = len(self._steps)
            self._steps.append(step)
        return self._numbers[id(last)]

    def _input(self, state: State | None) -> int:
        if state is None or state.output is None:
            return -1
        return self.inputs.index(self._edges.of(state.output))

    def op(self) -> ops.FileOp:
        """The op; only the last action is an output."""
        offset, last = len(self.inputs.edges), len(self._steps) - 1
        return ops.FileOp(tuple(
            ops.FileAction(
                step.input + offset * step.input_is_action,
                step.second + offset * step.second_is_action,
                0 if number == last else -1,
                step.action.make(step.action.state.values.dir if step.action.state else "", step.base),
            )
            for number, step in enumerate(self._steps)
        ))  # fmt: skip
