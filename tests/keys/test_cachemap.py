"""Cache maps: what is in a key and what is not; the measured digests are in conformance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bknb.errors import DefinitionError
from bknb.keys import op_cache_map
from bknb.keys.cachekey import derived_key, root_key
from bknb.keys.selectors import outermost
from bknb.llb.marshal import Definition, vertex
from bknb.llb.ops import (
    BuildOp,
    CacheOpt,
    ExecOp,
    FileAction,
    FileOp,
    HostIP,
    Meta,
    MkDirAction,
    Mount,
    MountContentCache,
    MountType,
    Op,
    PassthroughOp,
    ProxyEnv,
    SourceOp,
)
from bknb.llb.vertex import Edge, OpMetadata
from bknb.platforms import Platform

AMD64 = Platform("linux", "amd64")
RUN = ExecOp(Meta(("x",), cwd="/"), (Mount(dest="/"),))


def digest(op: Op, inputs: int = 1, platform: Platform = AMD64) -> str:
    """The digest of an op's cache map."""
    return op_cache_map(op, inputs, platform).digest


def test_what_does_not_count() -> None:
    """Proxies, IPs of extra hosts and ids of cache mounts are not in the key of an exec."""
    assert RUN.meta is not None
    proxy = replace(RUN, meta=replace(RUN.meta, proxy_env=ProxyEnv(http_proxy="p")))
    assert digest(proxy) == digest(RUN)
    hosts = [
        replace(RUN, meta=replace(RUN.meta, extra_hosts=(HostIP("h", ip),))) for ip in ("1.1.1.1", "2.2.2.2")
    ]
    assert digest(hosts[0]) == digest(hosts[1]) != digest(RUN)
    caches = [
        replace(
            RUN,
            mounts=(
                *RUN.mounts,
                Mount(-1, dest="/c", output=-1, type=MountType.CACHE, cache_opt=CacheOpt(id)),
            ),
        )
        for id in ("a", "b", "/c")
    ]
    assert digest(caches[0]) == digest(caches[1]) != digest(caches[2])


def test_what_counts() -> None:
    """Arguments and the platform are in the key; an unnormalised platform is not another one."""
    assert digest(replace(RUN, meta=Meta(("y",), cwd="/"))) != digest(RUN)
    assert digest(RUN, platform=Platform("linux", "arm64")) != digest(RUN)
    assert digest(RUN, platform=Platform("linux", "arm64", "v8")) == digest(
        RUN, platform=Platform("linux", "arm64")
    )


def test_the_last_mount_of_an_input_decides() -> None:
    """Content counts where the last mount of an input cannot be written to."""
    mounts = Mount(1, dest="/a", selector="/p", output=-1), Mount(1, dest="/b", selector="/q", output=1)
    one = op_cache_map(replace(RUN, mounts=(Mount(dest="/"), *mounts)), 2, AMD64)
    other = op_cache_map(replace(RUN, mounts=(Mount(dest="/"), *reversed(mounts))), 2, AMD64)
    assert one.deps[1].content is None
    assert other.deps[1].content is not None and [s.path for s in other.deps[1].content] == ["/p", "/q"]


@pytest.mark.parametrize(
    ("op", "said"),
    [
        (ExecOp(None), "no meta"),
        (ExecOp(Meta(("x",))), "no mounts"),
        (replace(RUN, mounts=(Mount(7, dest="/"),)), "invalid mount input"),
        (
            replace(RUN, mounts=(Mount(selector="/x", dest="/", content_cache=MountContentCache.ON),)),
            "invalid mount cache content",
        ),
        (PassthroughOp(outputs=(0,)), "no id"),
        (PassthroughOp("x"), "no outputs"),
        (PassthroughOp("x", (5,)), "index 5"),
        (SourceOp("local://x"), "what it resolves to"),
    ],
)
def test_invalid_ops(op: Op, said: str) -> None:
    """What BuildKit refuses is refused in one line."""
    with pytest.raises(DefinitionError, match=said):
        op_cache_map(op, 1, AMD64)


def test_a_definition_inside() -> None:
    """The key of a build op covers the definition in it, whatever order its maps have on the wire."""
    actions = FileOp((FileAction(-1, -1, 0, MkDirAction("/a", 0o755)),))
    edge = Edge(vertex(actions, meta=OpMetadata(description={"a": "1", "b": "2"})))
    data = Definition.from_edge(edge).to_bytes()
    one = op_cache_map(BuildOp(-1, {}, data), 0, AMD64)
    assert '"description":{"a":"1","b":"2"}' in one.plaintext
    with pytest.raises(DefinitionError):
        op_cache_map(BuildOp(-1, {}, b"\xff\xff"), 0, AMD64)


def test_names_of_keys() -> None:
    """A name is the same wherever the same work is done, and volatile where nothing lasting leads to it."""
    assert root_key("sha256:a", 0) != root_key("sha256:a", 1)
    pairs = [("sha256:x", ""), ("random:y", "")]
    assert derived_key("sha256:d", 0, [pairs]) == derived_key("sha256:d", 0, [pairs[::-1]])
    assert derived_key("sha256:d", 0, [[("random:y", "")]]).startswith("random:")


def test_outermost_paths() -> None:
    """A path below another is left out; a longer name is not below a shorter one."""
    assert outermost(["/foo/bar/baz", "/foo/bara", "/foo/bar/bax", "/foo/bar"]) == ["/foo/bar", "/foo/bara"]
    assert outermost(["/", "/foo"]) == ["/"]
