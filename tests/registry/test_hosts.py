"""Which addresses serve a name: BuildKit's rules."""

from __future__ import annotations

import pytest

from bknb.errors import RegistryError
from bknb.registry.hosts import endpoints, is_loopback
from bknb.settings import HostSettings

SETTINGS = {
    "docker.io": HostSettings(mirrors=("mirror.example", "127.0.0.1:5000/hub", "https://third.example/a/b/")),
    "mirror.example": HostSettings(http=True),
    "loose.example": HostSettings(insecure=True),
    "looser.example": HostSettings(insecure=True, http=True),
    "only.example": HostSettings(exclusive=True),
}


def test_mirrors_then_the_registry() -> None:
    """Mirrors in their order, with their own paths and settings; docker.io lives elsewhere."""
    found = [(e.schemes, e.host, e.path, e.note) for e in endpoints("docker.io", SETTINGS)]
    assert found == [
        (("http",), "mirror.example", "/v2", "mirror mirror.example"),
        (("http",), "127.0.0.1:5000", "/v2/hub", "mirror 127.0.0.1:5000"),
        (("https",), "third.example", "/v2/a/b", "mirror third.example"),
        (("https",), "registry-1.docker.io", "/v2", ""),
    ]
    assert [e.host for e in endpoints("docker.io", SETTINGS, push=True)] == ["registry-1.docker.io"]


@pytest.mark.parametrize(
    ("domain", "schemes"),
    [
        ("example.com", ("https",)),
        ("localhost:5000", ("http",)),
        ("127.0.0.1", ("http",)),
        ("loose.example", ("https",)),
        ("looser.example", ("https", "http")),
    ],
)
def test_schemes(domain: str, schemes: tuple[str, ...]) -> None:
    """Loopback is plain; `insecure` falls back to plain HTTP only where that is allowed."""
    (endpoint,) = endpoints(domain, SETTINGS)
    assert endpoint.schemes == schemes


def test_only_mirrors() -> None:
    """Where only mirrors may be asked and there is none, that is one line."""
    with pytest.raises(RegistryError, match=r"offline: only\.example has no mirror"):
        endpoints("only.example", SETTINGS)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True), ("localhost:1", True), ("127.9.9.9:5000", True), ("[::1]:5000", True),
        ("127.0.0.1.evil.example", False), ("localhost.example", False), ("10.0.0.1", False), ("", False),
    ],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    """Only this machine is this machine."""
    assert is_loopback(host) == expected
