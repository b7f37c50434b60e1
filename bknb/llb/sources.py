"""Where a graph begins: images, local folders, git, http, OCI layouts, and nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from bknb import gojson
from bknb.errors import DefinitionError, InvalidReference
from bknb.llb.giturl import GitURL
from bknb.llb.graph import Constraints, Defaults, Edges, Output, Pending
from bknb.llb.ops import SourceOp
from bknb.llb.state import State
from bknb.llb.values import join
from bknb.llb.vertex import Vertex
from bknb.platforms import Platform
from bknb.reference import Reference

_NONE: Final = Constraints()
_WITH_PLATFORM: Final = ("docker-image://", "oci-layout://")


class PendingSource(Pending):
    """A source that has no bytes yet."""

    __slots__ = ("attrs", "caps", "error", "identifier", "output")

    def __init__(
        self,
        identifier: str,
        attrs: Mapping[str, str],
        caps: Iterable[str],
        constraints: Constraints,
        error: str = "",
    ) -> None:
        super().__init__(constraints)
        self.identifier = identifier
        self.attrs = attrs
        self.caps = tuple(caps)
        self.error = error
        self.output = Output(self, platform=constraints.platform)

    def sources(self) -> Iterable[Output]:
        return ()

    def make(self, edges: Edges, defaults: Defaults) -> Vertex:
        if self.error:
            raise DefinitionError(self.error)
        if not self.identifier:
            raise DefinitionError("source identifier can't be empty")
        attrs, caps, platform = dict(self.attrs), self.caps, None
        if self.identifier.startswith("local://") and "local.session" not in attrs:
            attrs["local.unique"] = defaults.unique_id
            caps = (*caps, "source.local.unique")
        if self.identifier.startswith(_WITH_PLATFORM):
            platform = self.constraints.platform or defaults.platform
        return self.finish(SourceOp(self.identifier, attrs), (), edges, defaults, caps, platform)


def source(
    identifier: str,
    attrs: Mapping[str, str] | None = None,
    caps: Iterable[str] = (),
    *,
    constraints: Constraints = _NONE,
) -> State:
    """Any source, by its identifier and attributes."""
    return State().with_output(PendingSource(identifier, attrs or {}, caps, constraints).output)


def scratch() -> State:
    """Nothing: an empty filesystem."""
    return State()


class ImageResolver(Protocol):
    """Looks up image configs; a `Bridge` has a method that does."""

    async def __call__(self, reference: str, platform: Platform | None, mode: str) -> ResolvedImage: ...


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """What was found: the name to use, the digest, the config's JSON."""

    reference: str
    digest: str
    config: bytes


def image(
    reference: str,
    *,
    mode: str = "",
    record_type: str = "",
    layer_limit: int | None = None,
    checksum: str = "",
    resolver: ImageResolver | None = None,
    pin: bool = False,
    name: str = "",
    constraints: Constraints = _NONE,
) -> State:
    """An image of a registry.

    Args:
        reference: as in ``docker pull``; a tag is added when there is none.
        mode: ``pull`` to ask the registry always, ``local`` to prefer what is here, "" for the default.
        record_type: ``internal`` for one that is only a tool of the build.
        layer_limit: take only so many layers, from the bottom.
        checksum: the digest that the manifest must have.
        resolver: looks up the image's config when the graph is marshalled (`State.marshal_async`): its
            environment, folder and platform become the state's.
        pin: with a resolver: use the digest that it found.
        name: shown for the step.
        constraints: what can be said of any op.
    """
    error = ""
    try:
        reference = str(Reference.parse(reference))
    except InvalidReference as problem:
        error = str(problem)
    caps = ["source.image"]
    attrs = {}
    if mode and mode != "default":
        attrs["image.resolvemode"] = mode
        caps += ["source.image.resolvemode"] if mode == "pull" else []
    if record_type:
        attrs["image.recordtype"] = record_type
    if layer_limit is not None:
        attrs["image.layerlimit"] = str(layer_limit)
        caps.append("source.image.layerlimit")
    if checksum:
        attrs["image.checksum"] = checksum
        caps.append("source.image.checksum")
    constraints = constraints.named(name)
    state = State().with_output(
        PendingSource(f"docker-image://{reference}", attrs, caps, constraints, error).output
    )
    if resolver is None or error:
        return state
    look_up = resolver

    async def resolve(_: State) -> State:
        found = await look_up(reference, constraints.platform, mode or "default")
        if not pin or Reference.parse(reference).digest:
            return state.with_image_config(found.config)
        pinned = found.reference + (f"@{found.digest}" if found.digest else "")
        again = PendingSource(f"docker-image://{pinned}", attrs, caps, constraints)
        return State().with_output(again.output).with_image_config(found.config)

    return state.then(resolve)


def oci_layout(
    reference: str,
    *,
    session: str = "",
    store: str = "",
    layer_limit: int | None = None,
    name: str = "",
    constraints: Constraints = _NONE,
) -> State:
    """An image in an OCI layout of the client; `reference` is ``store@digest``."""
    attrs = {"oci.session": session, "oci.store": store}
    attrs["oci.layerlimit"] = "" if layer_limit is None else str(layer_limit)
    attrs = {key: value for key, value in attrs.items() if value}
    return source(
        f"oci-layout://{reference}", attrs, ["source.ocilayout"], constraints=constraints.named(name)
    )


def image_blob(
    reference: str,
    *,
    filename: str = "",
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    session: str = "",
    store: str = "",
    layout: bool = False,
    name: str = "",
    constraints: Constraints = _NONE,
) -> State:
    """One blob of a registry, or of an OCI layout, as a file; `reference` is ``name@digest``."""
    error, full = "", "invalid"
    try:
        parsed = Reference.parse(reference)
        if parsed.tag:
            error = "tagged image reference not allowed for blob reference"
        elif not parsed.digest:
            error = "checksum required in blob reference"
        else:
            full = str(parsed)
    except InvalidReference as problem:
        error = str(problem)
    attrs = _file_attrs(filename, mode, uid, gid)
    if layout:
        attrs |= {key: value for key, value in (("oci.session", session), ("oci.store", store)) if value}
    scheme = "oci-layout+blob" if layout else "docker-image+blob"
    pending = PendingSource(f"{scheme}://{full}", attrs, ["source.imageblob"], constraints.named(name), error)
    return State().with_output(pending.output)


def http(
    url: str,
    *,
    checksum: str = "",
    filename: str = "",
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    auth_header_secret: str = "",
    headers: Mapping[str, str] | None = None,
    signature: str = "",
    public_key: str = "",
    name: str = "",
    constraints: Constraints = _NONE,
) -> State:
    """A file of the web.

    Args:
        url: ``http://`` or ``https://``.
        checksum: the digest that it must have.
        filename: what the file is called; the URL's last part when absent.
        mode: permissions; 0600 when absent.
        uid: owner.
        gid: group.
        auth_header_secret: id of the secret that is sent as Authorization header.
        headers: ``accept`` and ``user-agent``.
        signature: detached armored OpenPGP signature that must be good.
        public_key: the key for it.
        name: shown for the step.
        constraints: what can be said of any op.
    """
    attrs = _file_attrs(filename, mode, uid, gid)
    caps = ["source.http"]
    caps += ["source.http.perm"] if "http.perm" in attrs else []
    caps += ["soruce.http.uidgid"] if uid or gid else []
    for key, value, cap in (
        ("http.checksum", checksum, "source.http.checksum"),
        ("http.authheadersecret", auth_header_secret, "source.http.auth"),
        ("http.sig.pubkey", public_key, "source.http.signatureverify"),
        ("http.sig.signature", signature, "source.http.signatureverify"),
    ):
        if value:
            attrs[key] = value
            caps.append(cap)
    for key, value in (headers or {}).items():
        attrs[f"http.header.{key.lower()}"] = value
        caps.append("source.http.header")
    return source(url, attrs, caps, constraints=constraints.named(name))


def _file_attrs(filename: str, mode: int, uid: int, gid: int) -> dict[str, str]:
    perm = f"0{mode & 0o777:o}" if mode & 0o777 else ""
    found = {"http.filename": filename, "http.perm": perm, "http.uid": uid or "", "http.gid": gid or ""}
    return {key: str(value) for key, value in found.items() if value}


def local(
    name: str,
    *,
    session: str = "",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    follow_paths: Sequence[str] = (),
    shared_key_hint: str = "",
    differ: str = "",
    differ_required: bool = False,
    metadata_only: Sequence[str] | None = None,
    shown: str = "",
    constraints: Constraints = _NONE,
) -> State:
    """A folder of the client.

    Args:
        name: which of the client's folders.
        session: id of the client's session.
        include: only what matches one of these patterns.
        exclude: not what matches one of these patterns.
        follow_paths: only these paths, and what symbolic links in them point at.
        shared_key_hint: tells folders apart that are kept from build to build.
        differ: ``none`` to send every file anew, ``metadata`` to send what has changed.
        differ_required: the solver must know `differ`.
        metadata_only: files have no content, save those that match these patterns; None for all content.
        shown: name of the step.
        constraints: what can be said of any op.
    """
    attrs, caps = {}, ["source.local"]
    for key, value, cap in (
        ("local.session", session, "sessionid"),
        ("local.includepattern", json_list(include), "includepatterns"),
        ("local.followpaths", json_list(follow_paths), "followpaths"),
        ("local.excludepatterns", json_list(exclude), "excludepatterns"),
        ("local.sharedkeyhint", shared_key_hint, "sharedkeyhint"),
    ):
        if value:
            attrs[key] = value
            caps.append(f"source.local.{cap}")
    if differ:
        attrs["local.differ"] = differ
        caps += ["source.local.differ"] if differ_required else []
    if metadata_only is not None:
        attrs["local.metadatatransfer"] = "true"
        if metadata_only:
            attrs["local.metadatatransferexclude"] = json_list(metadata_only)
        caps.append("source.local.metadatatransfer")
    return source(f"local://{name}", attrs, caps, constraints=constraints.named(shown))


@dataclass(frozen=True, slots=True)
class GitOptions:
    """How a repository is fetched; the words of `git`."""

    ref: str = ""
    subdir: str = ""
    keep_git_dir: bool = False
    auth_token_secret: str | None = None
    auth_header_secret: str | None = None
    known_ssh_hosts: str = ""
    ssh_socket: str = ""
    checksum: str = ""
    skip_submodules: bool = False
    mtime: str = ""
    fetch_by_commit: bool = False
    bundle: str = ""
    bundle_session: str = ""
    bundle_store: str = ""
    checkout_bundle: bool = False


def git(
    url: str,
    fragment: str = "",
    options: GitOptions | None = None,
    *,
    name: str = "",
    constraints: Constraints = _NONE,
) -> State:
    """A git repository.

    Args:
        url: any form that git takes; without a scheme it is https.
        fragment: ``ref:subdir``, in the old style.
        options: what else; its ref and subdir win over the fragment's.
        name: shown for the step.
        constraints: what can be said of any op.
    """
    options = options or GitOptions()
    remote = GitURL.parse(url)
    if remote is None and "://" not in url:
        url = f"https://{url}"
        remote = GitURL.parse(url)
    ref, _, subdir = fragment.partition(":")
    ref = options.ref or ref
    subdir = options.subdir or join("/", subdir).removeprefix("/")
    if remote is None:
        identifier = url
    else:
        url = remote.remote
        identifier = remote.host + join("/", remote.path)
        if ref or subdir:
            identifier += f"#{ref}" + (f":{subdir}" if subdir else "")
    attrs, caps = _git_attrs(url, options)
    if remote is not None and remote.scheme == "ssh":
        if options.known_ssh_hosts:
            attrs["git.knownsshhosts"] = options.known_ssh_hosts
        attrs["git.mountsshsock"] = options.ssh_socket or "default"
        caps += ["source.git.knownsshhosts", "source.git.mountsshsock"]
    return source(f"git://{identifier}", attrs, caps, constraints=constraints.named(name))


def _git_attrs(url: str, options: GitOptions) -> tuple[dict[str, str], list[str]]:
    attrs, caps = {}, ["source.git"]
    token, header = options.auth_token_secret, options.auth_header_secret
    if token or header:
        caps.append("source.git.httpauth")
    for key, value, cap in (
        ("git.keepgitdir", "true" if options.keep_git_dir else "", "keepgitdir"),
        ("git.fullurl", url, "fullurl"),
        ("git.authtokensecret", "GIT_AUTH_TOKEN" if token is None else token, ""),
        ("git.authheadersecret", "GIT_AUTH_HEADER" if header is None else header, ""),
        ("git.checksum", options.checksum, "checksum"),
        ("git.skipsubmodules", "true" if options.skip_submodules else "", "skipsubmodules"),
        ("git.mtime", options.mtime, "mtime"),
        ("git.fetchbycommit", "true" if options.fetch_by_commit else "", "fetchbycommit"),
        ("git.bundle", options.bundle, "bundle"),
        ("oci.session", options.bundle_session, ""),
        ("oci.store", options.bundle_store, ""),
        ("git.checkoutbundle", "true" if options.checkout_bundle else "", "checkoutbundle"),
    ):
        if value:
            attrs[key] = value
            caps += [f"source.git.{cap}"] if cap else []
    return attrs, caps


def json_list(words: Sequence[str]) -> str:
    r"""Go's JSON of a list of texts; "" for an empty list.

    >>> json_list(["a<b", "é"])
    '["a\\u003cb","é"]'
    """
    return gojson.dumps(list(words)) if words else ""
 # fmt: skip
