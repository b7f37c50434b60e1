"""Keys of sources; the measured ones are in conformance."""

from __future__ import annotations

import pytest

from bknb.digest import Digest
from bknb.errors import SourceError
from bknb.keys.source import HttpSource, LocalSource, source_digest

SUM = "sha256:" + "a" * 64


def test_session_files_match_nothing() -> None:
    """Two sessions have two keys, and both are volatile."""
    keys = [LocalSource.parse("local://context", {"local.session": id}).key() for id in "ab"]
    assert keys[0] != keys[1] and all(source_digest(key).startswith("random:") for key in keys)


def test_a_checksum_is_the_key_before_anything_is_downloaded() -> None:
    """With a checksum the answer is not in the key."""
    source = HttpSource.parse("https://host/f", {"http.checksum": SUM})
    assert source.key("f", Digest("sha256:b"), 5.0) == source.key("f", Digest("sha256:c"))


@pytest.mark.parametrize(
    ("url", "asked", "answered", "name"),
    [
        ("https://h/a/b.txt?x=1", "", "", "b.txt"),
        ("https://h/", "", "", "download"),
        ("https://h/a", "", "../../etc/passwd", "passwd"),
        ("https://h/a", "", "x/", "a"),
        ("https://h/a", "..", "", "download"),
    ],
)
def test_names_of_downloads_are_one_component(url: str, asked: str, answered: str, name: str) -> None:
    """No server and no definition can name a file outside of its folder."""
    assert HttpSource.parse(url, {"http.filename": asked}).name(answered) == name


def test_wrong_attributes_are_one_line() -> None:
    """What cannot be read is a SourceError."""
    for attrs in ({"http.checksum": "x"}, {"http.uid": "x"}):
        with pytest.raises(SourceError):
            HttpSource.parse("https://h/a", attrs)
    for text in ("", "{}", "[1]", "nul", "x", "[" * 100_000):
        with pytest.raises(SourceError):
            LocalSource.parse("local://c", {"local.followpaths": text})
