"""The client's side of a build."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path

import pytest

from bknb.errors import SourceError, UsageError
from bknb.protocols import Credentials
from bknb.session import LocalSession, SecretSource
from bknb.session.local import parse_secret, parse_ssh


async def test_secrets_are_read_when_they_are_wanted(tmp_path: Path) -> None:
    """A file that changes gives its new bytes; an unknown id gives none."""
    file = tmp_path / "key"
    file.write_bytes(b"one")
    session = LocalSession(
        secrets={"key": SecretSource(file=str(file)), "env": SecretSource(env="E")}, environ={"E": "v"}
    )
    assert await session.secret("key") == b"one"
    file.write_bytes(b"two")
    assert await session.secret("key") == b"two"
    assert await session.secret("env") == b"v"
    assert await session.secret("other") is None


async def test_a_secret_that_is_missing_or_too_large_is_one_line(tmp_path: Path) -> None:
    """What cannot be read names the secret and the reason."""
    large = tmp_path / "large"
    large.write_bytes(b"x" * (500 * 1024 + 1))
    session = LocalSession(
        secrets={
            "a": SecretSource(file="/nowhere"),
            "b": SecretSource(env="NO"),
            "c": SecretSource(file=str(large)),
        },
        environ={},
    )
    for id, message in (
        ("a", "secret a: /nowhere cannot be read"),
        ("b", "variable NO is not set"),
        ("c", "at most 512000"),
    ):
        with pytest.raises(SourceError, match=message):
            await session.secret(id)


def test_secret_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forms of --secret that buildx takes."""
    monkeypatch.setenv("TOKEN", "t")
    assert parse_secret("id=k,src=/f") == ("k", SecretSource(file="/f"))
    assert parse_secret("id=k,env=TOKEN") == ("k", SecretSource(env="TOKEN"))
    assert parse_secret("id=TOKEN") == ("TOKEN", SecretSource(env="TOKEN"))
    assert parse_secret("type=file,id=k,source=/f") == ("k", SecretSource(file="/f"))
    for wrong in ("k", "src=/f", "id=k,sorce=/f", "id=k,type=vault"):
        with pytest.raises(UsageError, match="--secret"):
            parse_secret(wrong)


def test_a_secret_never_shows_in_a_repr() -> None:
    """The bytes of a secret stay out of logs."""
    assert "hunter2" not in repr(SecretSource(data=b"hunter2"))


def test_ssh_needs_a_socket(tmp_path: Path) -> None:
    """An agent is a socket; anything else is refused."""
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(path))
        assert parse_ssh("default", {"SSH_AUTH_SOCK": str(path)}) == ("default", str(path))
        assert parse_ssh(f"deploy={path}", {}) == ("deploy", str(path))
    with pytest.raises(UsageError, match="no agent is running"):
        parse_ssh("default", {})
    with pytest.raises(UsageError, match="not an agent's socket"):
        parse_ssh(f"x={tmp_path}", {})


async def test_logins_are_found_where_docker_keeps_them(tmp_path: Path) -> None:
    """Entries of config.json are found by host, those of Docker Hub under its old name."""
    auth = base64.b64encode(b"me:pass:word").decode()
    config = {
        "auths": {"reg.example:5000": {"auth": auth}, "https://index.docker.io/v1/": {"identitytoken": "tok"}}
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    session = LocalSession(environ={"DOCKER_CONFIG": str(tmp_path)})
    assert await session.credentials("reg.example:5000") == Credentials("me", "pass:word")
    assert await session.credentials("docker.io") == Credentials(token="tok")
    assert await session.credentials("other.example") is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"auths": 3}', '{"auths": {"h": {"auth": "%%%"}}}', '{"credHelpers": {"h": "../x"}}'],
)
async def test_a_broken_docker_config_counts_as_none(tmp_path: Path, text: str) -> None:
    """Whatever is in config.json, a build goes on without a login."""
    (tmp_path / "config.json").write_text(text)
    assert await LocalSession(environ={"DOCKER_CONFIG": str(tmp_path)}).credentials("h") is None
