"""What a registry knows of its repositories, as small files: which blobs, manifests, tags and referrers."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from bknb.digest import Digest
from bknb.oci.types import OCI_MANIFEST, Descriptor, Index, Manifest

_KINDS = ("_blobs", "_manifests", "_referrers", "_tags")


class Repositories:
    """All repositories below one folder. The caller checks names: no part begins with ``_`` or ``.``."""

    def __init__(self, root: Path) -> None:
        self._root = root / "repositories"

    def repository(self, name: str) -> Repository:
        """One of them, whether it exists or not."""
        return Repository(name, self._root / name)

    def names(self) -> list[str]:
        """Those that have something in them."""
        found = {path.parent for kind in _KINDS for path in self._root.rglob(kind)}
        return sorted(str(path.relative_to(self._root)) for path in found)


class Repository:
    """One repository."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder

    @property
    def exists(self) -> bool:
        """Whether anything was ever put here."""
        return any((self._folder / kind).is_dir() for kind in _KINDS)

    def has_blob(self, digest: Digest) -> bool:
        return self._path("_blobs", digest).exists()

    def add_blob(self, digest: Digest) -> None:
        _write(self._path("_blobs", digest), "")

    def remove_blob(self, digest: Digest) -> bool:
        """Whether it was there."""
        return _remove(self._path("_blobs", digest))

    def manifest_type(self, digest: Digest) -> str | None:
        """The media type that it was pushed with; None if it is not here."""
        return _read(self._path("_manifests", digest))

    def add_manifest(self, digest: Digest, document: Manifest | Index, size: int) -> None:
        """Make a manifest known, and whom it refers to."""
        _write(self._path("_manifests", digest), document.media_type)
        if document.subject is not None:
            kind = document.artifact_type
            if not kind and isinstance(document, Manifest) and document.media_type == OCI_MANIFEST:
                kind = document.config.media_type
            entry = Descriptor(document.media_type, digest, size, document.annotations, artifact_type=kind)
            path = self._path("_referrers", document.subject.digest) / _name(digest)
            _write(path, json.dumps(entry.to_json()))

    def remove_manifest(self, digest: Digest) -> bool:
        """Remove it with its tags; whether it was there."""
        for tag in self.tags():
            if self.tag(tag) == digest:
                self.remove_tag(tag)
        for path in (self._folder / "_referrers").glob(f"*/{_name(digest)}"):
            _remove(path)
        return _remove(self._path("_manifests", digest))

    def tags(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self._folder / "_tags") if not name.startswith("."))
        return []

    def tag(self, name: str) -> Digest | None:
        text = _read(self._folder / "_tags" / name)
        return Digest(text) if text else None

    def set_tag(self, name: str, digest: Digest) -> None:
        _write(self._folder / "_tags" / name, digest)

    def remove_tag(self, name: str) -> bool:
        """Whether it was there."""
        return _remove(self._folder / "_tags" / name)

    def referrers(self, subject: Digest) -> list[dict[str, Any]]:
        """Descriptors of the manifests whose subject this is."""
        found = []
        for path in sorted(self._path("_referrers", subject).glob("*-*")):
            with contextlib.suppress(ValueError):
                found.append(json.loads(_read(path) or ""))
        return found

    def _path(self, kind: str, digest: Digest) -> Path:
        return self._folder / kind / _name(digest)


def _name(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.hex}"


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{secrets.token_hex(8)}"
    beside.write_text(text)
    os.replace(beside, path)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return False
    return True
