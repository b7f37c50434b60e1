"""Layers as blobs: both snapshot drivers, a real shim, a real content store."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bknb.content import DiskContentStore
from bknb.digest import Digest
from bknb.errors import ContentError, UnsupportedError
from bknb.layers import ShimLayers
from bknb.layers.compress import decompressed
from bknb.protocols import Compression, Descriptor, LayerBlob
from tests.conftest import need
from tests.snapshot.conftest import Lab, inside, lab, shim

__all__ = ["lab", "shim"]  # fixtures

STEP = """
def write(path, data="", mode=0o644):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    open(path, "w").write(data)
    os.chmod(path, mode)
"""


@pytest.fixture
def content(tmp_path: Path) -> DiskContentStore:
    """An empty store."""
    return DiskContentStore(tmp_path / "content")


@pytest.fixture
async def layers(lab: Lab, content: DiskContentStore) -> AsyncIterator[ShimLayers]:
    """The maker of blobs."""
    made = ShimLayers(lab.shim, content)
    yield made
    made.close()


async def blob_of(
    lab: Lab, layers: ShimLayers, name: str, compression: Compression | None = None
) -> LayerBlob:
    """A snapshot's layer as a blob."""
    directory = await lab.snapshots.layer(name)
    assert directory is not None
    return await layers.create(directory, compression or Compression())


def tar_of(content: DiskContentStore, blob: LayerBlob) -> tarfile.TarFile:
    """A blob, read by Python's own tar."""
    data = Path(content.path(blob.descriptor.digest)).read_bytes()
    return tarfile.open(fileobj=io.BytesIO(b"".join(decompressed(iter([data])))))


async def test_a_layer_is_what_its_step_changed(
    lab: Lab, layers: ShimLayers, content: DiskContentStore
) -> None:
    """Added, changed and deleted files, with the directories on the way and nothing else."""
    await lab.step("one", "", STEP + "write('a/keep'); write('a/gone'); write('b/x'); write('c/d/e')")
    await lab.step(
        "two", "one", STEP + "os.unlink('a/gone'); write('b/new', 'n', 0o600); os.chown('b/new', 7, 8);"
        "import shutil; shutil.rmtree('c'); os.symlink('x', 'b/link'); open('a/keep', 'a').close()",
    )  # fmt: skip
    blob = await blob_of(lab, layers, "two")
    with tar_of(content, blob) as tar:
        assert tar.getnames() == ["a", "a/.wh.gone", "b", "b/link", "b/new", ".wh.c"]
        new = tar.getmember("b/new")
        assert (new.uid, new.gid, new.mode, new.uname) == (7, 8, 0o600, "")
    assert blob.descriptor.media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
    data = content.read(blob.descriptor.digest)
    assert Digest.of(gzip.decompress(data)) == blob.diff_id and blob.descriptor.size == len(data)
    assert blob.compressor


async def test_an_opaque_directory_is_told_file_by_file(
    lab: Lab, layers: ShimLayers, content: DiskContentStore
) -> None:
    """A directory that was removed and made again deletes what was in it, and only that."""
    await lab.step("one", "", STEP + "write('d/x'); write('d/y'); write('d/e/f'); write('d/e/g')")
    await lab.step(
        "two", "one", STEP + "import shutil; shutil.rmtree('d'); write('d/y', 'new'); write('d/e/g', 'new')"
    )
    with tar_of(content, await blob_of(lab, layers, "two")) as tar:
        assert tar.getnames() == ["d", "d/e", "d/e/.wh.f", "d/e/g", "d/.wh.x", "d/y"]


@pytest.mark.parametrize("kind", ["gzip", "zstd", "uncompressed"])
async def test_diff_then_apply_is_identity(
    lab: Lab, layers: ShimLayers, content: DiskContentStore, kind: str
) -> None:
    """Whatever a step did, its layer does to its parent."""
    await lab.step("one", "", STEP + "write('a/b', 'b'); write('c', 'c'); write('d/e'); os.symlink('a', 's')")
    await lab.step(
        "two", "one",
        STEP + "import shutil; shutil.rmtree('a'); write('a', 'file'); os.unlink('c'); write('c/dir');"
        "os.unlink('s'); write('s/t'); os.mkfifo('p'); os.mknod('null', 0o20666, os.makedev(1, 3));"
        "write('suid', 'x', 0o644); os.chown('suid', 9, 9); os.chmod('suid', 0o6755); os.link('suid', 'twin');"
        "write('long/' + 'n' * 200 + '/' + 'm' * 100, 'deep'); write('ünï/ç', 'u');"
        "write('big', 'x' * 3000000); os.chmod('d', 0o711); os.utime('d', (5, 6))",
    )  # fmt: skip
    blob = await blob_of(lab, layers, "two", Compression(kind))
    mounts = await lab.snapshots.prepare("again", "one")
    await layers.apply(blob, mounts)
    await lab.snapshots.commit("applied", "again")
    assert await lab.tree("applied") == await lab.tree("two")
    again = await blob_of(lab, layers, "applied", Compression(kind))
    assert again.diff_id == blob.diff_id


async def test_capabilities_travel(lab: Lab, layers: ShimLayers, content: DiskContentStore) -> None:
    """They are the one extended attribute that BuildKit puts into a layer."""
    value = "0100000200040000000000000000000000000000"
    code = f"os.setxattr('ping', 'security.capability', bytes.fromhex('{value}')); os.setxattr('ping', 'user.x', b'')"
    await lab.step("one", "", STEP + "write('ping');" + code)
    blob = await blob_of(lab, layers, "one")
    with tar_of(content, blob) as tar:
        (member,) = tar.getmembers()
        assert [key for key in member.pax_headers if "xattr" in key] == ["SCHILY.xattr.security.capability"]
    mounts = await lab.snapshots.prepare("again")
    await layers.apply(blob, mounts)
    assert inside(mounts, "result = os.getxattr('ping', 'security.capability').hex()") == value


async def test_equal_steps_are_equal_blobs(lab: Lab, layers: ShimLayers) -> None:
    """Nothing but the files goes into a blob."""
    code = STEP + "write('a/b', 'x'); [os.utime(p, (1, 1)) for p in ('a/b', 'a')]"
    await lab.step("one", "", code)
    await lab.step("two", "", code)
    assert (await blob_of(lab, layers, "one")).descriptor == (await blob_of(lab, layers, "two")).descriptor


async def test_a_layer_of_nothing_is_an_empty_archive(lab: Lab, layers: ShimLayers) -> None:
    """BuildKit's empty layer has the same diff_id."""
    await lab.step("one", "", "")
    blob = await blob_of(lab, layers, "one")
    assert blob.diff_id == "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


async def test_a_layer_is_buildkits_byte_for_byte(lab: Lab, layers: ShimLayers) -> None:
    """The digest is of the layer that BuildKit (73ed6825c) makes of this tree by COPY, uncompressed."""
    await lab.step(
        "one", "", STEP + "n, m, q, z = 'n' * 90, 'm' * 90, 'q' * 160, 'z' * 120\n"
        "write('d/a', 'hi\\n', 0o4755); os.mkdir('d/e'); os.symlink('a', 'd/l'); write(f'{n}/{m}/f', 'x\\n')\n"
        "write('ünï', 'u\\n'); write(f'{q}/{z}', 'y\\n'); os.mkfifo('fifo', 0o644)\n"
        "for path in reversed(list(show())): os.utime(path, (0, 1577934245.678), follow_symlinks=False)\n"
        "os.utime('fifo', (0, 1577836800))",
    )  # fmt: skip
    blob = await blob_of(lab, layers, "one", Compression("uncompressed"))
    assert blob.diff_id == "sha256:577d55b709029f21b2c1424f2bd57f2b8c910963ab948ae84b61cabe3b6ea5f5"


async def test_another_compression_has_the_same_tar(
    lab: Lab, layers: ShimLayers, content: DiskContentStore
) -> None:
    """Converting keeps the diff_id."""
    await lab.step("one", "", STEP + "write('a', 'a' * 100000)")
    blob = await blob_of(lab, layers, "one")
    other = await layers.convert(blob, Compression("zstd", 9))
    assert other.diff_id == blob.diff_id
    assert other.descriptor.media_type.endswith("+zstd") and "level 9" in other.compressor
    back = await layers.convert(other, Compression("gzip", 9))
    assert "zlib" in back.compressor and zlib.decompress(content.read(back.descriptor.digest), 31)
    with pytest.raises(UnsupportedError, match="estargz"):
        await layers.convert(blob, Compression("estargz"))


async def test_times_are_clamped(lab: Lab, layers: ShimLayers, content: DiskContentStore) -> None:
    """rewrite-timestamp: nothing is later than the epoch, earlier times stay."""
    await lab.step("one", "", STEP + "write('old'); write('new/' + 'n' * 120); os.utime('old', (100, 100))")
    blob = await layers.clamp(await blob_of(lab, layers, "one"), Compression(), 1_000_000)
    with tar_of(content, blob) as tar:
        assert {member.name[:3]: member.mtime for member in tar} == {"old": 100, "new": 1_000_000}


async def test_gnu_tar_reads_a_layer(
    lab: Lab, layers: ShimLayers, content: DiskContentStore, tmp_path: Path
) -> None:
    """A program written elsewhere lists what Python's tar lists."""
    await lab.step(
        "one", "", STEP + "write('a/b', 'b'); os.link('a/b', 'h'); write('l' * 150 + '/' + 'm' * 120)"
    )
    blob = await blob_of(lab, layers, "one")
    asked = [need("tar"), "-tzf", content.path(blob.descriptor.digest)]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True, start_new_session=True).stdout
    assert listed.split() == ["a/", "a/b", "h", "l" * 150 + "/", "l" * 150 + "/" + "m" * 120]


def archive(*members: tuple[str, bytes, str]) -> bytes:
    """A tar made by Python: (name, type, link or content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
            else:
                info.linkname = text
                tar.addfile(info)
    return out.getvalue()


async def apply(
    lab: Lab, layers: ShimLayers, content: DiskContentStore, data: bytes, parent: str = ""
) -> list[str]:
    """Unpack an archive over a snapshot; the paths afterwards."""
    blob = LayerBlob(Descriptor("", content.put(data), len(data)), Digest.of(data))
    mounts = await lab.snapshots.prepare("applying", parent)
    try:
        await layers.apply(blob, mounts)
        await lab.snapshots.commit("applied", "applying")
        return await lab.paths("applied")
    finally:
        await lab.snapshots.remove("applying")
        await lab.snapshots.remove("applied")


async def test_no_archive_leaves_its_root(
    lab: Lab, layers: ShimLayers, content: DiskContentStore, tmp_path: Path
) -> None:
    """Dots, absolute names, and links that lead out stay inside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    regular, link, hard = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    assert await apply(lab, layers, content, archive(("../../x", regular, "x"), ("/abs/y", regular, "y"))) == [
        "abs", "abs/y", "x",
    ]  # fmt: skip
    data = archive(("out", link, str(outside)), ("out/new", regular, "n"), ("out/.wh.secret", regular, ""))
    inside = str(outside).strip("/")
    assert f"{inside}/new" in await apply(lab, layers, content, data)
    assert [path.name for path in outside.iterdir()] == ["secret"]
    for data in (
        archive(("l", link, str(outside)), ("h", hard, "l/secret")),
        archive(("h", hard, str(outside / "secret"))),
        archive(("f", regular, ""), ("f/g", regular, "")),
        archive((".wh...", regular, "")),
    ):
        with pytest.raises(ContentError):
            await apply(lab, layers, content, data)
    assert (outside / "secret").read_text() == "s"


async def test_whiteouts_of_an_archive(lab: Lab, layers: ShimLayers, content: DiskContentStore) -> None:
    """One name, and all that is below but not brought by the layer itself, in any order."""
    await lab.step(
        "one", "", STEP + "write('a/x'); write('a/y'); write('d/old'); write('d/sub/old'); write('k')"
    )
    regular = tarfile.REGTYPE
    data = archive(
        ("a/.wh.x", regular, ""), ("d/sub/new", regular, ""), ("d/.wh..wh..opq", regular, ""),
        ("d/z", regular, ""), (".wh.nothing", regular, ""),
    )  # fmt: skip
    assert await apply(lab, layers, content, data, "one") == [
        "a",
        "a/y",
        "d",
        "d/sub",
        "d/sub/new",
        "d/z",
        "k",
    ]


async def test_damaged_layers_are_refused(lab: Lab, layers: ShimLayers, content: DiskContentStore) -> None:
    """Cut short, no tar, wrong diff_id, absurd headers: one line each, and nothing is kept."""
    good = archive(("a", tarfile.REGTYPE, "a" * 5000))
    huge = bytearray(archive(("a", tarfile.XHDTYPE, "")))
    huge[124:136] = b"77777777777\0"
    for data in (
        good[:2000], gzip.compress(good)[:100], b"no tar" * 1000, bytes(huge), b"\x28\xb5\x2f\xfd" + b"junk" * 99,
        gzip.compress(good) + b"garbage",
    ):  # fmt: skip
        with pytest.raises(ContentError):
            await apply(lab, layers, content, data)
    blob = LayerBlob(Descriptor("", content.put(good), len(good)), Digest.of(b"other"))
    mounts = await lab.snapshots.prepare("applying")
    with pytest.raises(ContentError, match="its image says"):
        await layers.apply(blob, mounts)


def test_several_members_are_one_stream() -> None:
    """Concatenated gzip members, in chunks of any size, with zeros at the end."""
    data = gzip.compress(b"one" * 1000) + gzip.compress(b"two" * 1000) + bytes(100)
    for size in (1, 7, 100000):
        chunks = iter([data[at : at + size] for at in range(0, len(data), size)])
        assert b"".join(decompressed(chunks)) == b"one" * 1000 + b"two" * 1000
