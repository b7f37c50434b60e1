"""An answer to "why" as text and as a page."""

from __future__ import annotations

from bknb.display.answer import MOST_STEPS, Paragraph, Proof, as_html, as_text

ONE = Paragraph(
    "src/a.py changed", "src/a.py", "2 steps ran", [Proof("", ("-<b>", "+$x"))], ["COPY . .", "RUN a"],
    ["put .git in .dockerignore"],
)  # fmt: skip


def test_text_is_indented_below_each_title() -> None:
    """Title, proof, steps, hint; a long list of steps is cut."""
    assert as_text([ONE]).splitlines() == [
        "src/a.py changed: 2 steps ran", "    -<b>", "    +$x", "  • COPY . .", "  • RUN a",
        "  hint: put .git in .dockerignore",
    ]  # fmt: skip
    many = as_text([Paragraph("t", steps=[f"RUN {n}" for n in range(MOST_STEPS + 2)])])
    assert many.endswith("… and 2 more steps")


def test_a_page_shows_what_is_strong_and_escapes_the_rest() -> None:
    """Lines that went and came are tinted; nothing of a file becomes a tag."""
    page = as_html([ONE])
    assert "<b>src/a.py</b> changed" in page and "2 steps ran" in page and "Hint: put .git" in page
    assert "&lt;b&gt;" in page and page.count("background:rgba") >= 2
    assert page.count("<details open") == 1


def test_nothing_is_said_where_there_is_nothing() -> None:
    """No paragraph, no page."""
    assert as_html([]) == as_text([]) == ""


def test_no_terminal_obeys_what_a_file_says() -> None:
    """Control characters of a line of a file, a name, an instruction are spelled out; nothing else is touched."""
    said = as_text([Paragraph("a\x1b]0;x\x07", proofs=[Proof("n\udc80", ("+\x1b[31mred\tü",))], steps=["RUN \x9b2J"])])
    assert said.splitlines() == ["a\\x1b]0;x\\x07", "  n\\udc80", "    +\\x1b[31mred\tü", "  • RUN \\x9b2J"]
