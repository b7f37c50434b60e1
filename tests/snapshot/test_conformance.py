"""What every snapshot driver does; all of it holds for overlay and for native."""

from __future__ import annotations

import shutil

import pytest

from bknb.errors import SnapshotError
from tests.snapshot.conftest import Lab, inside

WRITE = """
def write(path, data="", mode=0o644):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    open(path, "w").write(data)
    os.chmod(path, mode)
"""


def need_ids(lab: Lab) -> None:
    """Skips where every file belongs to one user."""
    if lab.shim.isolation.id_range == 1:
        pytest.skip("needs more than one user id")


async def test_a_step_sees_its_parent_and_adds_to_it(lab: Lab) -> None:
    """Files, modes, owners, links and devices of the parent are there; the parent is not changed."""
    need_ids(lab)
    await lab.step(
        "one", "", WRITE + "write('bin/sh', 'sh', 0o4755); os.symlink('sh', 'bin/ash'); os.chown('bin/sh', 3, 4); os.chmod('bin/sh', 0o4755);"
        "os.mknod('null', 0o20666, os.makedev(1, 3)); os.mkfifo('pipe'); os.link('bin/sh', 'hard')",
    )  # fmt: skip
    before = await lab.tree("one")
    await lab.step("two", "one", WRITE + "write('etc/x', 'x'); os.chmod('bin', 0o700)")
    assert await lab.tree("one") == before
    after = await lab.tree("two")
    assert before["bin/sh"]["owner"] == [3, 4] and before["bin/sh"]["mode"] == "0o104755"
    assert before["bin/ash"]["data"] == "sh" and before["null"]["data"] == 0x103
    assert after["bin"]["mode"] == "0o40700" and after["etc/x"]["data"] == "x"
    assert {path: after[path] for path in before if path != "bin"} == {
        path: before[path] for path in before if path != "bin"
    }


async def test_what_is_deleted_is_gone(lab: Lab) -> None:
    """Files, whole directories, and a directory that comes back empty."""
    await lab.step("one", "", WRITE + "write('a/b/c'); write('d/e'); write('d/f'); write('g')")
    await lab.step(
        "two",
        "one",
        WRITE + "import shutil; shutil.rmtree('a'); os.unlink('d/e'); shutil.rmtree('d'); os.mkdir('d')",
    )
    assert await lab.paths("two") == ["d", "g"]
    await lab.step("three", "two", WRITE + "write('d/h'); write('a')")
    assert await lab.paths("three") == ["a", "d", "d/h", "g"]


async def test_kinds_may_change(lab: Lab) -> None:
    """A directory becomes a file, a file a directory, a link a directory."""
    await lab.step("one", "", WRITE + "write('d/x'); write('f'); os.symlink('d', 'l')")
    await lab.step(
        "two", "one",
        WRITE + "import shutil; shutil.rmtree('d'); write('d', 'now a file'); os.unlink('f'); write('f/y');"
        "os.unlink('l'); write('l/z')",
    )  # fmt: skip
    assert await lab.paths("two") == ["d", "f", "f/y", "l", "l/z"]
    await lab.step("three", "two", WRITE + "os.unlink('d'); write('d/w')")
    assert await lab.paths("three") == ["d", "d/w", "f", "f/y", "l", "l/z"]


async def test_the_root_directory_keeps_its_metadata(lab: Lab) -> None:
    """Mode and owner of "/" are those of the parent."""
    need_ids(lab)
    await lab.step("one", "", "os.chmod('.', 0o1777); os.chown('.', 5, 6)")
    await lab.step("two", "one", "open('x', 'w')")
    shown = inside(
        await lab.snapshots.view("two"), "s = os.stat('.'); result = [oct(s.st_mode), s.st_uid, s.st_gid]"
    )
    assert shown == ["0o41777", 5, 6]


async def test_a_merge_lays_one_over_the_other(lab: Lab) -> None:
    """Later parents win, and deletions of a parent delete in the result."""
    await lab.step("base", "", WRITE + "write('a', '1'); write('d/x', '1'); write('d/y', '1')")
    await lab.step("left", "base", WRITE + "write('a', 'left'); os.unlink('d/x')")
    await lab.step("right", "", WRITE + "write('a', 'right'); write('d/x', 'right'); write('n')")
    await lab.snapshots.merge("lr", ["left", "right"])
    merged = await lab.tree("lr")
    assert sorted(merged) == ["a", "d", "d/x", "d/y", "n"]
    assert merged["a"]["data"] == "right" and merged["d/x"]["data"] == "right"
    await lab.snapshots.merge("rl", ["right", "left"])
    merged = await lab.tree("rl")
    assert sorted(merged) == ["a", "d", "d/y", "n"]
    assert merged["a"]["data"] == "left"
    await lab.step("on", "rl", WRITE + "write('d/x', 'again')")
    assert (await lab.tree("on"))["d/x"]["data"] == "again"


async def test_a_merge_may_name_a_layer_twice(lab: Lab) -> None:
    """Two parents that share their base are no special case."""
    await lab.step("base", "", WRITE + "write('a', 'base'); write('b', 'base')")
    await lab.step("left", "base", WRITE + "write('a', 'left')")
    await lab.step("right", "base", WRITE + "write('b', 'right')")
    await lab.snapshots.merge("m", ["left", "right"])
    merged = await lab.tree("m")
    assert merged["a"]["data"] == "base" and merged["b"]["data"] == "right"
    await lab.snapshots.merge("same", ["left", "left"])
    assert await lab.tree("same") == await lab.tree("left")


async def test_a_difference_to_an_ancestor_is_its_steps(lab: Lab) -> None:
    """Alone it shows what was added; merged it deletes what was deleted."""
    await lab.step("one", "", WRITE + "write('a'); write('d/x'); write('k/y')")
    await lab.step("two", "one", WRITE + "os.unlink('d/x'); write('d/n', 'n')")
    await lab.step("three", "two", WRITE + "import shutil; shutil.rmtree('k'); write('m')")
    await lab.snapshots.diff("delta", "one", "three")
    assert await lab.paths("delta") == ["d", "d/n", "m"]
    await lab.step("other", "", WRITE + "write('d/x', 'o'); write('k/z'); write('q')")
    await lab.snapshots.merge("applied", ["other", "delta"])
    assert await lab.paths("applied") == ["d", "d/n", "m", "q"]
    await lab.snapshots.merge("same", ["one", "delta"])
    assert await lab.tree("same") == await lab.tree("three")


async def test_a_difference_of_strangers_leads_from_one_to_the_other(lab: Lab) -> None:
    """Whatever the two are, lower merged with the difference is upper."""
    await lab.step(
        "one", "", WRITE + "write('a', '1'); write('d/x', 'x'); write('d/y'); write('f'); write('g/h')"
    )
    await lab.step(
        "two",
        "",
        WRITE + "write('a', '2'); write('d/x', 'x'); write('f/now'); write('g', 'file'); write('e/deep/er')",
    )
    await lab.snapshots.diff("delta", "one", "two")
    await lab.snapshots.merge("there", ["one", "delta"])
    assert await lab.tree("there") == await lab.tree("two")
    await lab.snapshots.diff("all", "", "two")
    assert await lab.tree("all") == await lab.tree("two")
    await lab.snapshots.diff("none", "two", "two")
    assert await lab.paths("none") == []
    await lab.snapshots.diff("less", "two", "")
    assert await lab.paths("less") == []
    await lab.snapshots.merge("empty", ["two", "less"])
    assert await lab.paths("empty") == []


async def test_names_and_states(lab: Lab) -> None:
    """stat, walk and usage tell what there is; wrong names are errors."""
    await lab.snapshots.prepare("writing")
    info = await lab.snapshots.stat("writing")
    assert info is not None and (info.kind, info.parents) == ("active", ())
    await lab.step("one", "", "open('big', 'wb').write(bytes(1 << 20))")
    await lab.step("two", "one", "open('x', 'w')")
    info = await lab.snapshots.stat("two")
    assert info is not None and (info.kind, info.parents) == ("committed", ("one",))
    assert [found.name for found in await lab.snapshots.walk()] == ["writing", "one", "two"]
    usage = await lab.snapshots.usage("one")
    assert usage.bytes >= 1 << 20 and usage.inodes == 2
    assert (await lab.snapshots.usage("two")).bytes < 1 << 16
    assert (await lab.snapshots.usage("writing")).inodes == 1
    assert await lab.snapshots.stat("nothing") is None
    for wrong in (
        lab.snapshots.prepare("one"), lab.snapshots.prepare("x", "nothing"), lab.snapshots.view("writing"),
        lab.snapshots.mounts("one"), lab.snapshots.commit("y", "one"), lab.snapshots.commit("one", "writing"),
        lab.snapshots.merge("m", ["nothing"]), lab.snapshots.usage("nothing"),
    ):  # fmt: skip
        with pytest.raises(SnapshotError):
            await wrong


async def test_what_others_stand_on_goes_with_the_last(lab: Lab) -> None:
    """A removed parent is hidden; its files go when no child is left."""
    await lab.step("one", "", "open('a', 'w')")
    await lab.step("two", "one", "open('b', 'w')")
    await lab.step("three", "two", "open('c', 'w')")
    await lab.snapshots.remove("one")
    await lab.snapshots.remove("two")
    assert await lab.snapshots.stat("one") is None
    assert await lab.paths("three") == ["a", "b", "c"]
    await lab.step("one", "three", "open('d', 'w')")
    await lab.snapshots.remove("one")
    await lab.snapshots.remove("three")
    assert lab.folders() == 0
    await lab.snapshots.remove("three")


async def test_what_is_gone_is_not_there(lab: Lab) -> None:
    """Whoever removed it, and however often it was asked for before; what nobody touched still is."""
    for name in ("one", "two", "three", "four"):
        await lab.step(name, "", "open('a', 'w')")
    everything = ["one", "two", "three", "four"]
    assert lab.snapshots.are_there(everything) and lab.snapshots.are_there(everything)
    assert not lab.snapshots.are_there([*everything, "five"])
    await lab.snapshots.remove("one")
    assert not lab.snapshots.are_there(everything) and lab.snapshots.are_there(everything[1:])
    other = await lab.again()
    await other.snapshots.remove("two")
    await other.snapshots.aclose()
    assert not lab.snapshots.are_there(everything[1:]) and lab.snapshots.are_there(everything[2:])
    shutil.rmtree(max((lab.root / "layers").iterdir(), key=lambda folder: int(folder.name)))
    assert not lab.snapshots.are_there(everything[2:]) and lab.snapshots.are_there(["three"])


async def test_a_writable_one_without_its_folder_is_not_there(lab: Lab) -> None:
    """A kernel was killed while it removed it."""
    await lab.snapshots.prepare_folder("kept")
    assert await lab.snapshots.stat("kept") is not None
    shutil.rmtree(max((lab.root / "layers").iterdir(), key=lambda folder: int(folder.name)))
    assert await lab.snapshots.stat("kept") is None


async def test_merges_keep_their_parents_files(lab: Lab) -> None:
    """So do differences."""
    await lab.step("one", "", "open('a', 'w')")
    await lab.step("two", "", "open('b', 'w')")
    await lab.snapshots.merge("m", ["one", "two"])
    await lab.snapshots.diff("d", "one", "m")
    for name in ("one", "two", "m"):
        await lab.snapshots.remove(name)
    assert await lab.paths("d") == ["b"]
    await lab.snapshots.remove("d")
    assert lab.folders() == 0


async def test_what_a_dead_kernel_was_writing_is_swept(lab: Lab) -> None:
    """A living kernel's is not; committed snapshots stay."""
    other = await lab.again()
    await other.step("kept", "", "open('a', 'w')")
    await other.snapshots.prepare("unfinished", "kept")
    third = await lab.again()
    assert await lab.snapshots.stat("unfinished") is not None
    other.snapshots._owner.release()  # what the end of its process does
    await lab.snapshots.sweep()
    assert await lab.snapshots.stat("unfinished") is None
    assert await lab.paths("kept") == ["a"]
    assert lab.folders() == 1
    await third.snapshots.aclose()


async def test_a_folder_without_a_row_is_swept(lab: Lab) -> None:
    """Nothing on disk is unaccounted for."""
    (lab.root / "layers" / "4711" / "fs" / "deep").mkdir(parents=True)
    await lab.snapshots.sweep()
    assert lab.folders() == 0
