"""The canonical bytes of an op, which its digest is the sha256 of.

They are those of Go's deterministic protobuf: map entries sorted by key, and fields by number *except that a
message's oneof comes last*. Python's serialiser goes by number alone, so ops are written by hand here. Only
what differs from the default of proto3 is written, but a message that is there is written even if empty.

>>> encode_op(SourceOp("local://context"), (), None, ()).hex()
'5a001a110a0f6c6f63616c3a2f2f636f6e74657874'
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bknb.errors import DefinitionError
from bknb.llb.ops import (
    Action,
    BuildOp,
    ChownOpt,
    CopyAction,
    DiffOp,
    ExecOp,
    FileAction,
    FileOp,
    MergeOp,
    Meta,
    MkDirAction,
    MkFileAction,
    Mount,
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
from bknb.platforms import Platform

_INVALID_UTF8: Final = "string field contains invalid UTF-8"
_SMALL: Final = tuple(bytes((n,)) for n in range(128))


def _varint(value: int) -> bytes:
    if 0 <= value < 128:
        return _SMALL[value]
    if not -(1 << 63) <= value < 1 << 64:
        raise DefinitionError(f"{value} does not fit into 64 bits")
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_INT: Final = tuple(_varint(number << 3) for number in range(25))
_LEN: Final = tuple(_varint(number << 3 | 2) for number in range(25))


def _integer(number: int, value: int) -> bytes:
    return _INT[number] + _varint(value) if value else b""


def _message(number: int, data: bytes) -> bytes:
    size = len(data)
    return _LEN[number] + (_SMALL[size] if size < 128 else _varint(size)) + data


def _optional(number: int, data: bytes | None) -> bytes:
    return b"" if data is None else _message(number, data)


def _text(number: int, value: str) -> bytes:
    return _message(number, _utf8(value)) if value else b""


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise DefinitionError(_INVALID_UTF8) from None


def _texts(number: int, values: Iterable[str]) -> bytes:
    return b"".join([_message(number, _utf8(value)) for value in values])


def _packed(number: int, values: tuple[int, ...]) -> bytes:
    return _message(number, b"".join(map(_varint, values))) if values else b""


def _map(number: int, entries: Iterable[tuple[str, bytes]]) -> bytes:
    """A map field: of each entry both key and value are written, defaults too."""
    keyed = sorted((_utf8(key), value) for key, value in entries)
    return b"".join(_message(number, _message(1, key) + _message(2, value)) for key, value in keyed)


def encode_input(digest: str, index: int) -> bytes:
    """One edge as the field `inputs` of an op."""
    return _message(1, _text(1, digest) + _integer(2, index))


def encode_op(
    op: Op, inputs: Iterable[tuple[str, int]], platform: Platform | None, constraints: tuple[str, ...]
) -> bytes:
    """The bytes of a whole pb.Op.

    Args:
        op: what it does.
        inputs: digest and output index of each input edge.
        platform: None where the field is absent.
        constraints: worker filters; the message is written even when there is none.

    Raises:
        DefinitionError: a text is not UTF-8, or a number does not fit.
    """
    number, body = _kind(op)
    return b"".join((
        *(encode_input(digest, index) for digest, index in inputs),
        _optional(10, None if platform is None else _platform(platform)),
        _message(11, _texts(1, constraints)),
        _message(number, body),
    ))  # fmt: skip


def _platform(platform: Platform) -> bytes:
    return b"".join((
        _text(1, platform.architecture), _text(2, platform.os), _text(3, platform.variant),
        _text(4, platform.os_version), _texts(5, platform.os_features),
    ))  # fmt: skip


def _kind(op: Op) -> tuple[int, bytes]:
    match op:
        case ExecOp():
            return 2, _exec(op)
        case SourceOp():
            return 3, _text(1, op.identifier) + _map(2, ((k, _utf8(v)) for k, v in op.attrs.items()))
        case FileOp():
            return 4, b"".join(_message(2, _file_action(action)) for action in op.actions)
        case BuildOp():
            return 5, b"".join((
                _integer(1, op.builder),
                _map(2, ((key, _integer(1, index)) for key, index in op.inputs.items())),
                _optional(3, op.definition),
                _map(4, ((key, _utf8(value)) for key, value in op.attrs.items())),
            ))  # fmt: skip
        case MergeOp():
            return 6, b"".join(_message(1, _integer(1, index)) for index in op.inputs)
        case DiffOp():
            sides = enumerate((op.lower, op.upper), 1)
            return 7, b"".join(_message(n, _integer(1, index)) for n, index in sides if index is not None)
        case PassthroughOp():
            return 8, _text(1, op.id) + _packed(2, op.outputs)


def _exec(op: ExecOp) -> bytes:
    return b"".join((
        _optional(1, None if op.meta is None else _meta(op.meta)),
        *(_message(2, _mount(mount)) for mount in op.mounts),
        _integer(3, op.network),
        _integer(4, op.security),
        *(_message(5, _text(1, s.id) + _text(2, s.name) + _integer(3, s.optional)) for s in op.secret_env),
        *(_message(6, _text(1, d.name) + _integer(2, d.optional)) for d in op.cdi_devices),
    ))  # fmt: skip


def _meta(meta: Meta) -> bytes:
    proxy = meta.proxy_env
    return b"".join((
        _texts(1, meta.args), _texts(2, meta.env), _text(3, meta.cwd), _text(4, meta.user),
        b"" if proxy is None else _message(5, b"".join((
            _text(1, proxy.http_proxy), _text(2, proxy.https_proxy), _text(3, proxy.ftp_proxy),
            _text(4, proxy.no_proxy), _text(5, proxy.all_proxy),
        ))),
        *(_message(6, _text(1, host.host) + _text(2, host.ip)) for host in meta.extra_hosts),
        _text(7, meta.hostname),
        *(_message(9, _text(1, u.name) + _integer(2, u.soft) + _integer(3, u.hard)) for u in meta.ulimit),
        _text(10, meta.cgroup_parent),
        _integer(11, meta.remove_mount_stubs_recursive),
        _packed(12, meta.valid_exit_codes),
    ))  # fmt: skip


def _mount(mount: Mount) -> bytes:
    cache, tmpfs = mount.cache_opt, mount.tmpfs_opt
    return b"".join((
        _integer(1, mount.input), _text(2, mount.selector), _text(3, mount.dest), _integer(4, mount.output),
        _integer(5, mount.readonly), _integer(6, mount.type),
        _optional(19, None if tmpfs is None else _integer(1, tmpfs.size)),
        _optional(20, None if cache is None else _text(1, cache.id) + _integer(2, cache.sharing)),
        _optional(21, None if mount.secret_opt is None else _shared_file(mount.secret_opt)),
        _optional(22, None if mount.ssh_opt is None else _shared_file(mount.ssh_opt)),
        _text(23, mount.result_id), _integer(24, mount.content_cache),
    ))  # fmt: skip


def _shared_file(opt: SecretOpt | SSHOpt) -> bytes:
    return b"".join((
        _text(1, opt.id), _integer(2, opt.uid), _integer(3, opt.gid), _integer(4, opt.mode),
        _integer(5, opt.optional),
    ))  # fmt: skip


def _file_action(entry: FileAction) -> bytes:
    head = _integer(1, entry.input) + _integer(2, entry.secondary_input) + _integer(3, entry.output)
    if entry.action is None:
        return head
    number, body = _action(entry.action)
    return head + _message(number, body)


def _action(action: Action) -> tuple[int, bytes]:
    match action:
        case CopyAction():
            return 4, _copy(action)
        case MkFileAction():
            data = _message(3, action.data) if action.data else b""
            tail = _owner(4, action.owner) + _integer(5, action.timestamp)
            return 5, _text(1, action.path) + _integer(2, action.mode) + data + tail
        case MkDirAction():
            parents = _integer(3, action.make_parents)
            tail = _owner(4, action.owner) + _integer(5, action.timestamp)
            return 6, _text(1, action.path) + _integer(2, action.mode) + parents + tail
        case RmAction():
            flags = _integer(2, action.allow_not_found) + _integer(3, action.allow_wildcard)
            return 7, _text(1, action.path) + flags
        case SymlinkAction():
            tail = _owner(3, action.owner) + _integer(4, action.timestamp)
            return 8, _text(1, action.old_path) + _text(2, action.new_path) + tail


def _copy(copy: CopyAction) -> bytes:
    return b"".join((
        _text(1, copy.src), _text(2, copy.dest), _owner(3, copy.owner), _integer(4, copy.mode),
        _integer(5, copy.follow_symlink), _integer(6, copy.dir_copy_contents),
        _integer(7, copy.attempt_unpack), _integer(8, copy.create_dest_path),
        _integer(9, copy.allow_wildcard), _integer(10, copy.allow_empty_wildcard),
        _integer(11, copy.timestamp),
        _texts(12, copy.include_patterns), _texts(13, copy.exclude_patterns),
        _integer(14, copy.always_replace_existing_dest_paths), _text(15, copy.mode_str),
        _texts(16, copy.required_paths),
    ))  # fmt: skip


def _owner(number: int, owner: ChownOpt | None) -> bytes:
    if owner is None:
        return b""
    return _message(number, _user(1, owner.user) + _user(2, owner.group))


def _user(number: int, opt: UserOpt | None) -> bytes:
    if opt is None:
        return b""
    user = opt.user
    if user is None:
        return _message(number, b"")
    if isinstance(user, NamedUser):
        return _message(number, _message(1, _text(1, user.name) + _integer(2, user.input)))
    # A member of a oneof is written even when it is zero.
    return _message(number, _INT[2] + _varint(user))
