"""Git addresses in a Dockerfile and as contexts (frontend/dockerfile/dfgitutil/git_ref.go)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.gotext import parse_bool, quote
from bknb.llb.giturl import GitURL
from bknb.llb.url import URL

_FLAGS = ("submodules", "keep-git-dir", "fetch-by-commit")


@dataclass(frozen=True, slots=True)
class GitRef:
    """A repository and what of it.

    Attributes:
        remote: the repository's address.
        ref: commit, tag or branch; "" for the default branch.
        checksum: the commit that it must be.
        subdir: folder in it.
        like_local: it looks like a local path (``github.com/x/y``), and is one save for a main context.
        keep_git_dir, submodules: None where the address does not say.
        mtime: ``checkout`` or ``commit``; "" where the address does not say.
        fetch_by_commit: trust `checksum`, and do not ask the remote for the ref.
    """

    remote: str
    ref: str = ""
    checksum: str = ""
    subdir: str = ""
    like_local: bool = False
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    mtime: str = ""
    fetch_by_commit: bool = False


def parse_git_ref(text: str) -> GitRef | None:
    """Read an address; None if it is not git's.

    Raises:
        DockerfileError: it is git's, and its query is wrong.

    >>> parse_git_ref("https://github.com/moby/buildkit.git?tag=v1&subdir=docs").ref
    'refs/tags/v1'
    """
    if text.startswith(("./", "../")):
        return None
    like_local = text.startswith("github.com/")
    try:
        url = GitURL.from_url(_https(text)) if like_local else GitURL.parse(text)
    except ValueError:
        return None
    if url is None:
        return None
    if not like_local and url.scheme in ("http", "https") and not url.path.endswith(".git"):
        return None
    remote = url.remote.partition("://")[2] if like_local else url.remote
    return _with_query(GitRef(remote, url.ref, "", url.subdir, like_local), url.query)


def _https(text: str) -> URL:
    return replace(URL.parse(text), scheme="https")


def is_git_source(text: str) -> bool:
    """Whether ADD takes a source for a repository."""
    try:
        return parse_git_ref(text) is not None
    except DockerfileError:
        return False


def is_http_source(text: str) -> bool:
    """Whether ADD takes a source for a file of the web."""
    return text.startswith(("http://", "https://")) and not is_git_source(text)


def _with_query(found: GitRef, query: Mapping[str, Sequence[str]]) -> GitRef:
    changes: dict[str, str | bool | None] = {}
    tag = branch = ""
    ref, subdir = found.ref, found.subdir
    for key, values in query.items():
        if len(values) > 1:
            raise DockerfileError(f"query {quote(key)} has multiple values")
        value = values[0]
        if not value and key not in _FLAGS:
            raise DockerfileError(f"query {quote(key)} has no value")
        match key:
            case "ref":
                ref = _agree("ref", ref, value)
            case "tag":
                tag = value
            case "branch":
                branch = value
            case "subdir":
                subdir = _agree("subdir", subdir, value)
            case "checksum" | "commit":
                changes["checksum"] = value
            case "keep-git-dir" | "submodules" | "fetch-by-commit":
                changes[key.replace("-", "_")] = _flag(key, value)
            case "mtime":
                if value not in ("checkout", "commit"):
                    raise DockerfileError(
                        f'invalid mtime value: {quote(value)} (must be "checkout" or "commit")'
                    )
                changes["mtime"] = value
            case _:
                raise DockerfileError(f"unexpected query {quote(key)}")
    if tag:
        ref = _agree("ref", ref, tag if tag.startswith("refs/tags/") else f"refs/tags/{tag}")
    if branch:
        if tag:
            raise DockerfileError("branch conflicts with tag")
        ref = _agree("ref", ref, branch if branch.startswith("refs/heads/") else f"refs/heads/{branch}")
    return replace(found, ref=ref, subdir=subdir, **changes)  # type: ignore[arg-type]


def _agree(what: str, known: str, value: str) -> str:
    if known not in ("", value):
        raise DockerfileError(f"{what} conflicts: {quote(known)} vs {quote(value)}")
    return value


def _flag(key: str, value: str) -> bool:
    if not value:
        return True
    found = parse_bool(value)
    if found is None:
        raise DockerfileError(f"invalid {key} value: {quote(value)}")
    return found
