"""Each construct of BuildKit's Go package client/llb, in Python: the digests of its ops are the same.

`measured.json` holds what the Go package gave (commit 73ed6825, ``Marshal(LinuxAmd64, LocalUniqueID("unique"))``):
the digest of each op in order and every capability asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bknb import llb
from bknb.digest import Digest
from bknb.errors import DefinitionError
from bknb.llb import Constraints, LinuxResources, ProgressGroup, State
from bknb.platforms import Platform

MEASURED = json.loads(Path(__file__).with_name("measured.json").read_text())
SHA = "sha256:" + "a" * 64


def alpine(**options: object) -> State:
    """The image that most constructs begin with."""
    return llb.image("alpine", **options)  # type: ignore[arg-type]


def context() -> State:
    """A local folder."""
    return llb.local("context")


def mounts() -> llb.ExecState:
    """A command with three mounts."""
    return alpine().run(
        "x",
        mounts=[
            llb.BindMount("/z", context(), "/s", readonly=True),
            llb.BindMount("/b"),
            llb.BindMount("/a", alpine()),
        ],
    )


CONFIG = '{"architecture":"arm64","os":"linux","variant":"v8","config":{"Env":["A=1","B"],"WorkingDir":"/w"}}'
BUILDKIT = "https://github.com/moby/buildkit.git"

CONSTRUCTS: dict[str, Callable[[], State]] = {
    "image": alpine,
    "image-pull": lambda: llb.image("alpine:3", mode="pull"),
    "image-local": lambda: llb.image("alpine:3", mode="local"),
    "image-digest": lambda: llb.image(f"alpine@{SHA}"),
    "image-platform": lambda: alpine(constraints=Constraints(platform=Platform("linux", "arm64"))),
    "image-internal": lambda: alpine(record_type="internal"),
    "image-blob": lambda: llb.image_blob(
        f"docker.io/library/x@{SHA}", filename="f", mode=0o640, uid=1, gid=2
    ),
    "oci-blob": lambda: llb.image_blob(f"docker.io/library/x@{SHA}", session="s", store="st", layout=True),
    "oci-layout": lambda: llb.oci_layout(f"x@{SHA}", session="s", store="st", layer_limit=2),
    "local": context,
    "local-options": lambda: llb.local(
        "c",
        session="sess",
        include=["a<b"],
        exclude=["b&c"],
        follow_paths=["é"],
        shared_key_hint="hint",
        differ="none",
        differ_required=True,
    ),
    "local-metadata": lambda: llb.local("c", session="sess", metadata_only=["x"]),
    "http": lambda: llb.http("https://example.com/x"),
    "http-options": lambda: llb.http(
        "https://example.com/x",
        checksum=SHA,
        filename="f",
        mode=0o600,
        uid=3,
        gid=4,
        auth_header_secret="tok",
        headers={"Accept": "a/b", "User-Agent": "ua"},
    ),
    "http-signature": lambda: llb.http("https://example.com/x", public_key="pk", signature="sg"),
    "git": lambda: llb.git(BUILDKIT, "v1:docs"),
    "git-bare": lambda: llb.git("github.com/moby/buildkit"),
    "git-options": lambda: llb.git(
        BUILDKIT,
        "",
        llb.GitOptions(
            ref="main",
            subdir="d",
            keep_git_dir=True,
            checksum="abc",
            skip_submodules=True,
            mtime="commit",
            fetch_by_commit=True,
            auth_token_secret="t",
            auth_header_secret="h",
        ),
    ),
    "git-ssh": lambda: llb.git(
        "git@github.com:moby/buildkit.git",
        "",
        llb.GitOptions(known_ssh_hosts="host key\n", ssh_socket="sock"),
    ),
    "git-bundle": lambda: llb.git(
        BUILDKIT,
        "",
        llb.GitOptions(
            checksum="abc",
            bundle=f"oci-layout+blob://x@{SHA}",
            bundle_session="s",
            bundle_store="st",
            checkout_bundle=True,
        ),
    ),
    "run-args": lambda: alpine().run(["echo", "hi"]),
    "run-shlex": lambda: alpine().run("sh -c 'echo \"a b\"' # c"),
    "run-env": lambda: alpine().with_env("A", "1").with_env("B", "2").with_env("A", "3").run("x"),
    "run-dir": lambda: alpine().with_dir("/a").with_dir("b").run("x"),
    "run-user": lambda: alpine().with_user("u:g").with_hostname("h").run("x"),
    "run-hosts": lambda: alpine().add_host("h", "1.2.3.4").add_host("i", "::1").run("x"),
    "run-ulimit": lambda: alpine().add_ulimit("nofile", 1, 2).with_cgroup_parent("/cg").run("x"),
    "run-network": lambda: alpine().with_network(llb.NetMode.HOST).run("x"),
    "run-security": lambda: alpine().with_security(llb.SecurityMode.INSECURE).run("x"),
    "run-exit-codes": lambda: alpine().run("x", using=alpine().with_valid_exit_codes(0, 300)),
    "run-proxy": lambda: alpine().run("x", proxy=llb.ProxyEnv(http_proxy="a", no_proxy="b")),
    "run-readonly": lambda: alpine().run("x", readonly_root=True, mounts=[llb.BindMount("/out")]).at("/out"),
    "run-platform": lambda: alpine().run(
        "x", constraints=Constraints(platform=Platform("linux", "arm", "v7"))
    ),
    "mounts-root": mounts,
    "mounts-b": lambda: mounts().at("/b"),
    "mounts-a": lambda: mounts().at("/a"),
    "mount-cache": lambda: alpine().run(
        "x",
        mounts=[
            llb.CacheMount("/c", "id", llb.CacheSharing.LOCKED),
            llb.CacheMount("/d", "e", llb.CacheSharing.PRIVATE, context(), "/p"),
        ],
    ),
    "mount-tmpfs": lambda: alpine().run("x", mounts=[llb.TmpfsMount("/t", 100), llb.TmpfsMount("/u")]),
    "mount-discard": lambda: alpine().run("x", mounts=[llb.BindMount("/n", context(), discard=True)]),
    "mount-content": lambda: alpine().run(
        "x",
        mounts=[
            llb.BindMount("/n", context(), content_cache=llb.MountContentCache.OFF),
            llb.BindMount("/m", context(), readonly=True, content_cache=llb.MountContentCache.ON),
        ],
    ),
    "secret": lambda: alpine().run(
        "x", secrets=[llb.Secret("id", "/s", uid=1, gid=2, mode=0o600, optional=True)]
    ),
    "secret-env": lambda: alpine().run(
        "x", secrets=[llb.Secret("TOKEN", env="TOKEN"), llb.Secret("q", env="Q")]
    ),
    "ssh": lambda: alpine().run("x", ssh=[llb.SSH(), llb.SSH("k", "/sock", 1, 2, 0o644, optional=True)]),
    "device": lambda: alpine().run("x", devices=[llb.CDIDevice("v/c=d", optional=True)]),
    "mkdir": lambda: alpine().with_dir("/w").file(llb.mkdir("d", 0o700, parents=True, owner="app:5")),
    "mkfile": lambda: llb.scratch().file(
        llb.mkfile("/f", "hello", 0o644, owner=(1, 2), created=5 * 10**9 + 7)
    ),
    "symlink": lambda: llb.scratch().file(llb.symlink("/old", "/new", owner="root")),
    "rm": lambda: alpine().file(llb.rm("/f*", allow_not_found=True, allow_wildcard=True)),
    "copy": lambda: alpine().file(llb.copy(context(), "a", "/b/")),
    "copy-options": lambda: (
        alpine()
        .with_dir("/w")
        .file(
            llb.copy(
                context().with_dir("/d"),
                "a",
                "b/.",
                mode=0o755,
                owner="1:2",
                created=9 * 10**9,
                follow_symlinks=True,
                contents_only=True,
                include=["i"],
                exclude=["e"],
                required=["r"],
                unpack=True,
                create_dest=True,
                wildcard=True,
                allow_empty_wildcard=True,
                replace_existing=True,
            )
        )
    ),
    "copy-mode-text": lambda: alpine().file(llb.copy(context(), "/a", "/b", mode="u+x")),
    "file-chain": lambda: alpine().file(
        llb.mkdir("/a").mkfile("/a/b", "x", 0o600).copy(context(), "/q", "/a/").rm("/z").symlink("/x", "/y")
    ),
    "file-with-state": lambda: llb.scratch().file(
        llb.copy(llb.mkdir("/foo").mkfile("/foo/x").on(alpine().with_dir("/k")), "foo", "/baz")
    ),
    "merge": lambda: llb.merge([alpine(), llb.scratch(), context(), llb.image("b")]),
    "merge-one": lambda: llb.merge([llb.scratch(), alpine()]),
    "diff": lambda: llb.diff(alpine(), alpine().run("x")),
    "diff-scratch-lower": lambda: llb.diff(llb.scratch(), alpine()),
    "diff-scratch-upper": lambda: llb.diff(alpine(), llb.scratch()),
    "build": lambda: context().build("f.llb"),
    "build-default": lambda: context().build(),
    "requires": lambda: alpine().requires("id", context(), llb.image("b")),
    "constraints": lambda: alpine().run(
        "x",
        name="n",
        constraints=Constraints(
            require=("foo==bar",),
            ignore_cache=True,
            export_cache=True,
            progress_group=ProgressGroup("g", "gn", weak=True),
            resources=LinuxResources(memory=5),
        ),
    ),
    "image-config": lambda: alpine().with_image_config(CONFIG).run("x"),
    "reset": lambda: (
        alpine()
        .with_dir("/x")
        .with_env("A", "1")
        .reset(llb.image("b").with_env("B", "2").with_dir("/y"))
        .run("x")
    ),
    "state-platform": lambda: alpine().with_platform("linux/arm").run("x"),
    "same-input-twice": lambda: alpine().run(
        "x",
        mounts=[llb.BindMount("/a", alpine(), readonly=True), llb.BindMount("/b", alpine(), readonly=True)],
    ),
    "scratch": llb.scratch,
    "no-args": lambda: alpine().run(),
    "tmpfs-as-parent": lambda: alpine().run("x", mounts=[llb.TmpfsMount("/t")]).at("/t").run("y"),
}


def marshal(name: str) -> llb.Definition:
    """A construct's definition, as it was measured."""
    require = ("all",) if name == "constraints" else ()
    return CONSTRUCTS[name]().marshal(
        platform="linux/amd64", unique_id="unique", constraints=Constraints(require=require)
    )


def test_every_measured_construct_is_here() -> None:
    """The table and the measurements name the same constructs."""
    assert set(CONSTRUCTS) == set(MEASURED)


@pytest.mark.parametrize("name", [name for name in MEASURED if "error" not in MEASURED[name]])
def test_construct_has_go_s_digests(name: str) -> None:
    """Ops, their order, and capabilities are those of the Go package."""
    definition = marshal(name)
    caps = {cap for meta in definition.meta.values() for cap in meta.caps}
    assert [Digest.of(op) for op in definition.ops] == MEASURED[name]["ops"]
    assert sorted(caps) == MEASURED[name]["caps"]


@pytest.mark.parametrize("name", [name for name in MEASURED if "error" in MEASURED[name]])
def test_construct_fails_in_go_s_words(name: str) -> None:
    """What the Go package refuses is refused with the same words."""
    with pytest.raises(DefinitionError) as caught:
        marshal(name)
    assert str(caught.value) == MEASURED[name]["error"]
