"""What an exec mounts, made from the inputs of its vertex.

Every input is mounted at most once for writing. A mount that is an output gets a snapshot of its own on top of
its input; a writable mount that is none ("no output") gets one that is thrown away; the rest is read in place
(solver/llbsolver/mounts/mount.go, ops/exec.go of BuildKit).
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bknb.errors import DefinitionError, SourceError
from bknb.llb import ops
from bknb.llb.ops import ExecOp, MountType
from bknb.llb.vertex import Vertex
from bknb.protocols import Job, Mount, Mounts, MutableRef, ProcessMount, Ref

if TYPE_CHECKING:
    from bknb.worker.worker import LocalWorker


@dataclass(frozen=True, slots=True)
class MountPlan:
    """The root, what is mounted over it, and what is kept afterwards, by output index."""

    root: Mounts
    root_readonly: bool
    mounts: tuple[ProcessMount, ...]
    outputs: tuple[MutableRef | Ref | None, ...]


async def prepare_mounts(
    worker: LocalWorker,
    vertex: Vertex,
    op: ExecOp,
    job: Job,
    inputs: Sequence[Ref | None],
    stack: AsyncExitStack,
) -> MountPlan:
    """Make the mounts of one run; what is not committed in the end is discarded by the stack.

    Raises:
        DefinitionError: there is no root, or an index points nowhere.
        SourceError: a secret or agent that is required is not there.
    """
    root: Mounts | None = None
    root_readonly = False
    mounts: list[ProcessMount] = []
    outputs: dict[int, MutableRef | Ref | None] = {}
    for mount in op.mounts:
        is_root = posixpath.normpath("/" + mount.dest.lstrip("/")) == "/"
        if mount.type == MountType.BIND:
            tree, kept = await _bind(worker, vertex, mount, inputs, stack)
            if mount.output >= 0:
                outputs[mount.output] = kept
            if is_root:
                root, root_readonly = tree, mount.readonly
                continue
            mounts.append(ProcessMount(mount.dest, tree, mount.selector, readonly=mount.readonly))
        else:
            prepared = await _special(worker, vertex, mount, job, inputs, stack)
            if prepared is not None:
                mounts.append(prepared)
    if root is None:
        raise DefinitionError("an exec needs a mount at /", vertex.digest)
    # Mounts nearer to the root come first, whatever the order in the op, so that none hides another.
    mounts.sort(key=lambda m: len([part for part in m.dest.split("/") if part]))
    count = max(outputs, default=-1) + 1
    return MountPlan(root, root_readonly, tuple(mounts), tuple(outputs.get(i) for i in range(count)))


async def _bind(
    worker: LocalWorker, vertex: Vertex, mount: ops.Mount, inputs: Sequence[Ref | None], stack: AsyncExitStack
) -> tuple[Mounts, MutableRef | Ref | None]:
    ref = _input(vertex, mount, inputs)
    if mount.readonly:
        if ref is not None:
            return await ref.mounts(), ref.clone() if mount.output >= 0 else None
        return await _empty(worker, vertex, stack), None
    mutable = await worker.refs.new(ref, description=f"mount {mount.dest} from exec {_title(vertex, mount)}")
    stack.push_async_callback(mutable.discard)
    return await mutable.mounts(), mutable


async def _empty(worker: LocalWorker, vertex: Vertex, stack: AsyncExitStack) -> Mounts:
    mutable = await worker.refs.new(None, description="an empty mount", kind="internal")
    stack.push_async_callback(mutable.discard)
    return await mutable.mounts()


async def _special(
    worker: LocalWorker,
    vertex: Vertex,
    mount: ops.Mount,
    job: Job,
    inputs: Sequence[Ref | None],
    stack: AsyncExitStack,
) -> ProcessMount | None:
    match mount.type:
        case MountType.TMPFS:
            size = mount.tmpfs_opt.size if mount.tmpfs_opt else 0
            options = (
                ("nosuid", "nodev")
                if posixpath.normpath(mount.dest) != "/dev/shm"
                else ("nosuid", "nodev", "noexec", "mode=1777")
            )
            return ProcessMount(
                mount.dest,
                (Mount("tmpfs", "tmpfs", options + ((f"size={size}",) if size else ())),),
                readonly=mount.readonly,
            )
        case MountType.CACHE:
            opt = mount.cache_opt or ops.CacheOpt()
            if not opt.id:
                raise DefinitionError(f"the cache mount at {mount.dest} has no id", vertex.digest)
            base = _input(vertex, mount, inputs)
            tree = await stack.enter_async_context(
                worker.refs.cache_mount(
                    f"cache-dir:{opt.id}" + (f":{base.id}" if base is not None else ""), base, opt.sharing.name.lower(),
                    description=f"cached mount {mount.dest} from exec {_title(vertex, mount)}", job=job.id,
                )
            )  # fmt: skip
            return ProcessMount(mount.dest, tree, mount.selector, readonly=mount.readonly)
        case MountType.SECRET:
            secret = mount.secret_opt or ops.SecretOpt()
            data = await job.session.secret(secret.id)
            if data is None:
                if secret.optional:
                    return None
                raise SourceError(
                    f"secret {secret.id}: not found; give it with --secret id={secret.id},src=FILE"
                )
            return ProcessMount(
                mount.dest, readonly=True, data=data, owner_mode=(secret.uid, secret.gid, secret.mode & 0o777)
            )
        case MountType.SSH:
            ssh = mount.ssh_opt or ops.SSHOpt()
            socket = await job.session.ssh_socket(ssh.id)
            if socket is None:
                if ssh.optional:
                    return None
                raise SourceError(
                    f"unset ssh forward key {ssh.id or 'default'}: give it with --ssh {ssh.id or 'default'}"
                )
            return ProcessMount(mount.dest, socket=socket, owner_mode=(ssh.uid, ssh.gid, ssh.mode & 0o777))
        case _:
            raise DefinitionError(f"unknown mount type {mount.type} at {mount.dest}", vertex.digest)


def _input(vertex: Vertex, mount: ops.Mount, inputs: Sequence[Ref | None]) -> Ref | None:
    if mount.input == -1:
        return None
    if not 0 <= mount.input < len(inputs):
        raise DefinitionError(
            f"the mount at {mount.dest} names input {mount.input}, the vertex has {len(inputs)}",
            vertex.digest,
        )
    return inputs[mount.input]


def _title(vertex: Vertex, mount: ops.Mount) -> str:
    op = vertex.op
    return " ".join(op.meta.args) if isinstance(op, ExecOp) and op.meta else mount.dest
