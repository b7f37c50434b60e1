"""A session whose client is this process."""

from __future__ import annotations

import asyncio
import os
import secrets as random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bknb.errors import SourceError, UsageError
from bknb.protocols import Credentials, LocalDirectory
from bknb.session import docker_config

SECRET_LIMIT = 500 * 1024
"""Largest secret in bytes, as in BuildKit (session/secrets/secretsprovider/store.go)."""


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret is read when a step wants it: an environment variable, a file, or these bytes."""

    env: str = ""
    file: str = ""
    data: bytes | None = field(default=None, repr=False)

    def check(self, name: str) -> None:
        """Whether the file is there, before anything is built (session/secrets/secretsprovider/store.go).

        Raises:
            SourceError: it is not, or is no file.
        """
        if self.file and not os.path.isfile(self.file):
            missing = "is not a file" if os.path.exists(self.file) else "is not there"
            raise SourceError(f"--secret id={name}: {self.file} {missing}")

    def read(self, name: str, environ: Mapping[str, str]) -> bytes:
        """The secret's bytes.

        Raises:
            SourceError: it cannot be read, or is too large.
        """
        if self.data is not None:
            return self.data
        if self.env:
            if self.env not in environ:
                raise SourceError(f"secret {name}: the environment variable {self.env} is not set")
            return environ[self.env].encode(errors="surrogateescape")
        try:
            data = Path(self.file).read_bytes()
        except OSError as error:
            raise SourceError(f"secret {name}: {self.file} cannot be read ({error.strerror})") from None
        if len(data) > SECRET_LIMIT:
            raise SourceError(
                f"secret {name}: {self.file} has {len(data)} bytes; a secret has at most {SECRET_LIMIT}"
            )
        return data


@dataclass(frozen=True, slots=True)
class LocalSession:
    """What a build in the kernel may ask of its notebook.

    Attributes:
        directories: by name, as the frontend calls them (``context``, ``dockerfile``, named contexts).
        secrets: by id.
        ssh: paths of agent sockets by id; ``default`` is the environment's.
        environ: where logins and secrets are looked up.
    """

    directories: Mapping[str, LocalDirectory] = field(default_factory=dict)
    secrets: Mapping[str, SecretSource] = field(default_factory=dict)
    ssh: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    id: str = field(default_factory=lambda: random.token_hex(13)[:25])

    async def local(self, name: str) -> LocalDirectory | None:
        """The folder that the client calls by this name."""
        return self.directories.get(name)

    async def secret(self, id: str) -> bytes | None:
        """A secret's bytes, or None if the client has none of this id."""
        source = self.secrets.get(id)
        return None if source is None else await asyncio.to_thread(source.read, id, self.environ)

    async def ssh_socket(self, id: str) -> str | None:
        """Path of an agent's socket, or None."""
        return self.ssh.get(id or "default")

    async def credentials(self, host: str) -> Credentials | None:
        """The login for a registry."""
        return await docker_config.credentials(host, self.environ)


def parse_secret(text: str) -> tuple[str, SecretSource]:
    """Read a ``--secret`` value: ``id=ID[,src=PATH|,env=NAME][,type=file|env]``.

    Without a source, the environment variable of that name is taken, else the file (docker/buildx, util/buildflags).

    Raises:
        UsageError: not of that form.
    """
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(
                f"--secret {text}: {part!r} is not key=value; write id=NAME,src=FILE or id=NAME,env=VARIABLE"
            )
        fields["src" if key in ("source", "src") else key] = value
    unknown = set(fields) - {"id", "src", "env", "type"}
    if unknown or not fields.get("id"):
        wrong = f"has an unknown key {sorted(unknown)[0]!r}" if unknown else "needs an id"
        raise UsageError(f"--secret {text}: it {wrong}; write id=NAME,src=FILE or id=NAME,env=VARIABLE")
    id = fields["id"]
    kind, source = fields.get("type", ""), fields.get("src", "")
    if kind not in ("", "file", "env"):
        raise UsageError(f"--secret {text}: type is file or env, not {kind!r}")
    if kind == "env" or "env" in fields:
        return id, SecretSource(env=fields.get("env") or source or id)
    if source or kind == "file":
        return id, SecretSource(file=os.path.abspath(os.path.expanduser(source or id)))
    return id, SecretSource(env=id) if id in os.environ else SecretSource(file=os.path.abspath(id))


def parse_ssh(text: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Read a ``--ssh`` value: ``default`` or ``ID[=SOCKET]``.

    Raises:
        UsageError: no socket is known, or it is not one.
    """
    id, equals, path = text.partition("=")
    if not equals:
        path = environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise UsageError(
                f"--ssh {text}: no agent is running (SSH_AUTH_SOCK is not set); write {id}=PATH of its socket"
            )
    if "," in path or not Path(path).is_socket():
        raise UsageError(f"--ssh {text}: {path} is not an agent's socket")
    return id or "default", os.path.abspath(path)
