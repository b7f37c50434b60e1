"""Where files come from: the Dockerfile, the main context and the named ones (frontend/dockerui)."""

from __future__ import annotations

import asyncio
import io
import json
import posixpath
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from bknb import llb
from bknb.errors import BknbError, DockerfileError, InvalidReference
from bknb.frontend.dockerfile.gitref import parse_git_ref
from bknb.frontend.dockerfile.gotext import decode, parse_bool
from bknb.frontend.dockerfile.image import ImageConfig
from bknb.frontend.dockerfile.options import FrontendOptions
from bknb.frontend.dockerfile.places import wrapped
from bknb.llb.graph import Constraints, Defaults, Edges, Output, Pending
from bknb.llb.vertex import SourceInfo, Vertex
from bknb.patterns import PatternError, read_ignore_file
from bknb.platforms import Platform
from bknb.protocols import Bridge, FrontendRequest, ImageConfigAnswer, Ref
from bknb.reference import Reference

_DOCKERIGNORE: Final = ".dockerignore"
_MAX_RECURSION: Final = 10
_MAGIC: Final = (b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\x00")


class LateLocal(Pending):
    """A local source whose paths are known only when every stage has been lowered."""

    __slots__ = ("make_state", "output")

    def __init__(self, make_state: Callable[[], llb.State]) -> None:
        super().__init__(Constraints())
        self.make_state = make_state
        self.output = Output(self)

    def sources(self) -> Iterable[Output]:
        return ()

    def make(self, edges: Edges, defaults: Defaults) -> Vertex:
        output = self.make_state().output
        assert output is not None
        return output.pending.make(edges, defaults)


def follow_paths(paths: Iterable[str]) -> list[str]:
    """The paths that a local source is narrowed to; none where the whole is needed."""
    found = set(paths)
    if "/" in found:
        return []
    return sorted(
        (posixpath.normpath(path.lstrip("/") or ".") for path in found),
        key=lambda path: path.encode("utf-8", "surrogateescape"),
    )


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
        self._ignore_name = _DOCKERIGNORE
        self._answers: dict[tuple[object, ...], ImageConfigAnswer] = {}
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
                    data = await self.bridge.read_file(ref, _join(posixpath.dirname(name), "dockerfile"))
                ignore = await self.bridge.read_file(ref, name + _DOCKERIGNORE)
        except DockerfileError:
            raise
        except BknbError as error:
            raise wrapped("failed to resolve dockerfile", error) from error
        if data is None:
            raise DockerfileError(f"failed to read dockerfile: open {name}: no such file or directory")
        if ignore is not None:
            self._ignore, self._ignore_name = ignore, name + _DOCKERIGNORE
        return Entrypoint(SourceInfo(name, data, "Dockerfile", state.edge()), ignore)

    def _local_dockerfile(self, main: _Main) -> llb.State:
        name = main.filename
        names = [name, name + _DOCKERIGNORE]
        if posixpath.basename(name) == "Dockerfile":
            names.append(_join(posixpath.dirname(name), "dockerfile"))
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
                follow_paths=[_DOCKERIGNORE],
                shared_key_hint=f"{main.local_name}-{_DOCKERIGNORE}",
                differ="none",
                shown=f"[internal] load {_DOCKERIGNORE}",
            )
            self._ignore = await self.read(state, _DOCKERIGNORE) or b""
        return _read_patterns(self._ignore, self._ignore_name)

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
                self._answers[key] = await self.bridge.resolve_image_config(
                    reference, platform=platform, resolve_mode=mode, log_name=log_name, oci_store=store
                )
        return self._answers[key]


class NamedContext:
    """One of the request's ``context:NAME`` options."""

    def __init__(
        self, contexts: Contexts, given: str, name: str, key: str, platform: Platform | None
    ) -> None:
        self.contexts = contexts
        self.given = given
        self.name = name
        self.key = key
        self.platform = platform

    async def load(self, paths: Callable[[], Iterable[str]]) -> tuple[llb.State, ImageConfig | None]:
        """The state of it, and the image's config if it is one.

        Args:
            paths: the paths of it that are used, asked for at the end.

        Raises:
            DockerfileError: it is wrong.
        """
        scheme, colon, rest = self.given.partition(":")
        if not colon:
            raise DockerfileError(f"invalid context specifier {self.given} for {self.key}")
        match "git" if scheme.startswith("git@") else scheme:
            case "docker-image":
                return await self._image(rest.removeprefix("//"))
            case "git":
                return self._git(), None
            case "http" | "https":
                return git_context(self.given) or llb.http(
                    self.given, filename="context", name=f"[context {self.key}] {self.given}"
                ), None
            case "oci-layout":
                return await self._layout(rest.removeprefix("//"))
            case "local":
                return await self._local(rest, paths), None
            case "input":
                return self._input(rest)
            case _:
                raise DockerfileError(f"unsupported context source {scheme} for {self.key}")

    async def _image(self, given: str) -> tuple[llb.State, ImageConfig | None]:
        if given == "scratch":
            return llb.scratch(), None
        try:
            reference = str(Reference.parse(given))
        except InvalidReference as error:
            raise DockerfileError(str(error)) from None
        answer = await self.contexts.resolve_image(
            reference,
            self.platform,
            self.contexts.options.resolve_mode,
            f"[context {self.key}] load metadata for {given}",
        )
        config = ImageConfig.parse(answer.config)
        config.created = ""
        constraints = Constraints(platform=self.platform, name=f"[context {self.key}] {answer.reference}")
        state = llb.image(
            answer.reference, constraints=replace(constraints, name=f"[context {self.key}] {given}")
        )
        return state.with_image_config(answer.config), config

    def _git(self) -> llb.State:
        state = git_context(self.given)
        if state is None:
            raise DockerfileError(f"invalid git context {self.given}")
        return state

    async def _layout(self, given: str) -> tuple[llb.State, ImageConfig | None]:
        store, at, digest = given.partition("@")
        if not at:
            raise DockerfileError(f'oci-layout reference "{given}" has no digest')
        try:
            shown = str(replace(Reference.parse(f"{self.name}@{digest}")))
        except InvalidReference as error:
            raise DockerfileError(f'could not parse oci-layout reference "{given}": {error}') from None
        store = (
            store.rpartition("/")[0] + store[store.rfind("/") :].partition(":")[0] if ":" in store else store
        )
        session = self.contexts.bridge.session_id
        answer = await self.contexts.resolve_image(
            shown, self.platform, "", f"[context {self.key}] load metadata for {shown}", store
        )
        config = ImageConfig.parse(answer.config)
        name = f"[context {self.key}] OCI load from client"
        constraints = Constraints(platform=self.platform, name=name)
        state = llb.oci_layout(shown, session=session, store=store, constraints=constraints)
        return state.with_image_config(answer.config), config

    async def _local(self, name: str, paths: Callable[[], Iterable[str]]) -> llb.State:
        contexts = self.contexts
        session = contexts.options.session_of(name, contexts.bridge.session_id)
        shared = contexts.request.opts.get(f"sharedkey:localdir:{self.key}", "")
        look = llb.local(
            name,
            session=session,
            follow_paths=[_DOCKERIGNORE],
            shared_key_hint=f"context:{self.key}-{_DOCKERIGNORE}",
            differ="none",
            shown=f"[context {self.key}] load {_DOCKERIGNORE}",
        )
        exclude = _read_patterns(await contexts.read(look, _DOCKERIGNORE) or b"", _DOCKERIGNORE)

        def make() -> llb.State:
            return llb.local(
                name,
                session=session,
                shared_key_hint=f"context:{self.key}-{shared}",
                exclude=exclude,
                follow_paths=follow_paths(paths()),
                shown=f"[context {self.key}] load from client",
            )

        return llb.State().with_output(LateLocal(make).output)

    def _input(self, name: str) -> tuple[llb.State, ImageConfig | None]:
        request = self.contexts.request
        if name not in request.inputs:
            raise DockerfileError(f"invalid input {name} for {self.key}")
        state = llb.State.from_edge(request.inputs[name])
        metadata = request.opts.get(f"input-metadata:{name}")
        if metadata is None:
            return state, None
        config = _input_config(metadata)
        if config is None:
            return state, None
        return state.with_image_config(config), ImageConfig.parse(config)


def _input_config(metadata: str) -> bytes | None:
    import base64
    import binascii

    try:
        found = json.loads(metadata).get("containerimage.config")
        return None if found is None else base64.b64decode(found, validate=True)
    except (ValueError, AttributeError, TypeError, binascii.Error) as error:
        raise DockerfileError(f"failed to parse input metadata {metadata}: {error}") from None


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


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _read_patterns(data: bytes, name: str) -> list[str]:
    try:
        return read_ignore_file(decode(data))
    except PatternError as error:
        raise DockerfileError(f"failed parsing {name}: {error}") from None


def git_context(given: str, *, keep_git: bool = False, mtime: str = "") -> llb.State | None:
    """The repository that a context is, or None."""
    found = parse_git_ref(given)
    if found is None:
        return None
    options = llb.GitOptions(
        ref=found.ref,
        subdir=found.subdir,
        keep_git_dir=keep_git or found.keep_git_dir is True,
        checksum=found.checksum,
        skip_submodules=found.submodules is False,
        mtime=found.mtime or mtime,
        fetch_by_commit=found.fetch_by_commit,
    )
    return llb.git(found.remote, "", options, name=f"[internal] load git source {given}")


def is_archive(header: bytes) -> bool:
    """Whether a file begins as an archive that a context may be."""
    if header.startswith(_MAGIC):
        return True
    try:
        tarfile.TarInfo.frombuf(header[:512].ljust(512, b"\0"), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def newest_file(data: bytes) -> int | None:
    """The time (unix seconds) of an archive's newest regular file; None if there is none, or no archive."""
    newest: int | None = None
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
            for member in archive:
                if member.isreg() and (newest is None or member.mtime > newest):
                    newest = int(member.mtime)
    except (tarfile.TarError, EOFError, OSError, ValueError):
        return None
    return newest
