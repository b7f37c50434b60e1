"""The cache map of an op: what BuildKit's ``CacheMap`` methods answer (solver/llbsolver/ops/*.go).

The digest covers what the op does, without what may change and not matter: proxies, IPs of extra hosts, the
paths of mounts (they are in the selectors), ids of cache mounts. Some of its rules only keep old caches
valid: a lone root mount is left out, and so are the indexes of the usual chain of file actions.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bknb.digest import Digest
from bknb.errors import DefinitionError
from bknb.gojson import dumps, present
from bknb.keys.selectors import ContentSelector, absolute, base_name, has_wildcards, merged, outermost
from bknb.llb.ops import (
    Action,
    BuildOp,
    CacheOpt,
    CacheSharing,
    ChownOpt,
    CopyAction,
    DiffOp,
    ExecOp,
    FileOp,
    MergeOp,
    Meta,
    MkDirAction,
    MkFileAction,
    Mount,
    MountContentCache,
    MountType,
    NamedUser,
    Op,
    PassthroughOp,
    RmAction,
    SecretOpt,
    SourceOp,
    SSHOpt,
    SymlinkAction,
    UserOpt,
)
from bknb.llb.vertex import Vertex
from bknb.platforms import Platform


@dataclass(frozen=True, slots=True)
class DepSpec:
    """How one input enters the key.

    Attributes:
        selector: digest of the paths that are read; None for the whole input.
        content: what is hashed of its content: None where content does not count, () for the whole.
        paths: what `selector` is the digest of, in the order of the op.
        preprocess: the input is pulled and unpacked before the op runs.
    """

    selector: Digest | None = None
    content: tuple[ContentSelector, ...] | None = None
    paths: tuple[str, ...] = ()
    preprocess: bool = False


@dataclass(frozen=True, slots=True)
class CacheMapSpec:
    """The digest of an op, the text that it is taken of, and a `DepSpec` for each input."""

    digest: Digest
    plaintext: str
    deps: tuple[DepSpec, ...]


def cache_map(vertex: Vertex, platform: Platform) -> CacheMapSpec:
    """The cache map of a vertex that is not a source.

    Args:
        vertex: any but a source.
        platform: of the worker, for an exec that says none.

    Raises:
        DefinitionError: the op is not valid.
    """
    return op_cache_map(vertex.op, len(vertex.inputs), vertex.platform or platform)


def op_cache_map(op: Op, inputs: int, platform: Platform) -> CacheMapSpec:
    """As `cache_map`, for an op by itself with that many inputs."""
    match op:
        case ExecOp():
            return _exec(op, inputs, platform)
        case FileOp():
            return _file(op, inputs)
        case MergeOp():
            text = {
                "Type": "buildkit.merge.v0",
                "Merge": present(inputs=[present(input=i) for i in op.inputs]),
            }
            return _plain(text, len(op.inputs))
        case DiffOp():
            return _diff(op)
        case BuildOp():
            from bknb.keys.definition import build_op_json  # protobuf takes a tenth of a start to load

            return _plain({"Type": "buildkit.build.v0", "Exec": build_op_json(op)}, inputs)
        case PassthroughOp():
            return _passthrough(op, inputs)
        case SourceOp():
            raise DefinitionError("a source is keyed by what it resolves to, not by its op")


def _plain(text: Mapping[str, Any], inputs: int) -> CacheMapSpec:
    plaintext = dumps(text)
    return CacheMapSpec(Digest.of_text(plaintext), plaintext, (DepSpec(),) * inputs)


def _diff(op: DiffOp) -> CacheMapSpec:
    if op.lower is None or op.upper is None:
        raise DefinitionError("invalid diff op with nil lower or upper input")
    text = {
        "Type": "buildkit.diff.v0",
        "Diff": {"lower": present(input=op.lower), "upper": present(input=op.upper)},
    }
    return _plain(text, (op.lower != -1) + (op.upper != -1))


def _passthrough(op: PassthroughOp, inputs: int) -> CacheMapSpec:
    if not op.id:
        raise DefinitionError("invalid passthrough op with no id")
    if not op.outputs:
        raise DefinitionError("invalid passthrough op with no outputs")
    for index in op.outputs:
        if index < 0 or 0 < inputs <= index:
            raise DefinitionError(f"invalid passthrough output input index {index}")
    text = {"Type": "buildkit.passthrough.v0", "Passthrough": present(id=op.id, outputs=list(op.outputs))}
    return _plain(text, inputs)


# --- exec (solver/llbsolver/ops/exec.go) ------------------------------------------------------------------


def _exec(op: ExecOp, inputs: int, platform: Platform) -> CacheMapSpec:
    meta = op.meta
    if meta is None:
        raise DefinitionError("invalid exec op with no meta")
    if not meta.args:
        raise DefinitionError("invalid exec op with no args")
    if not op.mounts:
        raise DefinitionError("invalid exec op with no mounts")
    if all(mount.dest != "/" for mount in op.mounts):
        raise DefinitionError("invalid exec op with no rootfs")
    platform = platform.normalize()
    text = {
        "Type": "buildkit.exec.v0",
        "Exec": present(
            meta=_meta(meta),
            mounts=[] if _lone_root(op.mounts) else [_mount(mount) for mount in op.mounts],
            network=int(op.network),
            security=int(op.security),
            secretenv=[present(ID=s.id, name=s.name, optional=s.optional) for s in op.secret_env],
            cdiDevices=[present(name=d.name, optional=d.optional) for d in op.cdi_devices],
        ),
        "OS": platform.os,
        "Arch": platform.architecture,
        **present(
            Variant=platform.variant, OSVersion=platform.os_version, OSFeatures=list(platform.os_features)
        ),
    }
    plaintext = dumps(text)
    return CacheMapSpec(Digest.of_text(plaintext), plaintext, _mount_deps(op.mounts, inputs))


def _meta(meta: Meta) -> dict[str, Any]:
    return present(
        args=list(meta.args), env=list(meta.env), cwd=meta.cwd, user=meta.user,
        extraHosts=[present(Host=host.host) for host in meta.extra_hosts],
        hostname=meta.hostname,
        ulimit=[present(Name=u.name, Soft=u.soft, Hard=u.hard) for u in meta.ulimit],
        cgroupParent=meta.cgroup_parent,
        removeMountStubsRecursive=meta.remove_mount_stubs_recursive,
        validExitCodes=list(meta.valid_exit_codes),
    )  # fmt: skip


def _lone_root(mounts: Sequence[Mount]) -> bool:
    """An ordinary RUN; its mount was once forgotten in the key, and stays so for compatibility."""
    mount = mounts[0]
    opts = (mount.cache_opt, mount.ssh_opt, mount.secret_opt)
    return (
        len(mounts) == 1 and mount.dest == "/" and not mount.readonly and mount.type is MountType.BIND
        and opts == (None, None, None) and not mount.result_id
    )  # fmt: skip


def _mount(mount: Mount) -> dict[str, Any]:
    tmpfs = mount.tmpfs_opt
    return present(
        input=mount.input, dest=mount.dest, output=mount.output, readonly=mount.readonly,
        mountType=int(mount.type),
        TmpfsOpt=None if tmpfs is None else present(size=tmpfs.size),
        cacheOpt=None if mount.cache_opt is None else _cache_opt(mount.cache_opt, mount.dest),
        secretOpt=_shared_file(mount.secret_opt),
        SSHOpt=_shared_file(mount.ssh_opt),
        resultID=mount.result_id, contentCache=int(mount.content_cache),
    )  # fmt: skip


def _cache_opt(opt: CacheOpt, dest: str) -> dict[str, Any]:
    """Id and sharing do not count, except where a Dockerfile's default put the target there."""
    _namespace, slash, rest = opt.id.partition("/")
    default = opt.sharing is CacheSharing.SHARED and (opt.id == dest or (bool(slash) and rest == dest))
    return present(ID=opt.id) if default else {}


def _shared_file(opt: SecretOpt | SSHOpt | None) -> dict[str, Any] | None:
    if opt is None:
        return None
    return present(ID=opt.id, uid=opt.uid, gid=opt.gid, mode=opt.mode, optional=opt.optional)


def _mount_deps(mounts: Sequence[Mount], inputs: int) -> tuple[DepSpec, ...]:
    """One spec for each input; of several mounts of an input, the last decides whether content counts."""
    paths: list[list[str]] = [[] for _ in range(inputs)]
    hashed = [False] * inputs
    for mount in mounts:
        if mount.type in (MountType.SECRET, MountType.SSH, MountType.TMPFS) or mount.input == -1:
            continue
        if not 0 <= mount.input < inputs:
            raise DefinitionError(f"invalid mount input {mount.input}")
        selector = absolute(mount.selector)
        paths[mount.input].append(selector)
        hashed[mount.input] = _content_counts(mount, selector)
    return tuple(_mount_dep(selected, content) for selected, content in zip(paths, hashed, strict=True))


def _content_counts(mount: Mount, selector: str) -> bool:
    # A writable part of an input becomes an output with the rest of the input in it, which was not hashed.
    safe = mount.output == -1 or mount.readonly or selector == "/"
    match mount.content_cache:
        case MountContentCache.OFF:
            return False
        case MountContentCache.ON:
            if not safe:
                raise DefinitionError(f"invalid mount cache content {mount.dest}")
            return True
        case MountContentCache.DEFAULT:
            return safe and mount.dest != "/"


def _mount_dep(paths: list[str], hashed: bool) -> DepSpec:
    content: tuple[ContentSelector, ...] | None = None
    if hashed:
        outer = outermost(paths)
        whole = any(path in ("", "/") for path in outer)
        content = () if whole else tuple(ContentSelector(path, follow_links=True) for path in outer)
    selector = Digest.of_text("\0".join(paths)) if paths else None
    return DepSpec(selector, content, tuple(paths), preprocess=True)


# --- file (solver/llbsolver/ops/file.go) ------------------------------------------------------------------


def _file(op: FileOp, inputs: int) -> CacheMapSpec:
    if not op.actions:
        raise DefinitionError("invalid file op with no actions")
    selectors: dict[int, list[ContentSelector]] = {}
    actions = [_action(entry.action, entry.secondary_input, inputs, selectors) for entry in op.actions]
    indexes = [[entry.input, entry.secondary_input, entry.output] for entry in op.actions]
    text: dict[str, Any] = {
        "Type": "buildkit.file.v0",
        "Actions": [None if a is None else base64.b64encode(dumps(a).encode()).decode() for a in actions],
    }
    if not _usual_chain(indexes):
        text["indexes"] = indexes
    plaintext = dumps(text)
    bases = {entry.input for entry in op.actions if entry.action is not None}
    for index in selectors:
        if not 0 <= index < inputs:
            raise DefinitionError(f"invalid input index {index} in file op with {inputs} inputs")
    deps = tuple(_file_dep(selectors.get(i), i in bases) for i in range(inputs))
    return CacheMapSpec(Digest.of_text(plaintext), plaintext, deps)


def _file_dep(selectors: list[ContentSelector] | None, base: bool) -> DepSpec:
    if selectors is None or base:
        return DepSpec(preprocess=True)
    paths = sorted((s.path for s in selectors), key=lambda path: path.encode(), reverse=True)
    return DepSpec(
        Digest.of_text("\0".join(paths)), merged(selectors), tuple(s.path for s in selectors), preprocess=True
    )


def _usual_chain(indexes: Sequence[Sequence[int]]) -> bool:
    """Each action on the one before, sources in the second input (isDefaultIndexes)."""
    last = len(indexes) - 1
    for i, (base, secondary, output) in enumerate(indexes):
        if base != (0 if i == 0 else len(indexes) + i - 1) or secondary not in (-1, 1):
            return False
        if output != (0 if i == last else -1):
            return False
    return True


def _action(
    action: Action | None, secondary: int, inputs: int, selectors: dict[int, list[ContentSelector]]
) -> dict[str, Any] | None:
    match action:
        case CopyAction():
            _select_users(action.owner, selectors)
            src = action.src
            if secondary != -1 and secondary < inputs:
                selectors.setdefault(secondary, []).append(_copied(action))
                src = base_name(src)
            return _copy(action, src)
        case MkDirAction():
            _select_users(action.owner, selectors)
            return present(
                path=action.path, mode=action.mode, makeParents=action.make_parents,
                owner=_owner(action.owner), timestamp=action.timestamp,
            )  # fmt: skip
        case MkFileAction():
            _select_users(action.owner, selectors)
            return present(
                path=action.path, mode=action.mode, data=base64.b64encode(action.data).decode(),
                owner=_owner(action.owner), timestamp=action.timestamp,
            )  # fmt: skip
        case SymlinkAction():
            return present(
                oldpath=action.old_path,
                newpath=action.new_path,
                owner=_owner(action.owner),
                timestamp=action.timestamp,
            )
        case RmAction():
            return present(
                path=action.path, allowNotFound=action.allow_not_found, allowWildcard=action.allow_wildcard
            )
        case None:
            return None


def _copied(action: CopyAction) -> ContentSelector:
    return ContentSelector(
        action.src, action.follow_symlink, action.allow_wildcard and has_wildcards(action.src),
        action.include_patterns, action.exclude_patterns, action.required_paths,
    )  # fmt: skip


def _copy(action: CopyAction, src: str) -> dict[str, Any]:
    return present(
        src=src, dest=action.dest, owner=_owner(action.owner), mode=action.mode,
        followSymlink=action.follow_symlink, dirCopyContents=action.dir_copy_contents,
        attemptUnpackDockerCompatibility=action.attempt_unpack, createDestPath=action.create_dest_path,
        allowWildcard=action.allow_wildcard, allowEmptyWildcard=action.allow_empty_wildcard,
        timestamp=action.timestamp, include_patterns=list(action.include_patterns),
        exclude_patterns=list(action.exclude_patterns),
        alwaysReplaceExistingDestPaths=action.always_replace_existing_dest_paths,
        modeStr=action.mode_str, required_paths=list(action.required_paths),
    )  # fmt: skip


def _owner(owner: ChownOpt | None) -> dict[str, Any] | None:
    return None if owner is None else present(user=_user(owner.user), group=_user(owner.group))


def _user(opt: UserOpt | None) -> dict[str, Any] | None:
    match opt:
        case None:
            return None
        case UserOpt(user=NamedUser(name=name, input=index)):
            return {"User": {"byName": present(name=name, input=index)}}
        case UserOpt(user=int(number)):
            return {"User": present(byId=number)}
        case _:
            return {"User": {}}


def _select_users(owner: ChownOpt | None, selectors: dict[int, list[ContentSelector]]) -> None:
    """A user by name is looked up in the input, whose table of users therefore counts.

    BuildKit passes over a name without an input to look in; the step then fails when it runs.
    """
    if owner is None:
        return
    for opt, table in ((owner.user, "/etc/passwd"), (owner.group, "/etc/group")):
        if opt is not None and isinstance(opt.user, NamedUser):
            if opt.user.input < 0:
                return
            selectors.setdefault(opt.user.input, []).append(ContentSelector(table, follow_links=True))
