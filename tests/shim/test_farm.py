"""Layer directories: what leads from one tree to another does so, however it is stacked, flattened or archived."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bknb.shim.farm import Farm, expand, measure, taken_down
from bknb.shim.marks import Marks, marks_of
from bknb.shim.owners import OnDisk
from bknb.shim.stack import Roots
from bknb.shim.tarwrite import LayerTar, Writer
from bknb.shim.unpack import Unpacker

SPELLINGS = ("trusted" if os.geteuid() == 0 else "user", "names")
NAMES = ("a", "b", "c")
Tree = dict[str, str | None]
"""Path -> content of a file, None for a directory, ``-> X`` for a link."""


def tidy(files: dict[str, str | None]) -> Tree:
    """A tree out of anything: what lies below a file is dropped, what is above is a directory."""
    found: Tree = {}
    for path in sorted(files):
        words = path.split("/")
        above = ["/".join(words[:count]) for count in range(1, len(words))]
        if all(found.get(folder) is None for folder in above):
            found.update(dict.fromkeys(above))
            found[path] = files[path]
    return found


paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
contents = st.sampled_from(["1", "2", None, "-> a", "-> ../b"])
trees = st.dictionaries(paths, contents, max_size=8).map(tidy)


def nothing() -> None:
    """Not cancelled."""


def write(tree: Tree, folder: Path) -> Path:
    """Put a tree on disk."""
    folder.mkdir()
    for path, content in tree.items():
        if content is None:
            (folder / path).mkdir(exist_ok=True)
        elif content.startswith("-> "):
            (folder / path).symlink_to(content[3:])
        else:
            (folder / path).write_text(content)
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (1, 1), follow_symlinks=False)  # no fractions: content decides
    return folder


def read(folder: Path) -> Tree:
    """A tree as it lies on disk."""
    found: Tree = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = None if path.is_dir() else path.read_text()
    return found


class Bench:
    """A folder in which trees and layers are made, under names of their own."""

    def __init__(self, folder: Path, spelling: str) -> None:
        self.folder = folder
        self.marks: Marks = marks_of(spelling)
        self._count = 0

    def new(self) -> Path:
        """A path that is free."""
        self._count += 1
        return self.folder / str(self._count)

    def tree(self, tree: Tree) -> Path:
        """A tree on disk."""
        return write(tree, self.new())

    def difference(self, lower: Sequence[Path], upper: Sequence[Path]) -> Path:
        """The layer between two stacks, bottom first."""
        target = self.new()
        target.mkdir()
        with Roots([str(target)], [str(p) for p in lower], [str(p) for p in upper]) as (
            (root,),
            below,
            above,
        ):
            farm = Farm(root, self.marks, nothing)
            farm.difference(below, above)
            farm.finish()
        return target

    def flatten(self, layers: Sequence[Path], below: Sequence[Path] = (), *, copying: bool = False) -> Path:
        """One layer out of several."""
        target = self.new()
        target.mkdir()
        with Roots([str(target)], [str(p) for p in layers], [str(p) for p in below]) as (
            (root,),
            stack,
            under,
        ):
            farm = Farm(root, self.marks, nothing, copying=copying)
            farm.flatten(stack, under)
            farm.finish()
        return target

    def shown(self, layers: Sequence[Path]) -> Tree:
        """What a stack shows."""
        return read(self.flatten(layers)) if layers else {}

    def apply(self, layer: Path, lower: Sequence[Path], target: Path) -> None:
        """Archive a layer, and unpack it over a tree."""
        reader, writer = os.pipe()

        def send() -> None:
            with Roots([str(layer)], [str(p) for p in lower]) as ((root,), below):
                LayerTar(Writer(writer), root, below, self.marks, OnDisk(), nothing).write()
            os.close(writer)

        thread = threading.Thread(target=send)
        thread.start()
        with Roots([str(target)]) as ((root,),):
            Unpacker(root, OnDisk(), nothing).run(reader)
        thread.join()
        os.close(reader)


@contextmanager
def bench(spelling: str) -> Iterator[Bench]:
    """An empty one; hypothesis wants a new one for each example."""
    folder = Path(tempfile.mkdtemp(prefix="bknb-farm-"))
    try:
        yield Bench(folder, spelling)
    finally:
        shutil.rmtree(folder)


fast = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(steps=st.lists(trees, min_size=1, max_size=4))
@fast
def test_a_stack_of_differences_shows_the_last_tree(spelling: str, steps: list[Tree]) -> None:
    """Whatever the steps did, also when the stack is flattened in the middle."""
    with bench(spelling) as b:
        layers: list[Path] = []
        for tree in steps:
            layers.append(b.difference(layers, [b.tree(tree)]))
            assert b.shown(layers) == tree
        for start in range(len(layers)):
            for end in range(start + 1, len(layers) + 1):
                flat = b.flatten(layers[start:end], layers[:start])
                assert b.shown([*layers[:start], flat, *layers[end:]]) == steps[-1]


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(before=trees, after=trees)
@fast
def test_diff_then_apply_is_identity(spelling: str, before: Tree, after: Tree) -> None:
    """The archive of a layer, unpacked over the tree before, gives the tree after."""
    with bench(spelling) as b:
        lower, upper = b.tree(before), b.tree(after)
        layer = b.difference([lower], [upper])
        b.apply(layer, [lower], lower)
        assert read(lower) == after


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(pairs=st.lists(st.tuples(trees, trees), min_size=1, max_size=3), base=trees)
@fast
def test_a_merge_is_applying_in_order(spelling: str, pairs: list[tuple[Tree, Tree]], base: Tree) -> None:
    """Layers laid over a base that they were not made for do what their archives do, one after the other."""
    with bench(spelling) as b:
        target = b.tree(base)
        applied = b.flatten([target], copying=True)
        layers = []
        for before, after in pairs:
            lower = b.tree(before)
            layer = b.difference([lower], [b.tree(after)])
            layers.append(layer)
            b.apply(layer, [lower], applied)
        assert b.shown([target, *layers]) == read(applied)
        flat = b.flatten(layers, [target])
        assert b.shown([target, flat]) == read(applied)


@given(before=trees, after=trees)
@fast
def test_what_was_not_touched_is_known(before: Tree, after: Tree) -> None:
    """A copied tree that is edited differs by the edit, told by inode and change time."""
    with bench("names") as b:
        lower = b.tree(before)
        copy = b.flatten([lower], copying=True)
        with Roots([str(copy)]) as ((root,),):
            known = taken_down(root, nothing)
        for path in sorted(read(copy), reverse=True):
            if path not in after or after[path] != before[path]:
                full = copy / path
                full.rmdir() if full.is_dir() and not full.is_symlink() else full.unlink()
        for path, content in after.items():
            full = copy / path
            if not full.is_symlink() and not full.exists():
                if content is None:
                    full.mkdir()
                elif content.startswith("-> "):
                    full.symlink_to(content[3:])
                else:
                    full.write_text(content)
        target = b.new()
        target.mkdir()
        with Roots([str(target)], [str(lower)], [str(copy)]) as ((root,), below, above):
            farm = Farm(root, b.marks, nothing, known=known)
            farm.difference(below, above)
            farm.finish()
        assert b.shown([lower, target]) == after


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_opaque_directory_becomes_whiteouts(spelling: str) -> None:
    """So that it deletes what its step deleted, and nothing else, wherever it is merged to."""
    with bench(spelling) as b:
        lower = b.tree({"d": None, "d/x": "1", "d/e": None, "d/e/y": "1", "d/e/z": "1"})
        layer = b.tree({"d": None, "d/e": None, "d/e/z": "2"})
        fd = os.open(layer / "d", os.O_RDONLY)
        b.marks.make_opaque(fd)
        os.close(fd)
        shown = b.shown([lower, layer])
        with Roots([str(layer)], [str(lower)]) as ((root,), below):
            made = measure(root, b.marks, nothing)
            assert made.opaque == ["d"]
            expand(root, below, "d", b.marks)
            made = measure(root, b.marks, nothing)
            assert made.opaque == [] and made.marks == 2
        assert b.shown([lower, layer]) == shown == {"d": None, "d/e": None, "d/e/z": "2"}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_flat_layer_has_no_marks_without_effect(spelling: str) -> None:
    """Overlayfs would show them in directories that are in one layer only."""
    with bench(spelling) as b:
        one, two = b.tree({"d": None, "d/x": "1", "d/y": "1"}), b.tree({"d": None, "d/y": "1"})
        layer = b.difference([one], [two])
        flat = b.flatten([one, layer])
        with Roots([str(flat)]) as ((root,),):
            assert measure(root, b.marks, nothing).marks == 0


def test_hardlinks_and_metadata_survive_a_copy(tmp_path: Path) -> None:
    """Two names of one file stay two names of one file; times, modes and attributes are kept."""
    b = Bench(tmp_path, "names")
    tree = b.tree({"a": "1", "d": None})
    os.link(tree / "a", tree / "d" / "twin")
    os.setxattr(tree / "a", "user.note", b"n")
    os.chmod(tree / "d", 0o1711)
    os.utime(tree / "d", (7, 7))
    copy = b.flatten([tree], copying=True)
    assert (copy / "a").stat().st_ino == (copy / "d" / "twin").stat().st_ino != (tree / "a").stat().st_ino
    assert os.getxattr(copy / "a", "user.note") == b"n"
    assert oct((copy / "d").stat().st_mode) == "0o41711" and (copy / "d").stat().st_mtime == 7
    linked = b.flatten([tree])
    assert (linked / "a").stat().st_ino == (tree / "a").stat().st_ino
