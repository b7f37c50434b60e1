"""Where files come from: the Dockerfile, the main context and the named ones (frontend/dockerui)."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bknb import llb
from bknb.errors import BknbError, BuildCancelled, DockerfileError, InvalidReference
from bknb.frontend.dockerfile.archives import is_archive
from bknb.frontend.dockerfile.folders import DOCKERIGNORE, follow_paths, read_patterns
from bknb.frontend.dockerfile.gotext import parse_bool
from bknb.frontend.dockerfile.named import NamedContext, git_context
from bknb.frontend.dockerfile.options import FrontendOptions
from bknb.frontend.dockerfile.places import wrapped
from bknb.llb.values import clean, join
from bknb.llb.vertex import SourceInfo
from bknb.platforms import Platform
from bknb.protocols import Bridge, FrontendRequest, ImageConfigAnswer, Ref
from bknb.reference import Reference


@dataclass(frozen=True, slots=True)
class Entrypoint:
    """The Dockerfile as it was read, and the vertex that warnings are shown at."""

    source: SourceInfo
    ignore: bytes | None


@dataclass(slots=True)
class _Main:
    """The main context. `state` is None for a local folder; `archive` the name of a downloaded archive."""

    filename: str
    local_name: str = "context"
    dockerfile_name: str = "dockerfile"
    force_local: bool = False
    state: llb.State | None = None
    dockerfile: llb.State | None = None
    source: llb.State | None = None
    archive: bool = False


class Contexts:
    """One request's contexts."""

    def __init__(self, request: FrontendRequest, options: FrontendOptions, bridge: Bridge) -> None:
        self.request = request
        self.options = options
        self.bridge = bridge
        self._opts = dict(request.opts)
        self._main: _Main | None = None
        self._ignore: bytes | None = None
        self._ignore_name = DOCKERIGNORE
        self._answers: dict[tuple[object, ...], ImageConfigAnswer | BknbError] = {}
        self._asking: dict[tuple[object, ...], asyncio.Lock] = {}

    # --- the main context ---

    async def main(self) -> _Main:
        """What the request says of its main context."""
        if self._main is None:
            self._main = await self._find_main()
        return self._main

    async def _find_main(self) -> _Main:
        opts = self._opts
        main = _Main(filename=opts.get("filename", "Dockerfile"))
        if "dockerfilekey" in opts:
            main.force_local, main.dockerfile_name = True, opts["dockerfilekey"]
        given = opts.get(opts.get("contextkey", "context"), "")
        keep_git = parse_bool(opts.get("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR", "")) is True
        mtime = "commit" if opts.get("build-arg:SOURCE_DATE_EPOCH") else ""
        repository = git_context(given, keep_git=keep_git, mtime=mtime)
        if repository is not None:
            main.state = main.dockerfile = main.source = repository
        elif given.startswith(("http://", "https://")):
            await self._download(main, given)
        else:
            if not main.force_local and main.dockerfile_name in self.request.inputs:
                main.dockerfile = llb.State.from_edge(self.request.inputs[main.dockerfile_name])
            if "context" in self.request.inputs:
                main.state = llb.State.from_edge(self.request.inputs["context"])
        if main.state is not None and "contextsubdir" in opts:
            scope = llb.copy(main.state, opts["contextsubdir"], "/", contents_only=True)
            main.state = llb.scratch().file(scope)
        return main

    async def _download(self, main: _Main, url: str) -> None:
        name = "context"
        main.source = llb.http(url, filename=name, name="[internal] load remote build context")
        try:
            data = await self.read(main.source, name)
        except BknbError as error:
            raise wrapped("failed to resolve httpcontext", error) from error
        if data is None:
            raise DockerfileError(f"failed to read downloaded context: {name} is not there")
        if is_archive(data[:1024]):
            main.archive = True
            unpacked = llb.scratch().file(llb.copy(main.source, f"/{name}", "/", unpack=True))
            main.state = main.dockerfile = unpacked
        else:
            main.filename = name
            main.state = main.dockerfile = main.source

    async def read(self, state: llb.State, path: str) -> bytes | None:
        """A file of a state, solved now; None if it is not there."""
        async with _Solved(self.bridge, state) as ref:
            return await self.bridge.read_file(ref, path)

    async def read_entrypoint(self) -> Entrypoint:
        """Read the Dockerfile, and the ignore file of its own.

        Raises:
            DockerfileError: it is not there.
        """
        main = await self.main()
        state = None if main.force_local else main.dockerfile
        if state is None:
            state = self._local_dockerfile(main)
        name = main.filename
        try:
            async with _Solved(self.bridge, state) as ref:
                data = await self.bridge.read_file(ref, name)
                if data is None and posixpath.basename(name) == "Dockerfile":
                    data = await self.bridge.read_file(ref, _lower_case(name))
                ignore = await self.bridge.read_file(ref, name + DOCKERIGNORE)
        except DockerfileError:
            raise
        except BknbError as error:
            raise wrapped("failed to resolve dockerfile", error) from error
        if data is None:
            raise DockerfileError(f"failed to read dockerfile: open {name}: no such file or directory")
        if ignore is not None:
            self._ignore, self._ignore_name = ignore, name + DOCKERIGNORE
        return Entrypoint(SourceInfo(name, data, "Dockerfile", state.edge()), ignore)

    def _local_dockerfile(self, main: _Main) -> llb.State:
        name = main.filename
        names = [name, name + DOCKERIGNORE]
        if posixpath.basename(name) == "Dockerfile":
            names.append(_lower_case(name))
        return llb.local(
            main.dockerfile_name,
            session=self.options.session_of(main.dockerfile_name, self.bridge.session_id),
            follow_paths=names,
            shared_key_hint=main.dockerfile_name,
            differ="none",
            shown=f"[internal] load build definition from {name}",
        )

    async def main_context(self, paths: Iterable[str]) -> llb.State:
        """The main context, a local one narrowed to the paths that are used."""
        main = await self.main()
        if main.state is not None:
            return main.state
        return llb.local(
            main.local_name,
            session=self.options.session_of(main.local_name, self.bridge.session_id),
            exclude=await self._patterns(main),
            shared_key_hint=main.local_name,
            follow_paths=follow_paths(paths),
            shown="[internal] load build context",
        )

    async def ignore_patterns(self) -> list[str]:
        """The patterns of the local main context's ignore file; asked for only when the context is used."""
        main = await self.main()
        return [] if main.state is not None else await self._patterns(main)

    async def _patterns(self, main: _Main) -> list[str]:
        if self._ignore is None:
            state = llb.local(
                main.local_name,
                session=self.options.session_of(main.local_name, self.bridge.session_id),
                follow_paths=[DOCKERIGNORE],
                shared_key_hint=f"{main.local_name}-{DOCKERIGNORE}",
                differ="none",
                shown=f"[internal] load {DOCKERIGNORE}",
            )
            self._ignore = await self.read(state, DOCKERIGNORE) or b""
        return read_patterns(self._ignore, self._ignore_name)

    # --- named contexts ---

    def named(self, name: str, platform: Platform | None) -> NamedContext | None:
        """The named context that takes the place of a stage or an image.

        Raises:
            DockerfileError: the name cannot be one.
        """
        try:
            familiar = Reference.parse(name).familiar.removesuffix(":latest")
        except InvalidReference as error:
            raise DockerfileError(f"invalid context name {name}: {error}") from None
        wanted = (platform or Platform.host()).normalize()
        for key in (f"{familiar}::{wanted.format_all()}", familiar):
            given = self._opts.get(f"context:{key}")
            if given is not None:
                return NamedContext(self, given, familiar, key, platform)
        return None

    async def resolve_image(
        self, reference: str, platform: Platform | None, mode: str, log_name: str, store: str = ""
    ) -> ImageConfigAnswer:
        """Look up an image's config, the same one only once."""
        key = (reference, platform, mode, log_name, store)
        async with self._asking.setdefault(key, asyncio.Lock()):
            if key not in self._answers:
                try:
                    self._answers[key] = await self.bridge.resolve_image_config(
                        reference, platform=platform, resolve_mode=mode, log_name=log_name, oci_store=store
                    )
                except BuildCancelled:
                    raise
                except BknbError as error:
                    self._answers[key] = error
        answer = self._answers[key]
        if isinstance(answer, BknbError):
            raise answer
        return answer


class _Solved:
    """A state solved for reading a file of it; the Ref is released at the end."""

    def __init__(self, bridge: Bridge, state: llb.State) -> None:
        self.bridge = bridge
        self.state = state
        self.ref: Ref | None = None

    async def __aenter__(self) -> Ref | None:
        edge = self.state.edge()
        self.ref = None if edge is None else await self.bridge.solve(edge)
        return self.ref

    async def __aexit__(self, *_: Any) -> None:
        if self.ref is not None:
            await self.ref.release()


def _lower_case(filename: str) -> str:
    """The other name that a file called Dockerfile may have; cleaned, as Go joins paths."""
    return clean(join(posixpath.dirname(filename), "dockerfile"))
