"""The frontend's options."""

from __future__ import annotations

import pytest

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.limits import parse_ulimit
from bknb.frontend.dockerfile.options import FrontendOptions, proxy_env
from bknb.llb.ops import HostIP, NetMode, Ulimit
from bknb.llb.vertex import LinuxResources
from bknb.platforms import Platform

AMD64 = Platform("linux", "amd64")


def test_options_are_read() -> None:
    """Each from the key that buildctl and buildx send."""
    options = FrontendOptions.parse(
        {
            "platform": "aarch64,linux/arm",
            "build-arg:A": "1",
            "label:l": "2",
            "add-hosts": "H=1.2.3.4,i=::ffff:5.6.7.8",
            "shm-size": "64",
            "ulimit": "nofile=1:2,core=-1",
            "memory": "5",
            "memswap": "-1",
            "cpusetcpus": "0-2,4",
            "force-network-mode": "none",
            "build-arg:BUILDKIT_SANDBOX_HOSTNAME": "box",
            "no-cache": "a,B",
        },
        AMD64,
    )
    assert options.platforms == (Platform("linux", "arm64"), Platform("linux", "arm", "v7"))
    assert options.multi_platform
    assert dict(options.labels) == {"l": "2"}
    assert options.extra_hosts == (HostIP("h", "1.2.3.4"), HostIP("i", "5.6.7.8"))
    assert options.ulimits == (Ulimit("nofile", 1, 2), Ulimit("core", -1, -1))
    assert options.resources == LinuxResources(memory=5, memory_swap=-1, cpuset_cpus="0-2,4")
    assert (options.network, options.hostname, options.shm_size) == (NetMode.NONE, "box", 64)
    assert [options.ignores_cache(name) for name in ("A", "b", "c", "")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ({"platform": "a/b/c/d"}, "failed to parse target platform a/b/c/d"),
        ({"image-resolve-mode": "x"}, "invalid image-resolve-mode: x"),
        ({"add-hosts": "h"}, "failed to parse additional hosts: invalid key-value pair h"),
        ({"add-hosts": "h=x"}, "failed to parse additional hosts: failed to parse IP x"),
        ({"shm-size": "1k"}, 'failed to parse shm size: strconv.ParseInt: parsing "1k": invalid syntax'),
        ({"ulimit": "nofile=3:2"}, "failed to parse ulimit: ulimit soft limit must be less than or equal"),
        ({"memory": "0"}, "failed to parse resource limits: invalid memory value: 0: must be > 0"),
        ({"cpusetmems": "x"}, "failed to parse resource limits: invalid cpusetmems value: x"),
        ({"force-network-mode": "bridge"}, "invalid netmode bridge"),
        ({"multi-platform": "x"}, "invalid boolean value for multi-platform: x"),
        ({"multi-platform": "0", "platform": "linux/amd64,linux/arm64"}, "conflicting config"),
        ({"cache-imports": "{"}, "failed to unmarshal cache-imports"),
        ({"override-copy-image": "x"}, "was removed in BuildKit 0.11"),
    ],
)
def test_a_wrong_option_is_one_line(opts: dict[str, str], words: str) -> None:
    """In BuildKit's words."""
    with pytest.raises(DockerfileError) as caught:
        FrontendOptions.parse(opts, AMD64)
    assert words in caught.value.message


@pytest.mark.parametrize("text", ["nofile", "x=1", "nofile=1:2:3", "nofile=a", "nofile=-1:5"])
def test_a_wrong_ulimit_is_refused(text: str) -> None:
    """Form, name, numbers and their order."""
    with pytest.raises(DockerfileError):
        parse_ulimit(text)


def test_of_two_spellings_of_a_proxy_the_later_in_byte_order_wins() -> None:
    """Capitals come first, so small letters win."""
    found = proxy_env({"http_proxy": "b", "HTTP_PROXY": "a", "NO_PROXY": "n", "other": "o"})
    assert found is not None
    assert (found.http_proxy, found.no_proxy) == ("b", "n")
    assert proxy_env({"x": "y"}) is None
