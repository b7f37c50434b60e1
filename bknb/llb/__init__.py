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

Beside Go's package ``client/llb``:

====================================  =======================================================================
Go                                    here
====================================  =======================================================================
State, Output, Vertex                 `State`, `Edge`, `Vertex` (bytes and digest computed once)
Image, ImageOption                    `image` (mode, record_type, layer_limit, checksum, resolver, pin)
ImageBlob, OCILayoutBlob              `image_blob` (``layout=True`` for the second)
Local, LocalOption                    `local` (session, include, exclude, follow_paths, shared_key_hint,
                                      differ, metadata_only)
Git, GitOption                        `git` with `GitOptions`
HTTP, HTTPOption                      `http` (checksum, filename, mode, uid, gid, headers, signature...)
OCILayout                             `oci_layout`
Scratch                               `scratch`
NewSource                             `source`
State.Run, RunOption, ExecState       `State.run`, `ExecState` (``GetMount`` is `ExecState.at`)
Args, Shlex                           ``run(["a", "b"])``, ``run("a b")``
AddMount, Readonly, SourcePath,       `BindMount` (readonly, path, discard, content_cache)
ForceNoOutput, ContentCache
AsPersistentCacheDir, Tmpfs           `CacheMount`, `TmpfsMount`
AddSecret, SecretAsEnv...             `Secret`
AddSSHSocket...                       `SSH`
AddCDIDevice, WithProxy               ``run(devices=[CDIDevice], proxy=ProxyEnv)``
ReadonlyRootFS, ValidExitCodes        ``run(readonly_root=True)``, `State.with_valid_exit_codes`
State.File, FileAction                `State.file`, `FileAction`
Copy, Mkdir, Mkfile, Symlink, Rm      `copy`, `mkdir`, `mkfile`, `symlink`, `rm`
FileAction.WithState                  `FileAction.on`
Merge, Diff                           `merge`, `diff`
NewPassthrough, State.Requires        `passthrough`, `State.requires`
llbbuild.Build                        `State.build`
AddEnv, Dir, User, Hostname           `State.with_env`, ``with_dir``, ``with_user``, ``with_hostname``
AddExtraHost, AddUlimit               `State.add_host`, `State.add_ulimit`
WithCgroupParent, Network, Security   `State.with_cgroup_parent`, ``with_network``, ``with_security``
State.Platform, WithImageConfig       `State.with_platform`, `State.with_image_config`
Reset, With                           `State.reset`; functions are just called
State.Async                           `State.then`, `State.marshal_async`
Constraints, ConstraintsOpt           `Constraints` (platform, require, name, description, ignore_cache,
                                      export_cache, progress_group, resources, caps, locations)
SourceMap, Location                   `SourceInfo`, `Location`; on the wire `SourceMap`
State.Marshal, Definition             `State.marshal`, `Definition` (head, to_bytes, from_bytes, source)
NewDefinitionOp                       `Definition.to_edge`, `State.from_definition`
====================================  =======================================================================
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
