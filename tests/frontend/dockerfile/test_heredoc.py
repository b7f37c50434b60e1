"""Announcements of here-documents."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from bknb.frontend.dockerfile.heredoc import _SPLIT, heredocs_of_line, parse_heredoc


@given(st.text(alphabet="<<<<-1E_. \t\r\v\f\xa0\x85aé\u3000\ufffd"))
@example("RUN 3<<-E <<\t F<<G <<<H <<")
def test_the_fast_way_cuts_as_the_slow_one(line: str) -> None:
    """A line without quotes, variables and escapes is cut by a pattern: into the same words."""
    words = _SPLIT.process_words(line, {})
    assert heredocs_of_line(line) == [h for word in words if "<<" in word and (h := parse_heredoc(word))]


def test_form_of_an_announcement() -> None:
    """Descriptor, tabs and name; a quoted name leaves the body alone."""
    (found,) = heredocs_of_line("RUN 3<<-EOF cat")
    assert (found.name, found.chomp, found.expand, found.fd) == ("EOF", True, True, 3)
    (quoted,) = heredocs_of_line("RUN <<'E F' cat")
    assert (quoted.name, quoted.expand) == ("E F", False)
