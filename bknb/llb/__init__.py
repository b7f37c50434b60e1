"""LLB: the graph of a build, and how to write one in Python.

A `State` is a filesystem to be. It begins with a source, each method gives another state, and nothing happens
until the graph is marshalled to a `Definition`, which any BuildKit builds::

    from bknb import llb

    source = llb.git("https://github.com/moby/buildkit.git", "v0.13.0")
    base = llb.image("golang:1.26-alpine").with_env("CGO_ENABLED", "0").with_dir("/src")
    built = base.run(
        ["go", "build", "-o", "/out/", "./cmd/buildctl"],
        mounts=[llb.BindMount("/src", source, readonly=True), llb.BindMount("/out"),
                llb.CacheMount("/root/.cache", "go-build")],
        name="build buildctl",
    )
    state = llb.scratch().file(llb.copy(built.at("/out"), "buildctl", "/bin/", create_dest=True))
    definition = state.marshal(platform="linux/amd64")

``Definition.to_bytes()`` is what ``buildctl build`` reads; `Definition.from_bytes` reads any definition back
as something from outside, and `Definition.to_edge` checks it and gives its graph of typed ops, whose bytes
are the same. `bknb.llb.render` shows a definition: DOT, SVG, Mermaid, a DataFrame, and the JSON lines of
``buildctl debug dump-llb``.

Beside Go's package ``client/llb``, with nothing of it missing:

==============================================  ==========================================================
Go                                              here
==============================================  ==========================================================
State, NewState, Output, Vertex, DefinitionOp   `State`, `Edge`, `Vertex` (bytes and digest computed once)
SourceOp, NewSource, ExecOp, NewExecOp,         `SourceOp`, `ExecOp`, `FileOp`, `MergeOp`, `DiffOp`,
FileOp, NewFileOp, MergeOp, NewMerge, DiffOp,   `PassthroughOp`, `BuildOp`: values; `vertex` puts one on
NewDiff, PassthroughOp, NewPassthroughOp        its inputs, `source` makes any source
Image, ImageOption, ImageInfo, WithLayerLimit,  `image` (layer_limit, checksum, resolver, pin,
WithImageChecksum, WithMetaResolver,            record_type)
ResolveDigest
ImageMetaResolver                               `ImageResolver`, answers a `ResolvedImage`
ResolveMode, ResolveModeDefault,                `image` (mode: default, pull, local)
ResolveModeForcePull, ResolveModePreferLocal
ImageBlob, ImageBlobOption, ImageBlobInfo,      `image_blob` (session, store; layout for the last)
ImageBlobOCIStore, OCILayoutBlob
FileInfoOption, Filename, Chmod, Chown          `http`, `image_blob` (filename, mode, uid, gid)
OCILayout, OCILayoutOption, OCILayoutInfo,      `oci_layout` (session, store, layer_limit; the digest is
OCIStore, OCILayerLimit, OCIChecksum            part of the reference)
Local, LocalOption, LocalInfo, SessionID,       `local` (session, include, exclude, follow_paths,
IncludePatterns, ExcludePatterns, FollowPaths,  shared_key_hint)
SharedKeyHint
Differ, DifferInfo, DiffType, DiffNone,         `local` (differ, differ_required, metadata_only)
DiffMetadata, MetadataOnlyTransfer
LocalUniqueID                                   `State.marshal` (unique_id)
Git, GitOption, GitInfo, GitRef, GitSubDir,     `git` with `GitOptions`
KeepGitDir, GitChecksum, GitSkipSubmodules,
GitMTime, GitMTimeCommit, GitFetchByCommit
AuthOption, AuthTokenSecret, AuthHeaderSecret,  `GitOptions`, `http` (auth_header_secret)
GitAuthTokenKey, GitAuthHeaderKey,
KnownSSHHosts, MountSSHSock
GitBundleOption, GitBundleInfo, GitBundleURL,   `GitOptions` (bundle, bundle_session, bundle_store,
GitBundleOCIStore, GitCheckoutBundle            checkout_bundle)
HTTP, HTTPOption, HTTPInfo, HTTPHeader,         `http` (checksum, headers, signature, public_key)
Header, Checksum, HTTPSignatureInfo,
VerifyPGPSignature
Scratch                                         `scratch`
State.Run, RunOption, ExecInfo, Args, Shlex,    `State.run`: a list, or a text that is split
Shlexf
ExecState, ExecState.Root, ExecState.GetMount,  `ExecState` is the root, `ExecState.at` another mount
ExecState.AddMount
AddMount, MountOption, MountInfo, Readonly,     `BindMount` (readonly, path, discard)
SourcePath, ForceNoOutput
MountContentCache, ContentCache,                `BindMount` (content_cache), `MountContentCache`
MountContentCacheDefault, MountContentCacheOn,
MountContentCacheOff
AsPersistentCacheDir, CacheMountSharingMode,    `CacheMount`, `CacheSharing`
CacheMountShared, CacheMountPrivate,
CacheMountLocked
Tmpfs, TmpfsOption, TmpfsInfo, TmpfsSize        `TmpfsMount`
AddSecret, AddSecretWithDest, SecretOption,     `Secret`
SecretInfo, SecretID, SecretFileOpt,
SecretAsEnv, SecretAsEnvName
AddSSHSocket, SSHOption, SSHInfo, SSHID,        `SSH`
SSHSocketTarget, SSHSocketOpt
AddCDIDevice, CDIDeviceOption, CDIDeviceInfo,   `CDIDevice`
CDIDeviceName
WithProxy, ProxyEnv                             `ProxyEnv`
ReadonlyRootFS, ValidExitCodes, With            `State.run` (readonly_root, using),
                                                `State.with_valid_exit_codes`
State.File, FileAction, FileAction.Copy,        `State.file`, `FileAction`
FileAction.Mkdir, FileAction.Mkfile,
FileAction.Rm, FileAction.Symlink
FileAction.WithState, CopyInput                 `FileAction.on`; `copy` takes a `State` or a `FileAction`
Copy, CopyOption, CopyInfo,                     `copy` (all of CopyInfo's fields by name)
WithExcludePatterns
Mkdir, MkdirOption, MkdirInfo, WithParents      `mkdir` (parents)
Mkfile, MkfileOption, MkfileInfo                `mkfile`
Symlink, SymlinkOption, SymlinkInfo             `symlink`
Rm, RmOption, RmInfo, WithAllowNotFound,        `rm` (allow_not_found, allow_wildcard)
WithAllowWildcard
ChownOption, ChownOpt, UserOpt, WithUser,       owner, mode and created of `copy`, `mkdir`, `mkfile`,
WithUIDGID, ChmodOpt, CreatedTime,              `symlink`
WithCreatedTime
Merge, Diff                                     `merge`, `diff`
NewPassthrough, PassthroughInput,               `passthrough`, `State.requires`
PassthroughOp.OutputAt, State.Requires
llbbuild.Build                                  `State.build`
AddEnv, AddEnvf, EnvList, State.AddEnv,         `State.with_env`; `State.values` to read
State.AddEnvf, State.GetEnv, State.Env
Dir, Dirf, State.Dir, State.Dirf, State.GetDir  `State.with_dir`; `State.values` to read
User, Hostname, State.User, State.Hostname,     `State.with_user`, `State.with_hostname`
State.GetHostname, State.GetArgs
AddExtraHost, HostIP, State.AddExtraHost        `State.add_host`
AddUlimit, UlimitName, State.AddUlimit,         `State.add_ulimit`: names are texts, such as nofile
UlimitCPU, UlimitCore, UlimitData,
UlimitFsize, UlimitLocks, UlimitMemlock,
UlimitMsgqueue, UlimitNice, UlimitNofile,
UlimitNproc, UlimitRss, UlimitRtprio,
UlimitRttime, UlimitSigpending, UlimitStack
WithCgroupParent, State.WithCgroupParent        `State.with_cgroup_parent`
Network, NetModeSandbox, NetModeHost,           `State.with_network`, `NetMode`
NetModeNone, State.Network, State.GetNetwork
Security, SecurityModeSandbox,                  `State.with_security`, `SecurityMode`
SecurityModeInsecure, State.Security,
State.GetSecurity
Platform, State.Platform, State.GetPlatform,    `State.with_platform`, of one op `Constraints` (platform):
LinuxAmd64, LinuxArm64, LinuxArm, LinuxArmhf,   texts, such as linux/arm/v7
LinuxArmel, LinuxPpc64, LinuxPpc64le,
LinuxRiscv64, LinuxS390x, Darwin, Windows
State.WithImageConfig, State.WithOutput         `State.with_image_config`, `State.with_output`
Reset, State.Reset, State.With, StateOption,    `State.reset`; functions of Python are just called, values
State.WithValue, State.Value                    kept in its variables
State.Async                                     `State.then`, `State.marshal_async`
Constraints, ConstraintsOpt, NewConstraints,    `Constraints`, of an op and of `State.marshal`
MarshalConstraints, State.SetMarshalDefaults
Require, WithCaps, WithCustomName,              `Constraints` (require, caps, name, description,
WithCustomNamef, WithDescription,               ignore_cache, export_cache)
WithExportCache, WithoutExportCache,
WithoutDefaultExportCache
OpMetadata, NewOpMetadata                       `OpMetadata`
ProgressGroup                                   `ProgressGroup`
LinuxResources, WithLinuxResources,             `LinuxResources`
MemoryLimit, MemorySwapLimit, CPUShares,
CPUPeriod, CPUQuota, CpusetCpus, CpusetMems
SourceMap, NewSourceMap, SourceMap.Location,    `SourceInfo`, `Location`; on the wire `SourceMap`
SourceLocation
State.Marshal, State.Validate, State.Output,    `State.marshal`, `State.edge`; what is wrong is said then
MarshalCache, MarshalCacheInstance
Definition, Definition.Head, Definition.ToPB,   `Definition` (`Definition.head`, `Definition.to_bytes`,
Definition.FromPB, WriteTo, ReadFrom            `Definition.from_bytes`)
NewDefinitionOp                                 `Definition.to_edge`, `State.from_definition`,
                                                `State.from_edge`
==============================================  ==========================================================
"""

from bknb.llb.file import FileAction, copy, mkdir, mkfile, rm, symlink
from bknb.llb.graph import Constraints
from bknb.llb.marshal import Definition, vertex
from bknb.llb.ops import (
    BuildOp,
    CacheSharing,
    CDIDevice,
    DiffOp,
    ExecOp,
    FileOp,
    MergeOp,
    MountContentCache,
    NetMode,
    Op,
    PassthroughOp,
    ProxyEnv,
    SecurityMode,
    SourceOp,
)
from bknb.llb.run import SSH, BindMount, CacheMount, Secret, TmpfsMount
from bknb.llb.sourcemap import SourceMap
from bknb.llb.sources import (
    GitOptions,
    ImageResolver,
    ResolvedImage,
    git,
    http,
    image,
    image_blob,
    local,
    oci_layout,
    scratch,
    source,
)
from bknb.llb.state import ExecState, State, diff, merge, passthrough
from bknb.llb.vertex import (
    Edge,
    LinuxResources,
    Location,
    OpMetadata,
    ProgressGroup,
    SourceInfo,
    Vertex,
)

__all__ = [
    "SSH",
    "BindMount",
    "BuildOp",
    "CDIDevice",
    "CacheMount",
    "CacheSharing",
    "Constraints",
    "Definition",
    "DiffOp",
    "Edge",
    "ExecOp",
    "ExecState",
    "FileAction",
    "FileOp",
    "GitOptions",
    "ImageResolver",
    "LinuxResources",
    "Location",
    "MergeOp",
    "MountContentCache",
    "NetMode",
    "Op",
    "OpMetadata",
    "PassthroughOp",
    "ProgressGroup",
    "ProxyEnv",
    "ResolvedImage",
    "Secret",
    "SecurityMode",
    "SourceInfo",
    "SourceMap",
    "SourceOp",
    "State",
    "TmpfsMount",
    "Vertex",
    "copy",
    "diff",
    "git",
    "http",
    "image",
    "image_blob",
    "local",
    "merge",
    "mkdir",
    "mkfile",
    "oci_layout",
    "passthrough",
    "rm",
    "scratch",
    "source",
    "symlink",
    "vertex",
]
