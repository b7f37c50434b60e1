"""FileOp: copies, files, folders, links and removals (solver/llbsolver/file/backend.go, ops/file.go of BuildKit).

The actions of one op form a small graph of their own. A chain of actions, which is all that a Dockerfile makes,
works in one snapshot and is one request to the shim; a chain that copies nothing shares it with other steps
(`batch`). An action whose result is needed by itself (an output, or read by a later one while others write on) is
committed, and what follows continues on top of it.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from bknb.errors import DefinitionError
from bknb.llb.names import ACTION_NAMES
from bknb.llb.ops import (
    Action,
    ChownOpt,
    CopyAction,
    FileAction,
    FileOp,
    MkDirAction,
    MkFileAction,
    NamedUser,
    RmAction,
    SymlinkAction,
    UserOpt,
)
from bknb.llb.vertex import Vertex
from bknb.protocols import CacheMap, Job, Mounts, MutableRef, Ref

if TYPE_CHECKING:
    from bknb.worker.worker import LocalWorker

SMALL = 1 << 18
"""Bytes of files that an operation may write to be made together with others."""


class FileOperation(Struct, frozen=True, eq=False):
    """Performs the actions of one vertex."""

    vertex: Vertex
    op: FileOp
    cache_map: CacheMap
    worker: LocalWorker

    async def cache_maps(self, job: Job) -> AsyncIterator[CacheMap]:
        """A file op is keyed by its definition and the content of what it copies."""
        yield self.cache_map

    async def exec(self, job: Job, inputs: Sequence[Ref | None]) -> Sequence[Ref | None]:
        """Perform them; one Ref for each output.

        Raises:
            PathError: a source that is not there, a target that cannot be written.
            DefinitionError: an index that points nowhere.
        """
        async with AsyncExitStack() as stack:
            run = _Run(self.vertex, self.worker, inputs, stack)
            if self._is_small():
                return (await run.small(self.op.actions),)
            for number, action in enumerate(self.op.actions):
                await run.plan(number, action, self._shared(number))
            await run.flush()
            outputs: dict[int, Ref | None] = {}
            for number, action in enumerate(self.op.actions):
                if action.output >= 0:
                    outputs[action.output] = (await run.result(number)).clone()
            return tuple(outputs.get(index) for index in range(max(outputs, default=-1) + 1))

    def _is_small(self) -> bool:
        """Whether it is a chain of actions that copy nothing and write little: those of many steps are made together."""
        count, size = len(self.vertex.inputs), 0
        for number, action in enumerate(self.op.actions):
            last = number == len(self.op.actions) - 1
            if not isinstance(action.action, MkFileAction | MkDirAction | SymlinkAction | RmAction):
                return False
            if action.output != (0 if last else -1) or (number and action.input != count + number - 1):
                return False
            size += len(action.action.data) if isinstance(action.action, MkFileAction) else 0
        return bool(self.op.actions) and -1 <= self.op.actions[0].input < count and size <= SMALL

    def _shared(self, number: int) -> bool:
        """Whether the result of an action is needed as it is, by more than the one action that goes on with it."""
        index = len(self.vertex.inputs) + number
        users = [a for a in self.op.actions if a.input == index]
        return (
            self.op.actions[number].output >= 0
            or len(users) != 1
            or any(a.secondary_input == index for a in self.op.actions)
        )


@dataclass(slots=True)
class _Tree:
    """What an action leaves: a snapshot in the making, until it is committed."""

    mutable: MutableRef
    ref: Ref | None = None


class _Run:
    """The actions of one op while they are performed."""

    def __init__(
        self, vertex: Vertex, worker: LocalWorker, inputs: Sequence[Ref | None], stack: AsyncExitStack
    ) -> None:
        self.vertex = vertex
        self.worker = worker
        self.inputs = inputs
        self.stack = stack
        self.trees: dict[int, _Tree] = {}
        self.mounted: list[Mounts] = []
        self.actions: list[dict[str, Any]] = []
        self.final: set[int] = set()
        self.lender: Ref | None = None

    async def small(self, actions: Sequence[FileAction]) -> Ref:
        """A chain of actions that copy nothing, with what other steps do at the same time."""
        self.mounted = [()]  # tree 0 is the one to be made
        planned = [await self._json(each.action, 0, None) for each in actions if each.action is not None]
        base = self._input(0, actions[0].input)
        text = self.worker.veil.text(self.vertex.meta.name) or "file operation"
        return await self.worker.files.make(base, planned, self.mounted[1:], text)

    async def plan(self, number: int, action: Any, shared: bool) -> None:
        if action.action is None:
            raise DefinitionError(f"file action {number} does nothing", self.vertex.digest)
        if action.secondary_input >= len(self.inputs):
            await self.flush()
        tree = await self._target(number, action.input)
        self.trees[number] = tree
        target = self._index(await tree.mutable.mounts())
        source = None
        if isinstance(action.action, CopyAction):
            ref = await self._source(number, action.secondary_input)
            source = None if ref is None else self._index(await ref.mounts())
            if ref is None:
                source = self._index(await self._nothing())
            elif shared and self.worker.hasher.came_with_hashes(ref):
                self.lender = ref
        self.actions.append(await self._json(action.action, target, source))
        if shared:
            self.actions[-1]["links"] = self.lender is not None  # nothing else writes to this tree
            self.final.add(number)
            await self.flush()

    async def flush(self) -> None:
        """Have the planned actions done, and commit what is needed as it is."""
        lender, self.lender = self.lender, None
        if self.actions:
            actions, self.actions = self.actions, []
            trees, self.mounted = self.mounted, []
            done = await self.worker.shim.call(
                "files.apply", trees=[[m.to_json() for m in tree] for tree in trees], actions=actions
            )
            lender = lender if done[-1].get("linked") else None
        for number in self.final:
            tree = self.trees[number]
            if tree.ref is None:
                tree.ref = await tree.mutable.commit()
                self.stack.push_async_callback(tree.ref.release)
                if lender is not None:
                    self.worker.refs.share(tree.ref, lender)
        self.final.clear()

    async def result(self, number: int) -> Ref:
        ref = self.trees[number].ref
        assert ref is not None
        return ref

    async def _target(self, number: int, index: int) -> _Tree:
        earlier = index - len(self.inputs)
        if earlier >= 0:
            if earlier >= number:
                raise DefinitionError(
                    f"file action {number} works on action {earlier}, which comes later", self.vertex.digest
                )
            tree = self.trees[earlier]
            if tree.ref is None:
                return tree
            base: Ref | None = tree.ref
        else:
            base = self._input(number, index)
        name = self.worker.veil.text(self.vertex.meta.name)
        mutable = await self.worker.refs.new(base, description=name or "file operation")
        self.stack.push_async_callback(mutable.discard)
        return _Tree(mutable)

    async def _source(self, number: int, index: int) -> Ref | None:
        earlier = index - len(self.inputs)
        if earlier < 0:
            return self._input(number, index)
        if earlier >= number:
            raise DefinitionError(
                f"file action {number} reads action {earlier}, which comes later", self.vertex.digest
            )
        return await self.result(earlier)

    def _input(self, number: int, index: int) -> Ref | None:
        if index == -1:
            return None
        if not 0 <= index < len(self.inputs):
            raise DefinitionError(
                f"file action {number} names input {index}, the vertex has {len(self.inputs)}",
                self.vertex.digest,
            )
        return self.inputs[index]

    async def _nothing(self) -> Mounts:
        mutable = await self.worker.refs.new(None, description="an empty source", kind="internal")
        self.stack.push_async_callback(mutable.discard)
        return await mutable.mounts()

    def _index(self, mounts: Mounts) -> int:
        if mounts not in self.mounted:
            self.mounted.append(mounts)
        return self.mounted.index(mounts)

    async def _json(self, action: Action, target: int, source: int | None) -> dict[str, Any]:
        values: dict[str, Any] = {"kind": ACTION_NAMES[type(action)], "target": target, "source": source}
        for field in dataclasses.fields(action):
            value = getattr(action, field.name)
            if isinstance(value, bytes):
                value = base64.b64encode(value).decode()
            elif isinstance(value, ChownOpt):
                value = {"user": await self._owner(value.user), "group": await self._owner(value.group)}
            elif isinstance(value, tuple):
                value = list(value)
            values[field.name] = value
        return values

    async def _owner(self, opt: UserOpt | None) -> dict[str, Any] | None:
        """An owner as the shim reads it: an id, or a name and the tree in which it is looked up."""
        if opt is None:
            return None
        if isinstance(opt.user, NamedUser):
            ref = self.inputs[opt.user.input] if 0 <= opt.user.input < len(self.inputs) else None
            return {"name": opt.user.name, "tree": None if ref is None else self._index(await ref.mounts())}
        return {"id": opt.user or 0}
