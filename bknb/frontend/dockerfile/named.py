"""Named contexts: what takes the place of a stage or an image (frontend/dockerui/namedcontext.go)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from bknb import llb
from bknb.errors import DockerfileError, InvalidReference
from bknb.frontend.dockerfile.checksum import parse_checksum
from bknb.frontend.dockerfile.folders import DOCKERIGNORE, LateLocal, follow_paths, read_patterns
from bknb.frontend.dockerfile.gitref import parse_git_ref
from bknb.frontend.dockerfile.gotext import quote
from bknb.frontend.dockerfile.image import ImageConfig
from bknb.llb.graph import Constraints
from bknb.platforms import Platform
from bknb.reference import Reference, split_reference

if TYPE_CHECKING:
    from bknb.frontend.dockerfile.contexts import Contexts


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

    async def load(
        self, paths: Callable[[], Iterable[str]], *, resolve_mode: str | None = None
    ) -> tuple[llb.State, ImageConfig | None]:
        """The state of it, and the image's config if it is one.

        Args:
            paths: the paths of it that are used, asked for at the end.
            resolve_mode: how an image is looked up, if not as the request says.

        Raises:
            DockerfileError: it is wrong.
        """
        scheme, colon, rest = self.given.partition(":")
        if not colon:
            raise DockerfileError(f"invalid context specifier {self.given} for {self.key}")
        match "git" if scheme.startswith("git@") else scheme:
            case "docker-image":
                mode = self.contexts.options.resolve_mode if resolve_mode is None else resolve_mode
                return await self._image(rest.removeprefix("//"), mode)
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

    async def _image(self, given: str, mode: str) -> tuple[llb.State, ImageConfig | None]:
        if given == "scratch":
            return llb.scratch(), None
        try:
            reference = str(Reference.parse(given))
        except InvalidReference as error:
            raise DockerfileError(str(error)) from None
        answer = await self.contexts.resolve_image(
            reference,
            self.platform,
            mode,
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
        try:
            store, _, digest = split_reference(given)
            if digest:
                parse_checksum(digest)
        except (InvalidReference, DockerfileError) as error:
            raise DockerfileError(
                f"could not parse oci-layout reference {quote(given)}: {error.message}"
            ) from None
        if not digest:
            raise DockerfileError(f"oci-layout reference {quote(given)} has no digest")
        try:
            shown = str(Reference.parse(f"{self.name}@{digest}"))
        except InvalidReference as error:
            raise DockerfileError(
                f"could not parse oci-layout reference {quote(self.name)}: {error}"
            ) from None
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
            follow_paths=[DOCKERIGNORE],
            shared_key_hint=f"context:{self.key}-{DOCKERIGNORE}",
            differ="none",
            shown=f"[context {self.key}] load {DOCKERIGNORE}",
        )
        exclude = read_patterns(await contexts.read(look, DOCKERIGNORE) or b"", DOCKERIGNORE)

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
    try:
        found = json.loads(metadata).get("containerimage.config")
        return None if found is None else base64.b64decode(found, validate=True)
    except (ValueError, AttributeError, TypeError, binascii.Error) as error:
        raise DockerfileError(f"failed to parse input metadata {metadata}: {error}") from None


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
