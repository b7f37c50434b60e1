"""Keys of sources once they are resolved (the ``CacheKey`` methods of source/* in BuildKit).

Also what is read of their identifiers for that. Images have theirs in `bknb.oci.image`: by manifest, then by
layers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final

from bknb.digest import Digest
from bknb.errors import SourceError
from bknb.gojson import dumps, present
from bknb.keys.cachekey import VOLATILE
from bknb.keys.selectors import base_name
from bknb.llb.giturl import GitURL
from bknb.llb.url import URL

SESSION: Final = "session:"
_HEADERS: Final = {"accept": "Accept", "user-agent": "User-Agent"}


def source_digest(key: str) -> Digest:
    """The digest of a source's cache map (ops/source.go): one of a session's files matches nothing.

    >>> source_digest("session:x")[:7]
    'random:'
    """
    digest = Digest.of_text("buildkit.source.v0:" + key)
    return Digest(VOLATILE + digest.hex) if key.startswith(SESSION) else digest


def _integer(text: str) -> int:
    """A number as Go's strconv reads it with base 0: also 0755, 0o755, 0x1ed."""
    try:
        return int(text, 8) if re.fullmatch(r"[+-]?0[0-7_]+", text) else int(text, 0)
    except ValueError:
        raise SourceError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


@dataclass(frozen=True, slots=True)
class HttpSource:
    """An ``http(s)://`` source: what its key is made of beside the answer (source/http)."""

    url: str
    filename: str = ""
    perm: int = 0
    uid: int = 0
    gid: int = 0
    checksum: Digest | None = None
    auth_header_secret: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, identifier: str, attrs: Mapping[str, str]) -> HttpSource:
        """Read an identifier and its attributes.

        Raises:
            SourceError: an attribute that cannot be read.
        """
        try:
            checksum = Digest.parse(attrs["http.checksum"]) if "http.checksum" in attrs else None
        except ValueError as error:
            raise SourceError(str(error)) from None
        asked = (
            (_HEADERS.get(name.removeprefix("http.header.").lower()), value) for name, value in attrs.items()
        )
        return cls(
            identifier,
            attrs.get("http.filename", ""),
            _integer(attrs.get("http.perm", "0")),
            _integer(attrs.get("http.uid", "0")),
            _integer(attrs.get("http.gid", "0")),
            checksum,
            attrs.get("http.authheadersecret", ""),
            tuple(sorted((name, value) for name, value in asked if name is not None)),
        )

    def name(self, answered: str = "") -> str:
        """The name of the file: as asked for, as the answer says, or the last part of the address."""
        name = self.filename or (base_name(answered) if answered and not answered.endswith("/") else "")
        if not name:
            try:
                name = base_name(URL.parse(self.url).path)
            except ValueError:
                name = ""
        return safe_name(name)

    def key(self, filename: str, digest: Digest, last_modified: float | None = None) -> str:
        """The key of what was downloaded; `last_modified` in unix seconds where the server said one.

        With a checksum the key is known before anything is downloaded: nothing of the answer is in it.
        """
        if self.checksum is not None:
            digest, last_modified = self.checksum, None
        modified = "" if last_modified is None else formatdate(last_modified, usegmt=True)
        text = dumps({
            "Filename": filename, "Perm": self.perm, "UID": self.uid, "GID": self.gid, "Checksum": digest,
            **present(
                LastModTime=modified, AuthHeaderSecret=self.auth_header_secret,
                Header=[{"Name": name, "Value": value} for name, value in self.headers],
            ),
        })  # fmt: skip
        return Digest.of_text(text)


def safe_name(name: str) -> str:
    """A name that is one component of a path; ``download`` where it is none (util/pathutil)."""
    name = base_name(name)
    return "download" if name in ("", ".", "..", "/") else name


@dataclass(frozen=True, slots=True)
class GitSource:
    """A ``git://`` source (source/git)."""

    remote: str
    ref: str = ""
    subdir: str = ""
    keep_git_dir: bool = False
    skip_submodules: bool = False
    mtime: str = ""
    checkout_bundle: bool = False

    @classmethod
    def parse(cls, identifier: str, attrs: Mapping[str, str]) -> GitSource:
        """Read an identifier and its attributes.

        Raises:
            SourceError: no address of a repository.
        """
        url = GitURL.parse(_with_scheme(identifier.removeprefix("git://")))
        if url is None:
            raise SourceError(f"{identifier} is not the address of a git repository")
        remote = _with_scheme(attrs["git.fullurl"]) if "git.fullurl" in attrs else url.remote
        return cls(
            remote, url.ref, url.subdir, attrs.get("git.keepgitdir") == "true",
            attrs.get("git.skipsubmodules") == "true", attrs.get("git.mtime", ""),
            attrs.get("git.checkoutbundle") == "true",
        )  # fmt: skip

    def key(self, commit: str, ref: str) -> str:
        """The key of a commit that was found under a full ref name."""
        key = commit
        if self.keep_git_dir:
            key += ".git" + (f"#{ref}" if ref else "")
        if self.subdir:
            key += f":{self.subdir}"
        if self.skip_submodules:
            key += "(skip-submodules)"
        if self.mtime not in ("", "checkout"):
            key += f"(mtime={self.mtime})"
        return key + ("(bundle)" if self.checkout_bundle else "")


def _with_scheme(address: str) -> str:
    return address if GitURL.parse(address) is not None else f"https://{address}"


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A ``local://`` source: a folder of the client (source/local). None is a list that was not given."""

    name: str
    session: str = ""
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    follow: tuple[str, ...] | None = None
    shared_key_hint: str = ""
    metadata_only: bool = False
    metadata_exceptions: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, identifier: str, attrs: Mapping[str, str]) -> LocalSource:
        """Read an identifier and its attributes.

        Raises:
            SourceError: a list that is not one.
        """
        name, session = identifier.removeprefix("local://"), attrs.get("local.session", "")
        prefix, colon, rest = session.partition(":")
        if colon:
            name, session = f"{prefix}-{name}", rest
        return cls(
            name,
            session,
            _words(attrs.get("local.includepattern")),
            _words(attrs.get("local.excludepatterns")),
            _words(attrs.get("local.followpaths")),
            attrs.get("local.sharedkeyhint", ""),
            attrs.get("local.metadatatransfer", "").lower() in ("1", "t", "true"),
            _words(attrs.get("local.metadatatransferexclude")),
        )

    def key(self, session: str = "") -> str:
        """The key: of the session, so that no other build comes to it; `session` where the op says none."""
        text = dumps({
            "SessionID": self.session or session,
            "IncludePatterns": _listed(self.include),
            "ExcludePatterns": _listed(self.exclude),
            "FollowPaths": _listed(self.follow),
            **present(
                MetadataTransfer=self.metadata_only,
                MetadataExceptions=list(self.metadata_exceptions or ()),
            ),
        })  # fmt: skip
        return f"{SESSION}{self.name}:{Digest.of_text(text)}"


def _listed(words: tuple[str, ...] | None) -> list[str] | None:
    return None if words is None else list(words)


def _words(text: str | None) -> tuple[str, ...] | None:
    """A list of texts as JSON."""
    if text is None:
        return None
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise SourceError(_json_error(text)) from None
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise SourceError(f"not a list of texts: {text[:80]}")
    return tuple(found)


def _json_error(text: str) -> str:
    """Go's words for the first thing that is wrong."""
    stripped = text.lstrip(" \t\r\n")
    if not stripped:
        return "unexpected end of JSON input"
    for literal in ("null", "true", "false"):
        if stripped[0] == literal[0]:
            for place, (char, expected) in enumerate(zip(stripped, literal, strict=False)):
                if char != expected:
                    return f"invalid character '{char}' in literal {literal} (expecting '{literal[place]}')"
    if stripped[0] not in '[{"-0123456789':
        return f"invalid character '{stripped[0]}' looking for beginning of value"
    return f"not JSON: {text[:80]}"
