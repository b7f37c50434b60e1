"""Which frontends named by ``# syntax=`` this one takes the place of."""

from __future__ import annotations

import re
from typing import Final

from bknb.errors import InvalidReference
from bknb.reference import Reference

#: The newest version of the language that is understood.
NEWEST: Final = (1, 26)
_NAMES: Final = ("docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream")
_VERSION: Final = re.compile(r"v?(\d{1,4})(?:\.(\d{1,4}))?(?:\.\d+)?(?:-rc\d+)?(?:-labs)?")
_CHANNELS: Final = ("latest", "labs", "master", "master-labs")


def runs_built_in(image: str) -> bool:
    """Whether an image is a release of BuildKit's Dockerfile frontend that this one is the equal of.

    >>> runs_built_in("docker/dockerfile:1.7"), runs_built_in("docker/dockerfile:1.99"), runs_built_in("x/y")
    (True, False, False)
    """
    try:
        reference = Reference.parse(image)
    except InvalidReference:
        return False
    if reference.name not in _NAMES:
        return False
    if not reference.tag:
        # Pinned by digest alone: which version it is, nobody can tell.
        return False
    if reference.tag in _CHANNELS:
        return True
    found = _VERSION.fullmatch(reference.tag)
    return found is not None and (int(found[1]), int(found[2] or 0)) <= NEWEST
