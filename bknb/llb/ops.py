"""The ops of LLB as data, field by field those of BuildKit's ``solver/pb/ops.proto``.

An op says what is to be done, never how: the worker gives it behaviour, `bknb.keys` its cache map,
`bknb.llb.marshal` its bytes. Names are the protobuf ones in Python's spelling. A message that may be absent
is ``None`` when it is, because an absent and an empty message have different bytes, hence different digests.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


class NetMode(enum.IntEnum):
    """Which network a step sees."""

    UNSET = 0
    HOST = 1
    NONE = 2


class SecurityMode(enum.IntEnum):
    """``INSECURE`` is a privileged container; it needs the entitlement security.insecure."""

    SANDBOX = 0
    INSECURE = 1


class MountType(enum.IntEnum):
    """What a mount of an exec is made from."""

    BIND = 0
    SECRET = 1
    SSH = 2
    CACHE = 3
    TMPFS = 4


class MountContentCache(enum.IntEnum):
    """Whether an input is also keyed by the content below its mount."""

    DEFAULT = 0
    ON = 1
    OFF = 2


class CacheSharing(enum.IntEnum):
    """Who may use a cache mount at the same time."""

    SHARED = 0
    PRIVATE = 1
    LOCKED = 2


@dataclass(frozen=True, slots=True)
class HostIP:
    """An extra line of /etc/hosts."""

    host: str
    ip: str


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit; `name` as in ``docker run --ulimit`` (``nofile``)."""

    name: str
    soft: int = 0
    hard: int = 0


@dataclass(frozen=True, slots=True)
class ProxyEnv:
    """Proxy variables that a command sees and the cache does not."""

    http_proxy: str = ""
    https_proxy: str = ""
    ftp_proxy: str = ""
    no_proxy: str = ""
    all_proxy: str = ""


@dataclass(frozen=True, slots=True)
class Meta:
    """How a process is started. `env` entries are ``KEY=value``, in order."""

    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    proxy_env: ProxyEnv | None = None
    extra_hosts: tuple[HostIP, ...] = ()
    hostname: str = ""
    ulimit: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    remove_mount_stubs_recursive: bool = False
    valid_exit_codes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TmpfsOpt:
    """`size` in bytes, 0 for no limit."""

    size: int = 0


@dataclass(frozen=True, slots=True)
class CacheOpt:
    """Which cache mount, and how it is shared."""

    id: str = ""
    sharing: CacheSharing = CacheSharing.SHARED


@dataclass(frozen=True, slots=True)
class SecretOpt:
    """A secret as a file."""

    id: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0
    optional: bool = False


@dataclass(frozen=True, slots=True)
class SSHOpt:
    """An agent socket."""

    id: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of an exec.

    Attributes:
        input: index into the vertex's inputs, -1 for none.
        output: index of the output that it becomes, -1 for none.
        selector: path inside of the input that is mounted.
    """

    input: int = 0
    selector: str = ""
    dest: str = ""
    output: int = 0
    readonly: bool = False
    type: MountType = MountType.BIND
    tmpfs_opt: TmpfsOpt | None = None
    cache_opt: CacheOpt | None = None
    secret_opt: SecretOpt | None = None
    ssh_opt: SSHOpt | None = None
    result_id: str = ""
    content_cache: MountContentCache = MountContentCache.DEFAULT


@dataclass(frozen=True, slots=True)
class SecretEnv:
    """A secret as an environment variable."""

    id: str = ""
    name: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class CDIDevice:
    """A device by its CDI name."""

    name: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ExecOp:
    """Run a process over mounts."""

    meta: Meta | None = Meta()
    mounts: tuple[Mount, ...] = ()
    network: NetMode = NetMode.UNSET
    security: SecurityMode = SecurityMode.SANDBOX
    secret_env: tuple[SecretEnv, ...] = ()
    cdi_devices: tuple[CDIDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceOp:
    """Something from outside: ``docker-image://``, ``local://``, ``git://``, ``https://``, ``oci-layout://``."""

    identifier: str
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamedUser:
    """A user by name, looked up in /etc/passwd (or group) of the input with this index (-1: nowhere)."""

    name: str
    input: int = 0


@dataclass(frozen=True, slots=True)
class UserOpt:
    """A user or group: by name, by id, or (None) a message whose oneof is not set."""

    user: NamedUser | int | None = None


@dataclass(frozen=True, slots=True)
class ChownOpt:
    """An owner; an absent part stays what it is."""

    user: UserOpt | None = None
    group: UserOpt | None = None


@dataclass(frozen=True, slots=True)
class CopyAction:
    """Copy from the secondary input. `mode` -1 keeps the mode, `timestamp` (ns) -1 the time."""

    src: str = ""
    dest: str = ""
    owner: ChownOpt | None = None
    mode: int = 0
    follow_symlink: bool = False
    dir_copy_contents: bool = False
    attempt_unpack: bool = False
    create_dest_path: bool = False
    allow_wildcard: bool = False
    allow_empty_wildcard: bool = False
    timestamp: int = 0
    include_patterns: tuple[str, ...] = ()
    exclude_patterns: tuple[str, ...] = ()
    always_replace_existing_dest_paths: bool = False
    mode_str: str = ""
    required_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MkFileAction:
    """Write a file."""

    path: str = ""
    mode: int = 0
    data: bytes = b""
    owner: ChownOpt | None = None
    timestamp: int = 0


@dataclass(frozen=True, slots=True)
class MkDirAction:
    """Make a directory."""

    path: str = ""
    mode: int = 0
    make_parents: bool = False
    owner: ChownOpt | None = None
    timestamp: int = 0


@dataclass(frozen=True, slots=True)
class RmAction:
    """Remove a path."""

    path: str = ""
    allow_not_found: bool = False
    allow_wildcard: bool = False


@dataclass(frozen=True, slots=True)
class SymlinkAction:
    """Make a symbolic link at `new_path` that says `old_path`."""

    old_path: str = ""
    new_path: str = ""
    owner: ChownOpt | None = None
    timestamp: int = 0


Action: TypeAlias = CopyAction | MkFileAction | MkDirAction | RmAction | SymlinkAction


@dataclass(frozen=True, slots=True)
class FileAction:
    """An action and what it works on.

    `input` and `secondary_input` count the vertex's inputs first, then the earlier actions; -1 is none.
    """

    input: int
    secondary_input: int
    output: int
    action: Action | None


@dataclass(frozen=True, slots=True)
class FileOp:
    """File actions, each on the result of another or on an input."""

    actions: tuple[FileAction, ...] = ()


@dataclass(frozen=True, slots=True)
class MergeOp:
    """Lay the inputs over each other, first at the bottom; values are indexes of inputs."""

    inputs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DiffOp:
    """What `upper` has over `lower`: an index of an input each, -1 for scratch, None for no message."""

    lower: int | None = None
    upper: int | None = None


@dataclass(frozen=True, slots=True)
class BuildOp:
    """A definition inside of a definition.

    Attributes:
        builder: index of the input that builds, -1 for the solver itself.
        inputs: the files that it reads: ``buildkit.llb.definition`` -> index of an input.
        definition: bytes of a pb.Definition, or None.
        attrs: ``llbbuild.filename``.
    """

    builder: int = 0
    inputs: Mapping[str, int] = field(default_factory=dict)
    definition: bytes | None = None
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PassthroughOp:
    """Hand inputs on as they are."""

    id: str = ""
    outputs: tuple[int, ...] = ()


Op: TypeAlias = SourceOp | ExecOp | FileOp | MergeOp | DiffOp | BuildOp | PassthroughOp
