"""The page that stays in the notebook."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from html.parser import HTMLParser

import pytest

from bknb.digest import Digest
from bknb.display import BuildView, fold_all, mimebundle, render_html
from bknb.display.html import LARGEST
from bknb.events import BuildEvent, LogEvent, Outcome, VertexEvent
from bknb.llb.ops import ExecOp, Meta
from tests.display import streams

Views = Callable[[str], BuildView]
NAMES = ["first", "edited", "cached", "failed", "running", "forty", "large", "hostile", "llb"]
ALLOWED = set("div span b code pre img table tr th td details summary a".split())


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def pictures(self) -> Iterator[str]:
        """The documents of the images."""
        for tag, attributes in self.tags:
            if tag == "img":
                yield base64.b64decode(
                    str(attributes["src"]).removeprefix("data:image/svg+xml;base64,")
                ).decode()


@pytest.mark.parametrize("name", NAMES)
def test_only_what_survives(view: Views, name: str) -> None:
    """A page has no style sheet, no script, no inline SVG and no variable; its images are whole documents."""
    text = render_html(view(name))
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= ALLOWED
    assert not re.search(r"var\(|<style|<script|<svg", text)
    for _, attributes in page.tags:
        assert set(attributes) <= {
            "class",
            "style",
            "title",
            "alt",
            "src",
            "open",
            "colspan",
            "scope",
            "href",
        }
    for picture in page.pictures():
        ET.fromstring(picture)
    assert len(text.encode()) < 200_000


def test_first_sentence(view: Views) -> None:
    """The first words answer what became of the build."""
    words = "".join(Page(render_html(view("edited"))).words)
    assert " ".join(words.split()).startswith("✓ demo:latest built in 2.5 s · 5 of 8 steps cached · ")
    assert "New or changed: COPY src/ src/; 2 steps after it ran too." in words


def test_no_chain_where_nothing_ran(view: Views) -> None:
    """Of a build that only looked at its context there is no longest chain of 0 steps."""
    assert "the longest chain, " in render_html(view("edited"))
    looked = BuildView()
    for number in (1, 2):
        looked = fold_all(
            looked,
            [
                VertexEvent(
                    Digest.of_text(str(number)), "[internal] load build context", kind="local",
                    started=1.0, completed=2.0, outcome=Outcome.RAN,
                )
            ],
        )  # fmt: skip
    text = render_html(fold_all(looked, [BuildEvent("b", 3.0, True)]))
    assert "longest chain" not in text and "Timeline" in text


def test_digests_are_whole_on_hover(view: Views) -> None:
    """Each row shows eight digits of its digest and has all of them as title."""
    page = Page(render_html(view("edited")))
    titles = [a["title"] for tag, a in page.tags if tag == "code" and "title" in a]
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", str(title)) for title in titles)
    assert len(titles) >= 10


def test_failed_step_is_open(view: Views) -> None:
    """The failed step, and only it, is open, with its log and the marker at its line."""
    text = render_html(view("failed"))
    opened = re.findall(r"<details open[^>]*><summary[^>]*>(.*?)</summary>", text)
    assert any("python -m build" in summary for summary in opened)
    assert sum("<b>" in summary for summary in opened) == 1
    assert "&gt;&gt;&gt; RUN python -m build" in text
    assert 'style="color:#d0453a">ModuleNotFoundError' in text


def test_what_was_withheld_and_warned(view: Views) -> None:
    """Files kept out of the context, warnings with their link, and remarks are said."""
    text = render_html(view("first"))
    assert "demo.ipynb" in text and "mirror 127.0.0.1:5000" in text
    assert 'href="https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"' in text


def test_hostile(view: Views) -> None:
    """Nothing of a hostile build leaves its text, in the page or in its pictures."""
    text = render_html(view("hostile"))
    assert "<script" not in text and "onerror=alert(1)>" not in text.replace("onerror=alert(1)&gt;", "")
    assert not set(text) & {"\x1b", "\x00", "\u202e"}
    for picture in Page(text).pictures():
        assert "<script" not in picture


def test_no_mathematics() -> None:
    """Dollars and backslashes of a command stand in elements of their own, where MathJax sees no formula."""
    name = r"[1/1] RUN echo $A \(x\) $B"
    digest = Digest.of_text("x")
    done = VertexEvent(digest, name, started=0.0, completed=1.0, outcome=Outcome.RAN)
    text = render_html(
        fold_all(BuildView(), [BuildEvent("b", 0.0, title="$t$"), done, BuildEvent("b", 1.0, True)])
    )
    outside = re.sub(r"<(pre|code)\b.*?</\1>|<[^>]*>", "\n", text, flags=re.DOTALL)
    assert not re.search(r"\$.*\$|\\[(\[]", outside)
    assert "echo $A \\(x\\) $B" in "".join(Page(text).words)


def test_large_logs_are_bounded() -> None:
    """A log of 50 MB leaves a page below the limit, that says how to see the rest."""
    digest = Digest.of_text("x")
    line = b"<&\x1b[31m" * 20 + b"\n"
    events = [
        BuildEvent("b", 0.0, title="t"),
        VertexEvent(digest, "[1/1] RUN x", started=0.0, completed=1.0, outcome=Outcome.RAN),
        LogEvent(digest, 1, line * 350_000, 0.5),
        BuildEvent("b", 1.0, True),
    ]
    text = render_html(fold_all(BuildView(), events))
    assert len(text.encode()) < LARGEST
    assert f"build.log(&quot;{digest.hex[:12]}&quot;)" in text
    Page(text)


def test_op_and_files(view: Views) -> None:
    """Details show the op and the files that a step changed, where they are given."""
    build = view("first")
    digest = Digest.of_text("mk")
    op = ExecOp(Meta(("/bin/sh", "-c", "python -m build"), cwd="/app"))
    text = render_html(build, definition={digest: op}, files={digest: ["A /app/dist/demo.whl"]})
    assert "cwd: /app" in text and "1 changed file" in text and "A /app/dist/demo.whl" in text


def test_bundle_has_text_too(view: Views) -> None:
    """Where there is no HTML there is text."""
    assert set(mimebundle(view("first"))) == {"text/plain", "text/html"}


def test_a_failure_without_a_step() -> None:
    """A build that failed before any step says why."""
    events = [
        BuildEvent("b", 0.0, title="t"),
        BuildEvent("b", 0.1, True, error="Dockerfile:3: unknown instruction"),
    ]
    assert "Dockerfile:3: unknown instruction" in render_html(fold_all(BuildView(), events))


@pytest.mark.parametrize("fresh", [12, 2000])
def test_two_thousand_steps(fresh: int) -> None:
    """A very large build keeps below the limit too, cached or not."""
    text = render_html(fold_all(BuildView(), streams.large(2000, fresh=fresh)))
    assert len(text.encode()) < 200_000
    Page(text)
