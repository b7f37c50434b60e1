"""The heat map of a replay: as a picture, as text, and with hostile names in it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

from bknb.display.heat import CACHED, NONE, OPEN, RAN, HeatColumn, HeatMap, HeatRow, svg, text
from bknb.display.replay import ReplayMove, ReplayView, render_html, render_text

SPACE = "{http://www.w3.org/2000/svg}"
VALUES = {"#": RAN, ".": CACHED, "?": OPEN, " ": NONE}


def row(name: str, cells: str, stage: str = "build", cost: str = "") -> HeatRow:
    """A row from its marks."""
    return HeatRow(stage, name, [VALUES[mark] for mark in cells], cells.count("#"), cells.count("?"), cost)


def heat(*rows: HeatRow, failed: int | None = None) -> HeatMap:
    """A map whose commits are a day apart."""
    count = len(rows[0].cells) if rows else 0
    return HeatMap(rows, [HeatColumn(f"{at:08x}", 86_400 * at, at == failed) for at in range(count)])


SMALL = heat(
    row("RUN npm ci", "#..#?", cost="12 s"),
    row("COPY . .", "#.## "),
    row("RUN top", "#..??", stage="stage-1"),
)


def rects(document: str, kind: str) -> list[ET.Element]:
    """What is drawn with one value."""
    return [one for one in ET.fromstring(document).iter(f"{SPACE}rect") if one.attrib.get("class") == kind]


def test_a_cell_for_each_commit_and_step() -> None:
    """Few commits: each its own cell, beside those of the legend; nothing lies outside of the picture."""
    drawn = svg(SMALL)
    assert [len(rects(drawn, kind)) - 1 for kind in ("r", "c", "u")] == [6, 5, 3]
    root = ET.fromstring(drawn)
    for one in root.iter(f"{SPACE}rect"):
        if "x" in one.attrib:
            assert float(one.attrib["x"]) >= 0 and float(one.attrib["x"]) + float(
                one.attrib["width"]
            ) <= float(root.attrib["width"])
    assert [e.text for e in root.iter(f"{SPACE}text") if e.text in ("≥ 12 s", "2–3", "build", "stage-1")] == [
        "build",
        "2–3",
        "≥ 12 s",
        "stage-1",
    ]


def paths(document: str, kind: str) -> int:
    """How many rectangles are drawn with one value, as parts of paths."""
    found = [one for one in ET.fromstring(document).iter(f"{SPACE}path") if one.attrib.get("class") == kind]
    return sum(one.attrib["d"].count("z") for one in found)


def test_many_commits_are_drawn_in_runs() -> None:
    """Neighbours of one value are one rectangle, so that a long history stays a small picture."""
    many = svg(heat(*(row(f"RUN {at}", "#" * 250 + "." * 199 + "#") for at in range(15))))
    assert paths(many, "r") == 15 * 2 and paths(many, "c") == 15
    assert ET.fromstring(many).attrib["width"] == "980" and len(many) < 20_000
    worst = svg(heat(*(row(f"RUN {at}", "#.?" * 180) for at in range(15))))
    assert paths(worst, "r") == 15 * 180 and len(worst) < 400_000
    apart = svg(heat(row("RUN x", "#" * 70)))
    assert paths(apart, "r") == 70


def test_a_very_long_history_is_squeezed() -> None:
    """A cell is then several commits, with the value that most of them have, and the legend says so."""
    long = svg(heat(row("RUN x", "#" * 3000 + "..#" * 1000 + "?" * 4000)))
    assert "a cell is 18 commits" in long and len(long) < 20_000
    assert (paths(long, "r"), paths(long, "c"), paths(long, "u")) == (1, 1, 1)


def test_values_have_words_and_textures() -> None:
    """The legend names what is there and nothing else; what is open is hatched; a commit that fails is a bar."""
    drawn = svg(SMALL)
    assert "known only at run time" in drawn and "cannot be built" not in drawn and "fill:url(#h)" in drawn
    plain = svg(heat(row("RUN x", "#.#"), failed=1))
    assert (
        "known only at run time" not in plain and "cannot be built" in plain and len(rects(plain, "x")) == 2
    )


def test_text() -> None:
    """A line for each row, stages named, ends of the history below."""
    assert text(SMALL, 60) == [
        "[build]",
        "  RUN npm ci  █··█?  2–3 runs, ≥ 12 s",
        "  COPY . .    █·██             3 runs",
        "[stage-1]",
        "  RUN top     █··??          1–3 runs",
        "              00000004",
        "█ would have run   · cached   ? known only at run time",
    ]


def test_text_of_many_commits_fits() -> None:
    """A character stands for several commits and says which share of them ran; no line is too long."""
    lines = text(
        heat(
            row("RUN x", "#" * 50 + "." * 100 + "#." * 25 + "?" * 50 + "#" * 50),
            row("RUN " + "y" * 300, "." * 300),
        ),
        80,
    )
    assert all(len(line) <= 80 for line in lines[:-1])
    marks = lines[1].split("  ")[-2].strip()
    assert marks[0] == "█" and "·" in marks and set("▃▄▅▆") & set(marks) and "?" in marks
    assert "a character is" in lines[-1]


def test_nothing_at_all() -> None:
    """No rows and no commits are no error."""
    assert ET.fromstring(svg(HeatMap((), ()))) is not None
    assert text(HeatMap((), ())) == []
    assert "<img" in render_html(ReplayView("No step", "would have run", HeatMap((), ())))


def test_names_are_anybody_s() -> None:
    """Markup, formulas, escape sequences and bytes that are no text are shown and do nothing."""
    evil = 'RUN echo "</text><script>x</script>" $a$ \x1b[31m \x00 \udcff ]]>'
    shown = heat(row(evil, "#.?", stage="<b>"))
    ET.fromstring(svg(shown))
    move = ReplayMove(
        "<i>t</i>",
        "saved $x$",
        ["<b>basis</b>"],
        "<u>",
        ["--- a", "+++ a", "@@ -1 +1 @@", f"-{evil}", "+<img src=x>"],
    )
    view = ReplayView("<s>", "\x1b]0;x\x07", shown, [move], ["<note>"])
    page = render_html(view)
    page.encode()
    for word in ("<script", "<b>basis", "<i>t", "<img src=x", "<u>", "<note>", "\x1b", "\x00"):
        assert word not in page
    said = render_text(view)
    assert "\x1b" not in said and "\x00" not in said and said.encode()


def test_a_page_says_what_would_be_saved() -> None:
    """Title, sums, lines that change in their colours, and what has to hold; of many changes the first four."""
    move = ReplayMove(
        "Copy first",
        "would have saved 9 runs",
        ["RUN x: 1 and not 10"],
        "x reads y",
        ["--- f", "+++ f", "@@ -1 +1 @@", " a", "-b", "+c"],
    )
    view = ReplayView(
        "9 %",
        "would have run",
        SMALL,
        [move, *[replace(move, title=f"no {at}") for at in range(5)]],
        ["Granted."],
    )
    for shown in (render_html(view), render_text(view)):
        assert all(
            words in shown
            for words in ("Copy first", "9 runs", "1 and not 10", "x reads y", "-b", "+c", "Granted.", "no 2")
        )
        assert "no 3" not in shown and "--- f" not in shown and "@@" not in shown
