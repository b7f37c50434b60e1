"""Addresses of git repositories."""

from __future__ import annotations

import pytest

from bknb.llb.giturl import GitURL


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://user:pw@h.com:8/a.git#v1:d/../e", ("https", "h.com:8", "/a.git", "v1", "e")),
        ("git@h.com:o/r.git?x=1#main", ("ssh", "h.com", "o/r.git", "main", "")),
        ("ssh://git@h/x%20y", ("ssh", "h", "/x y", "", "")),
        ("git://h/p.git#:d", ("git", "h", "/p.git", "", "d")),
    ],
)
def test_an_address_is_cut(text: str, wanted: tuple[str, ...]) -> None:
    """Scheme, host, path, ref and folder."""
    url = GitURL.parse(text)
    assert url is not None
    assert (url.scheme, url.host, url.path, url.ref, url.subdir) == wanted


@pytest.mark.parametrize(
    "text", ["ftp://h/x", "h/x", "https://h:port/x.git", "https://h/%zz", "https://h\n/x", "", "a b"]
)
def test_what_git_does_not_take_is_none(text: str) -> None:
    """Other schemes, bad ports and escapes are no repositories."""
    assert GitURL.parse(text) is None
