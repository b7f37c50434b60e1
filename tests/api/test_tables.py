"""The cache as data, and cache mounts as files, over real builds."""

from __future__ import annotations

import gzip
import io
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

import bknb
from bknb.api import Build, Client, cache, load_mount, mounts, save_mount
from bknb.errors import SourceError, UsageError
from bknb.options import parse

DOCKERFILE = """FROM busybox
RUN echo one > /one
COPY kept /kept
RUN --mount=type=cache,id=packages,target=/var/cache/packages echo once >> /var/cache/packages/log && cp /var/cache/packages/log /log
"""


def build(client: Client, context: Path, *words: str, text: str = DOCKERFILE) -> Build:
    """One build, with the words of the command line."""
    return client.build(parse([*words, str(context)], prog="test", cell=False), dockerfile=text)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A folder with one file."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "kept").write_text("kept\n")
    return folder


def test_an_empty_cache_has_empty_tables(client: Client) -> None:
    """All columns are there before anything was built."""
    tables = cache(client)
    assert [
        len(table) for table in (tables.records, tables.keys, tables.links, tables.uses, tables.mounts)
    ] == [0] * 5
    assert {"hits", "saved", "seconds"} <= set(tables.records.columns)
    assert "0 records" in repr(tables)


def test_time_saved_and_never_used_are_a_line(client: Client, context: Path) -> None:
    """Two builds: what the second took from the first is in the table of uses, with the seconds that it saved."""
    first = build(client, context)
    second = build(client, context)
    build(client, context, text=DOCKERFILE.replace("echo one", "echo two"))
    tables = bknb.cache(client)
    uses = tables.uses[tables.uses.build == second.id]
    assert set(uses.command) == {
        step.command for step in second.steps if step.outcome in ("definition", "content")
    }
    ran = {step.command: step.view.duration for step in first.steps}
    assert dict(uses.groupby("command").saved.sum()) == pytest.approx(
        {command: ran[command] for command in uses.command}
    )
    records = tables.records[tables.records.kind == "regular"].set_index("description")
    (never,) = [row for text, row in records.iterrows() if "echo two" in str(text)]
    assert never.hits == 0 and never.saved == 0 and never["keys"] == 1
    (often,) = [row for text, row in records.iterrows() if "echo one" in str(text)]
    assert often.hits == 1 and often.saved == pytest.approx(often.seconds)
    assert set(tables.links.target) <= set(tables.keys.key)
    assert "never used by a later build" in repr(tables)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.zst"])
def test_a_cache_mount_goes_to_another_store(
    client: Client, context: Path, tmp_path: Path, suffix: str
) -> None:
    """What a step kept is written to a tar, pruned, and read back: the next step finds it there."""
    build(client, context)
    (mount,) = mounts(client).itertuples()
    assert mount.id == "packages" and mount.size > 0
    file = tmp_path / f"packages{suffix}"
    assert save_mount(client, "packages", str(file)).startswith(f"wrote {file}")
    bknb.prune(client, bknb.api.store.GCPolicy(all=True))
    assert not len(mounts(client))
    load_mount(client, "packages", str(file))
    again = build(client, context, "--no-cache")
    assert len(again.files.text("/log").splitlines()) == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_tar_of_another_tool_is_read(client: Client, context: Path, tmp_path: Path) -> None:
    """Python's own tar, compressed, becomes a cache mount; what it names twice or below itself is all there."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        info = tarfile.TarInfo("./log")
        info.size = 6
        archive.addfile(info, io.BytesIO(b"older\n"))
    (tmp_path / "made.tgz").write_bytes(gzip.compress(made.getvalue()))
    load_mount(client, "packages", str(tmp_path / "made.tgz"))
    assert build(client, context).files.text("/log").splitlines()[0] == "older"


def test_what_is_wrong_is_one_line(client: Client, context: Path, tmp_path: Path) -> None:
    """Unknown names, files that are none, tars that are none, and tars that lead out."""
    with pytest.raises(UsageError, match="there is no cache mount 'packages'; there are none yet"):
        save_mount(client, "packages", str(tmp_path / "x.tar"))
    build(client, context)
    with pytest.raises(UsageError, match="did you mean packages"):
        save_mount(client, "package", str(tmp_path / "x.tar"))
    with pytest.raises(UsageError, match=r"packages\.zip: a cache mount is written as a tar; end the name with \.tar"):
        save_mount(client, "packages", str(tmp_path / "packages.zip"))
    assert not (tmp_path / "packages.zip").exists()
    with pytest.raises(UsageError, match="cannot write"):
        save_mount(client, "packages", str(tmp_path / "none" / "x.tar"))
    with pytest.raises(UsageError, match="cannot read"):
        load_mount(client, "packages", str(tmp_path / "none"))
    (tmp_path / "text").write_text("no tar at all" * 100)
    with pytest.raises(SourceError, match="is no tar to fill a cache mount from"):
        load_mount(client, "packages", str(tmp_path / "text"))
    outside = tmp_path / "outside"
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        link = tarfile.TarInfo("way")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        info = tarfile.TarInfo("way/outside")
        archive.addfile(info, io.BytesIO())
    with suppress(SourceError):  # the link may be put there, the file never outside
        load_mount(client, "packages", str(tmp_path / "bad.tar"))
    assert not outside.exists()
