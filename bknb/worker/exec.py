"""ExecOp: a process over mounts (solver/llbsolver/ops/exec.go of BuildKit)."""

from __future__ import annotations

import secrets as random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import Struct

from bknb.errors import ExitError, UnsupportedError
from bknb.events import LogEvent, ResourceEvent
from bknb.llb.ops import ExecOp, Meta, NetMode, ProxyEnv, SecurityMode
from bknb.llb.vertex import Vertex
from bknb.protocols import CacheMap, Job, MutableRef, Process, Ref
from bknb.worker.mounts import MountPlan, prepare_mounts

if TYPE_CHECKING:
    from bknb.worker.worker import LocalWorker

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""util/system/path.go"""


class ExecOperation(Struct, frozen=True, eq=False):
    """Runs the process of one vertex."""

    vertex: Vertex
    op: ExecOp
    cache_map: CacheMap
    worker: LocalWorker

    async def cache_maps(self, job: Job) -> AsyncIterator[CacheMap]:
        """An exec is keyed by its definition alone."""
        yield self.cache_map

    async def exec(self, job: Job, inputs: Sequence[Ref | None]) -> Sequence[Ref | None]:
        """Run it; one Ref for each mount that is an output.

        Raises:
            ExitError: the command ended with a code that is not accepted. Its `outputs` hold what the
                command had written.
            ExecutorError: the container could not be started.
            UnsupportedError: the step asks for an entitlement that it does not have.
        """
        self._check_entitlements(job)
        async with AsyncExitStack() as stack:
            plan = await prepare_mounts(self.worker, self.vertex, self.op, job, inputs, stack)
            process = await self._process(job, plan)
            status = await self.worker.executor.run(process, self._log(job))
            if self.worker.shim.isolation.runtime == "proot":
                job.annotate(note="no isolation")
            job.emit(ResourceEvent(self.vertex.digest, status.cpu, status.peak_memory))
            meta = self.op.meta or Meta()
            accepted = meta.valid_exit_codes or (0,)
            if status.code not in accepted:
                error = ExitError(_failure(meta, status.code, status.oom), status.code, oom=status.oom)
                error.outputs = await _commit(plan.outputs)
                raise error
            return await _commit(plan.outputs)

    def _check_entitlements(self, job: Job) -> None:
        if self.op.network == NetMode.HOST and not self.worker.entitled(job, "network.host"):
            raise UnsupportedError(
                "network.host is not allowed: say --allow network.host to let this build use the host's network"
            )
        if self.op.security == SecurityMode.INSECURE and not self.worker.entitled(job, "security.insecure"):
            raise UnsupportedError(
                "security.insecure is not allowed: say --allow security.insecure to let this build run a privileged step"
            )
        if self.op.cdi_devices:
            raise UnsupportedError(
                "RUN --device needs CDI, which this builder does not have yet: use a buildkitd elsewhere"
            )

    async def _process(self, job: Job, plan: MountPlan) -> Process:
        meta = self.op.meta or Meta()
        env = list(meta.env)
        if not any(entry.startswith("PATH=") for entry in env):
            env.append(f"PATH={DEFAULT_PATH}")
        extra = _proxies(meta.proxy_env)
        for wanted in self.op.secret_env:
            value = await job.session.secret(wanted.id)
            if value is None:
                if wanted.optional:
                    continue
                raise UnsupportedError(
                    f"secret {wanted.id}: not found; give it with --secret id={wanted.id},src=FILE"
                )
            extra.append(f"{wanted.name}={value.decode(errors='surrogateescape')}")
        return Process(
            id="bknb-" + random.token_hex(8),
            meta=replace(meta, env=tuple(env)),
            root=plan.root,
            root_readonly=plan.root_readonly,
            mounts=plan.mounts,
            env=tuple(extra),
            network=self.op.network,
            security=self.op.security,
            resources=self.vertex.meta.linux_resources,
            extra_hosts=meta.extra_hosts,
            resolv_conf=self.worker.resolv_conf(),
            cgroup_parent=meta.cgroup_parent,
        )

    def _log(self, job: Job) -> _Log:
        return _Log(self.vertex, job)


@dataclass(frozen=True, slots=True)
class _Log:
    vertex: Vertex
    job: Job

    def __call__(self, stream: int, data: bytes) -> None:
        self.job.emit(LogEvent(self.vertex.digest, stream, data, time.time()))


def _proxies(proxies: ProxyEnv | None) -> list[str]:
    if proxies is None:
        return []
    values = {
        "HTTP_PROXY": proxies.http_proxy, "HTTPS_PROXY": proxies.https_proxy, "FTP_PROXY": proxies.ftp_proxy,
        "NO_PROXY": proxies.no_proxy, "ALL_PROXY": proxies.all_proxy,
    }  # fmt: skip
    return [f"{key}={value}" for name, value in values.items() if value for key in (name, name.lower())]


def _failure(meta: Meta, code: int, oom: bool) -> str:
    text = f'process "{" ".join(meta.args)}" did not complete successfully: exit code: {code}'
    return f"{text}: cannot allocate memory" if oom else text


async def _commit(outputs: Sequence[MutableRef | Ref | None]) -> tuple[Ref | None, ...]:
    return tuple([await _finish(output) for output in outputs])


async def _finish(output: MutableRef | Ref | None) -> Ref | None:
    if output is None:
        return None
    # A mount that nothing was written to is an output as it is; everything else is made immutable now.
    return await output.commit() if isinstance(output, MutableRef) else output
