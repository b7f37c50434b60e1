"""Bytes of an op, back into typed data: the way in for definitions from outside.

Protobuf itself checks lengths, UTF-8 and nesting; what it cannot know is checked here: that an op is one that
exists and that every index points at something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bknb.errors import DefinitionError
from bknb.llb.ops import (
    Action,
    BuildOp,
    CacheOpt,
    CacheSharing,
    CDIDevice,
    ChownOpt,
    CopyAction,
    DiffOp,
    ExecOp,
    FileAction,
    FileOp,
    HostIP,
    MergeOp,
    Meta,
    MkDirAction,
    MkFileAction,
    Mount,
    MountContentCache,
    MountType,
    NamedUser,
    NetMode,
    Op,
    PassthroughOp,
    ProxyEnv,
    RmAction,
    SecretEnv,
    SecretOpt,
    SecurityMode,
    SourceOp,
    SSHOpt,
    SymlinkAction,
    TmpfsOpt,
    Ulimit,
    UserOpt,
)
from bknb.platforms import Platform

if TYPE_CHECKING:
    from bknb.pb import ops_pb2 as pb


def decode_op(message: pb.Op, vertex: str) -> Op:
    """The typed op of a parsed message, its indexes checked.

    Args:
        message: a pb.Op.
        vertex: its digest, for errors.

    Raises:
        DefinitionError: no op or an unknown one, an unknown enum value, or an index that points nowhere.
    """
    count = len(message.inputs)
    try:
        op = _op(message)
    except ValueError as error:
        raise DefinitionError(f"{vertex}: {error}", vertex) from None
    for index, lowest, limit in _indexes(op, count):
        if not lowest <= index < limit:
            raise DefinitionError(f"{vertex}: index {index} is out of range: it has {count} inputs", vertex)
    return op


def decode_platform(message: pb.Op) -> Platform | None:
    """The platform of an op, as marshalled, or None."""
    if not message.HasField("platform"):
        return None
    p = message.platform
    return Platform(p.OS, p.Architecture, p.Variant, p.OSVersion, tuple(p.OSFeatures))


def output_count(op: Op) -> int:
    """How many outputs an op has; an edge's index is below it."""
    match op:
        case ExecOp():
            return 1 + max((mount.output for mount in op.mounts), default=-1)
        case FileOp():
            return 1 + max((action.output for action in op.actions), default=-1)
        case PassthroughOp():
            return len(op.outputs)
        case _:
            return 1


def _indexes(op: Op, count: int) -> list[tuple[int, int, int]]:
    """Every index in an op, with the bounds that it must keep."""
    match op:
        case ExecOp():
            found = [(mount.input, -1, count) for mount in op.mounts]
            # An output beyond the number of mounts would make lists of any length.
            return found + [(mount.output, -1, len(op.mounts)) for mount in op.mounts]
        case FileOp():
            found = []
            for position, entry in enumerate(op.actions):
                limit = count + position
                found += [(entry.input, -1, limit), (entry.secondary_input, -1, limit)]
                found.append((entry.output, -1, len(op.actions)))
                found += [(user.input, -1, count) for user in _named(entry.action)]
            return found
        case MergeOp():
            return [(index, 0, count) for index in op.inputs]
        case DiffOp():
            return [(index, -1, count) for index in (op.lower, op.upper) if index is not None]
        case BuildOp():
            return [(op.builder, -1, count)] + [(index, 0, count) for index in op.inputs.values()]
        case PassthroughOp():
            return [(index, 0, count) for index in op.outputs]
        case SourceOp():
            return []


def _named(action: Action | None) -> list[NamedUser]:
    owner = None if action is None or isinstance(action, RmAction) else action.owner
    if owner is None:
        return []
    return [
        opt.user for opt in (owner.user, owner.group) if opt is not None and isinstance(opt.user, NamedUser)
    ]


def _op(message: pb.Op) -> Op:
    match message.WhichOneof("op"):
        case "exec":
            return _exec(message.exec)
        case "source":
            return SourceOp(message.source.identifier, dict(message.source.attrs))
        case "file":
            return FileOp(tuple(
                FileAction(a.input, a.secondaryInput, a.output, _action(a)) for a in message.file.actions
            ))  # fmt: skip
        case "build":
            build = message.build
            inner = (
                getattr(build, "def").SerializeToString(deterministic=True) if build.HasField("def") else None
            )
            return BuildOp(
                build.builder,
                {key: value.input for key, value in build.inputs.items()},
                inner,
                dict(build.attrs),
            )
        case "merge":
            return MergeOp(tuple(entry.input for entry in message.merge.inputs))
        case "diff":
            diff = message.diff
            return DiffOp(
                diff.lower.input if diff.HasField("lower") else None,
                diff.upper.input if diff.HasField("upper") else None,
            )
        case "passthrough":
            return PassthroughOp(message.passthrough.id, tuple(message.passthrough.outputs))
        case _:
            raise ValueError("it has no op, or one that is not known")


def _exec(op: pb.ExecOp) -> ExecOp:
    return ExecOp(
        meta=_meta(op.meta) if op.HasField("meta") else None,
        mounts=tuple(_mount(mount) for mount in op.mounts),
        network=NetMode(op.network),
        security=SecurityMode(op.security),
        secret_env=tuple(SecretEnv(s.ID, s.name, s.optional) for s in op.secretenv),
        cdi_devices=tuple(CDIDevice(d.name, d.optional) for d in op.cdiDevices),
    )


def _meta(meta: pb.Meta) -> Meta:
    proxy = meta.proxy_env
    return Meta(
        args=tuple(meta.args),
        env=tuple(meta.env),
        cwd=meta.cwd,
        user=meta.user,
        proxy_env=ProxyEnv(
            proxy.http_proxy, proxy.https_proxy, proxy.ftp_proxy, proxy.no_proxy, proxy.all_proxy
        )
        if meta.HasField("proxy_env")
        else None,
        extra_hosts=tuple(HostIP(host.Host, host.IP) for host in meta.extraHosts),
        hostname=meta.hostname,
        ulimit=tuple(Ulimit(u.Name, u.Soft, u.Hard) for u in meta.ulimit),
        cgroup_parent=meta.cgroupParent,
        remove_mount_stubs_recursive=meta.removeMountStubsRecursive,
        valid_exit_codes=tuple(meta.validExitCodes),
    )


def _mount(mount: pb.Mount) -> Mount:
    secret, ssh = mount.secretOpt, mount.SSHOpt
    return Mount(
        input=mount.input,
        selector=mount.selector,
        dest=mount.dest,
        output=mount.output,
        readonly=mount.readonly,
        type=MountType(mount.mountType),
        tmpfs_opt=TmpfsOpt(mount.TmpfsOpt.size) if mount.HasField("TmpfsOpt") else None,
        cache_opt=CacheOpt(mount.cacheOpt.ID, CacheSharing(mount.cacheOpt.sharing))
        if mount.HasField("cacheOpt")
        else None,
        secret_opt=SecretOpt(secret.ID, secret.uid, secret.gid, secret.mode, secret.optional)
        if mount.HasField("secretOpt")
        else None,
        ssh_opt=SSHOpt(ssh.ID, ssh.uid, ssh.gid, ssh.mode, ssh.optional)
        if mount.HasField("SSHOpt")
        else None,
        result_id=mount.resultID,
        content_cache=MountContentCache(mount.contentCache),
    )


def _action(entry: pb.FileAction) -> Action | None:
    match entry.WhichOneof("action"):
        case "copy":
            return _copy(entry.copy)
        case "mkfile":
            a = entry.mkfile
            return MkFileAction(a.path, a.mode, a.data, _chown(a), a.timestamp)
        case "mkdir":
            d = entry.mkdir
            return MkDirAction(d.path, d.mode, d.makeParents, _chown(d), d.timestamp)
        case "rm":
            return RmAction(entry.rm.path, entry.rm.allowNotFound, entry.rm.allowWildcard)
        case "symlink":
            s = entry.symlink
            return SymlinkAction(s.oldpath, s.newpath, _chown(s), s.timestamp)
        case _:
            raise ValueError("a file action is missing, or not one that is known")


def _copy(copy: pb.FileActionCopy) -> CopyAction:
    return CopyAction(
        src=copy.src,
        dest=copy.dest,
        owner=_chown(copy),
        mode=copy.mode,
        follow_symlink=copy.followSymlink,
        dir_copy_contents=copy.dirCopyContents,
        attempt_unpack=copy.attemptUnpackDockerCompatibility,
        create_dest_path=copy.createDestPath,
        allow_wildcard=copy.allowWildcard,
        allow_empty_wildcard=copy.allowEmptyWildcard,
        timestamp=copy.timestamp,
        include_patterns=tuple(copy.include_patterns),
        exclude_patterns=tuple(copy.exclude_patterns),
        always_replace_existing_dest_paths=copy.alwaysReplaceExistingDestPaths,
        mode_str=copy.modeStr,
        required_paths=tuple(copy.required_paths),
    )


def _chown(
    action: pb.FileActionCopy | pb.FileActionMkFile | pb.FileActionMkDir | pb.FileActionSymlink,
) -> ChownOpt | None:
    if not action.HasField("owner"):
        return None
    owner = action.owner
    return ChownOpt(
        _user(owner.user) if owner.HasField("user") else None,
        _user(owner.group) if owner.HasField("group") else None,
    )


def _user(opt: pb.UserOpt) -> UserOpt:
    match opt.WhichOneof("user"):
        case "byName":
            return UserOpt(NamedUser(opt.byName.name, opt.byName.input))
        case "byID":
            return UserOpt(opt.byID)
        case _:
            return UserOpt(None)
