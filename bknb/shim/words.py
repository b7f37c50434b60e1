"""Words of a configuration or command that the shim fills in; known to both ends."""

from __future__ import annotations

USER = '"@user@"'
"""In config.json: replaced by the user as JSON."""

ROOT_ONLY = "@root:"
"""In a command, before a word: it is left out unless the container's user is root."""
