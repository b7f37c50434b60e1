"""What a replay reads: commits, trees and blobs by git's plumbing, and content digests of files that lie nowhere."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bknb.analysis.replay.git import Blob, Repository
from bknb.analysis.replay.tree import ContextTree, Digests, mode_of
from bknb.cache.contenthash import Entry, Tree
from bknb.errors import PathError, SourceError, UsageError
from bknb.keys import ContentSelector
from bknb.shim.tarsum import header
from tests.histories import EPOCH, git, make, project
from tests.source.scanning import ContextFilter, scan

Files = Mapping[str, tuple[str, bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four commits: two files; an edit, a link and a rename; a file become a folder; nothing."""
    first: Files = {"a": ("100644", b"one"), "sub/b": ("100755", b"two")}
    second: Files = {"a": ("100644", b"1"), "sub/c": ("100755", b"two"), "link": ("120000", b"sub/c")}
    third: Files = {"a/x": ("100644", b"1"), "sub/c": ("100644", b"two"), "link": ("120000", b"sub/c")}
    repository = tmp_path / "r"
    make(repository, [("first", first), ("second", second), ("third", third), ("fourth\n\nand more", third)])
    return repository


@pytest.fixture
def repository(folder: Path) -> Iterator[Repository]:
    """That, open."""
    with Repository(str(folder)) as opened:
        yield opened


def test_commits_come_oldest_first(repository: Repository) -> None:
    """The last N, with time and first line; fewer where there are fewer."""
    found = repository.commits(50)
    assert [commit.subject for commit in found] == ["first", "second", "third", "fourth"]
    assert [commit.time for commit in found] == [EPOCH + 3600 * at for at in range(4)]
    assert repository.commits(2) == found[2:]
    assert repository.revisions(["main~2", found[0].short]) == (found[1], found[0])


def test_only_first_parents_count(folder: Path) -> None:
    """What a merge brought in is one step of the history."""
    git(folder, "config", "user.name", "T")
    git(folder, "config", "user.email", "t@x")
    git(folder, "checkout", "-q", "-f", "-b", "side", "main~1")
    git(folder, "commit", "-q", "--allow-empty", "-m", "aside")
    git(folder, "checkout", "-q", "-f", "main")
    git(folder, "merge", "-q", "--no-ff", "-m", "merged", "side")
    with Repository(str(folder)) as repository:
        assert [commit.subject for commit in repository.commits(3)] == ["third", "fourth", "merged"]


def test_changes_lead_from_tree_to_tree(repository: Repository) -> None:
    """Applied to the files of a commit they give those of the next, also where a commit is listed twice."""
    commits = repository.commits(4)
    walked = (*commits, commits[0], commits[2], commits[1], commits[0], commits[2])
    files = repository.files(walked[0])
    for commit, changes in zip(walked[1:], repository.changes(walked), strict=True):
        for path, blob in changes:
            if blob is None:
                del files[path]
            else:
                files[path] = blob
        assert files == repository.files(commit)


def test_a_folder_of_the_repository_is_a_context(folder: Path) -> None:
    """Paths are relative to it, its parent can still be read, and nothing outside of the repository."""
    with Repository(str(folder / ".git")) as bare:
        assert bare.prefix == "" and set(bare.files(bare.commits(1)[0])) == {"a/x", "sub/c", "link"}
    git(folder, "checkout", "-q", "-f", "main")
    with Repository(str(folder / "sub")) as below:
        commits = below.commits(4)
        assert set(below.files(commits[3])) == {"c"} and [
            len(changes) for changes in below.changes(commits)
        ] == [2, 1, 0]
        assert below.read(commits[3], "../a/x", 10) == b"1"
        assert (
            below.read(commits[3], "../../a", 10)
            is below.read(commits[3], "../../../etc/passwd", 9999)
            is None
        )


def test_files_are_read_through_links(repository: Repository) -> None:
    """A link inside of the repository is followed; a folder, a missing file and a strange name are none."""
    newest = repository.commits(1)[0]
    assert repository.read(newest, "link", 10) == b"two"
    assert [repository.read(newest, path, 10) for path in ("sub", "none", "a\nb", "sub/none", "a/x/y")] == [
        None
    ] * 5
    assert repository.read(newest, "link", 10) == b"two"  # each answer has been read to its end
    with pytest.raises(SourceError, match="at most 2 are read"):
        repository.read(newest, "link", 2)


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """Bytes of a path stay what they are, and a line's end in a name does not confuse."""
    name = os.fsdecode(b"caf\xe9\nx")
    make(tmp_path / "r", [("one", {name: ("100644", b"x")}), ("two", {name: ("100644", b"y")})])
    with Repository(str(tmp_path / "r")) as repository:
        commits = repository.commits(2)
        assert set(repository.files(commits[0])) == {name}
        assert [path for path, _ in repository.changes(commits)[0]] == [name]


def test_what_cannot_be_read_is_one_line(tmp_path: Path, repository: Repository) -> None:
    """No folder, no repository, no commits, no such revision, words that are options."""
    with pytest.raises(SourceError, match="not a folder"):
        Repository(str(tmp_path / "none"))
    (tmp_path / "plain").mkdir()
    with pytest.raises(SourceError, match="not a git repository"):
        Repository(str(tmp_path / "plain"))
    git(tmp_path / "empty", "init", "-q")
    with Repository(str(tmp_path / "empty")) as empty, pytest.raises(SourceError, match="no commits yet"):
        empty.commits(3)
    for word in ("nowhere", "--all", "", "a\nb", "HEAD:a", "main~2..main", "^main"):
        with pytest.raises(UsageError, match="is no revision"):
            repository.revisions([word])
    for number in (0, -1, 10**9):
        with pytest.raises(UsageError, match="cannot be replayed"):
            repository.commits(number)


def test_a_hook_s_environment_is_not_heeded(
    repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIT_DIR of another repository, as it is set inside of a hook, changes nothing."""
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nonexistent/index")
    with Repository(str(folder)) as opened:
        assert opened.commits(9) == repository.commits(9)


def test_missing_objects_are_one_line_and_not_fetched(folder: Path) -> None:
    """Of a clone that has no blobs nothing is fetched."""
    git(folder, "config", "uploadpack.allowFilter", "true")
    partial = folder.parent / "partial"
    git(folder, "clone", "-q", "--filter=blob:none", "--no-checkout", f"file://{folder}", str(partial))
    with Repository(str(partial)) as repository:
        files = repository.files(repository.commits(1)[0])
        with pytest.raises(SourceError):
            list(repository.digests([files["a/x"]], lambda blob, size: b""))


def test_large_blobs_are_hashed_in_parts(tmp_path: Path) -> None:
    """A digest is that of header and bytes, whatever the size; one after the other, many at once."""
    data = [bytes([at % 251]) * (at * 977 % 70_000) for at in range(300)] + [b"x" * 3_000_001, b""]
    make(tmp_path / "r", [("one", {str(at): ("100644", one) for at, one in enumerate(data)})])
    with Repository(str(tmp_path / "r")) as repository:
        files = repository.files(repository.commits(1)[0])
        blobs = [files[str(at)] for at in range(len(data))]
        found = list(repository.digests(blobs, lambda blob, size: b"h%d" % size))
        assert found == [hashlib.sha256(b"h%d" % len(one) + one).hexdigest() for one in data]


# --- content digests ----------------------------------------------------------------------------------------


def on_disk(folder: Path, exclude: list[str]) -> Tree:
    """The content hashes of a checkout as a build makes them: walked with its own walk, hashed where it lies."""
    entries = []
    for entry in scan(str(folder), ContextFilter(exclude=tuple(exclude))).entries:
        digest = ""
        if stat.S_ISREG(entry.mode):
            data = (folder / entry.path).read_bytes()
            digest = f"sha256:{hashlib.sha256(header(entry.mode, size=len(data)) + data).hexdigest()}"
        entries.append(
            (entry.path, Entry(entry.mode, size=entry.size, linkname=entry.linkname, digest=digest))
        )
    return Tree.of(entries)


SELECTORS = (
    (), (ContentSelector("/src"),), (ContentSelector("/docs/*.md", wildcard=True),), (ContentSelector("/data"), ContentSelector("/conf")),
    (ContentSelector("/conf/link", follow_links=True),), (ContentSelector("/src", include=("**/*.md",)),),
)  # fmt: skip
IGNORES = (
    [".git"],
    [".git", "src", "!src/main.txt"],
    [".git", "**/*.md", "!docs/page1.md"],
    [".git", "*", "!data", "!src/deep/**", "src/p*"],
)


def ask(tree: Tree | ContextTree, selectors: tuple[ContentSelector, ...]) -> str:
    """The digest, or the error."""
    try:
        return tree.digest(selectors)
    except PathError as error:
        return str(error)


@pytest.mark.parametrize("exclude", IGNORES, ids=lambda exclude: " ".join(exclude[1:]) or "all")
def test_digests_are_those_of_a_checkout(tmp_path: Path, exclude: list[str]) -> None:
    """Along a history, of every kind of selection, with every kind of pattern: what a checkout would have."""
    folder, work = tmp_path / "r", tmp_path / "work"
    make(folder, project(40, seed=7))
    with Repository(str(folder)) as repository:
        commits = repository.commits(40)
        digests = Digests(repository)
        tree = ContextTree(digests, repository.files(commits[0]), exclude)
        for number, (commit, changes) in enumerate(
            zip(commits, [[], *repository.changes(commits)], strict=True)
        ):
            tree.change(changes)
            if number % 3 and number < 30:
                continue  # changes of several commits come at once
            if number == 0:
                git(folder, "worktree", "add", "-q", "--detach", str(work), commit.id)
            git(work, "checkout", "-q", "--detach", commit.id)
            real = on_disk(work, exclude)
            for selectors in SELECTORS:
                assert ask(tree, selectors) == ask(real, selectors), (number, commit.subject, selectors)


NAMES = st.sampled_from(["a", "b", "a/x", "a/y", "a/x/p", "b/x", "b/x/q/r", "c/x", "c/y/z"])
PATTERNS = st.lists(
    st.sampled_from(
        ["a", "b/x", "!a/x", "!a/x/p", "*", "!b", "!**/x", "c/*", "!c/y/z", "**/y", "!c", "b/**", "!b/x/q"]
    ),
    max_size=4,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.dictionaries(NAMES, st.sampled_from(["1", "2"]), max_size=6), min_size=1, max_size=4),
    PATTERNS,
)
def test_patterns_choose_what_a_walk_chooses(
    tmp_path: Path, states: list[dict[str, str]], exclude: list[str]
) -> None:
    """The paths that are there after some changes are those that the walk of a folder finds, whatever is ignored."""

    class Fixed(Digests):
        def __init__(self) -> None:
            pass

        def find(self, blob: Blob) -> str:
            return f"sha256:{blob.id * 64}"

    before: dict[str, Blob] = {}
    tree = ContextTree(Fixed(), {}, exclude)
    for state in states:
        held = {path for path in state if any(other.startswith(path + "/") for other in state)}
        now = {path: Blob("100644", value) for path, value in state.items() if path not in held}
        gone = [(path, None) for path in before if path not in now]
        tree.change([*gone, *((path, blob) for path, blob in now.items() if before.get(path) != blob)])
        before = now
        root = tmp_path / "root"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for path in now:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        walked = {entry.path for entry in scan(str(root), ContextFilter(exclude=tuple(exclude))).entries}
        assert tree.paths() == walked
        fresh = ContextTree(Fixed(), now, exclude)
        assert tree.digest(()) == fresh.digest(())


def test_modes_are_those_of_a_checkout() -> None:
    """Files, executables, links, and submodules, which are empty folders."""
    modes = {
        mode: oct(mode_of(Blob(mode, ""))) for mode in ("100644", "100664", "100755", "120000", "160000")
    }
    assert modes == {
        "100644": "0o100644",
        "100664": "0o100644",
        "100755": "0o100755",
        "120000": "0o120777",
        "160000": "0o40755",
    }


def test_a_pattern_that_is_none_is_one_line(repository: Repository) -> None:
    """It is said of .dockerignore."""
    with pytest.raises(SourceError, match="dockerignore"):
        ContextTree(Digests(repository), {}, ["[-]"])
