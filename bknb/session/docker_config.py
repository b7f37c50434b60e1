"""Registry logins where docker and podman keep them.

Looked up in ``$REGISTRY_AUTH_FILE``, ``$DOCKER_CONFIG/config.json`` and ``~/.docker/config.json``, first that knows
the host wins. Docker Hub's entry is called ``https://index.docker.io/v1/`` (docker/cli, cli/config).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from bknb.protocols import Credentials

_HUB = frozenset(("docker.io", "registry-1.docker.io", "index.docker.io"))
_HELPER = re.compile(r"[A-Za-z0-9_.-]+\Z")


async def credentials(host: str, environ: Mapping[str, str]) -> Credentials | None:
    """The login for a registry host, or None. A broken file or helper counts as none."""
    names = (
        ("https://index.docker.io/v1/", "docker.io", "index.docker.io")
        if host in _HUB
        else (host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/")
    )
    for path in _paths(environ):
        config = _read(path)
        helpers = config.get("credHelpers")
        for name in names:
            helper = helpers.get(name) if isinstance(helpers, dict) else None
            found = await _from_helper(helper or config.get("credsStore"), name) or _from_auths(
                config.get("auths"), name
            )
            if found is not None:
                return found
    return None


def _paths(environ: Mapping[str, str]) -> tuple[str, ...]:
    home = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME", ""), ".docker")
    return tuple(
        path for path in (environ.get("REGISTRY_AUTH_FILE", ""), os.path.join(home, "config.json")) if path
    )


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read(1 << 20))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _from_auths(auths: Any, name: str) -> Credentials | None:
    entry = auths.get(name) if isinstance(auths, dict) else None
    if not isinstance(entry, dict):
        return None
    if token := entry.get("identitytoken"):
        return Credentials(token=str(token))
    if entry.get("username"):
        return Credentials(str(entry["username"]), str(entry.get("password", "")))
    try:
        user, colon, password = base64.b64decode(str(entry.get("auth", ""))).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credentials(user, password.rstrip("\0")) if colon else None


async def _from_helper(helper: Any, name: str) -> Credentials | None:
    if not isinstance(helper, str) or not _HELPER.match(helper):
        return None
    try:
        process = await asyncio.create_subprocess_exec(
            f"docker-credential-{helper}", "get", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        async with asyncio.timeout(20):
            output, _ = await process.communicate(name.encode())
        value = json.loads(output)
        user, secret = str(value["Username"]), str(value["Secret"])
    except (OSError, TimeoutError, ValueError, KeyError, TypeError):
        return None
    return Credentials(token=secret) if user == "<token>" else Credentials(user, secret)
