"""Digests in a Dockerfile and in options."""

from __future__ import annotations

import re

from bknb.digest import Digest
from bknb.errors import DockerfileError


def parse_checksum(text: str) -> str:
    """A digest, with go-digest's words for what is wrong with it.

    Raises:
        DockerfileError: it is none.
    """
    try:
        return Digest.parse(text)
    except ValueError:
        pass
    algorithm, colon, encoded = text.partition(":")
    if not colon or not re.fullmatch(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", text):
        raise DockerfileError("invalid checksum digest format")
    if algorithm not in ("sha256", "sha384", "sha512"):
        raise DockerfileError("unsupported digest algorithm")
    if len(encoded) != {"sha256": 64, "sha384": 96, "sha512": 128}[algorithm]:
        raise DockerfileError("invalid checksum digest length")
    raise DockerfileError("invalid checksum digest format")
