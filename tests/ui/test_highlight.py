"""A %%dockerfile cell is coloured as a Dockerfile."""

from __future__ import annotations

import pytest

from tests.ui.conftest import Lab, Server

pytestmark = pytest.mark.browser


def keywords(lab: Lab, index: int) -> list[str]:
    """The words that the editor colours as keywords."""
    found = lab.cell(index).locator(".cm-line span").all()
    weights = [(span.text_content(), span.evaluate("s => getComputedStyle(s).fontWeight")) for span in found]
    return [text for text, weight in weights if int(weight) >= 600]


def test_dockerfile_cell(lab: Lab, server: Server) -> None:
    """FROM and RUN are keywords in a %%dockerfile cell, `from` in a Python cell, and after the magic has gone."""
    server.write("colour.ipynb", ["%%dockerfile -t demo\nFROM scratch\nRUN make", "from os import path"])
    lab.open("colour.ipynb")
    lab.page.wait_for_function(
        "() => [...document.querySelectorAll('.jp-CodeCell .cm-line span')].some(s => s.textContent.trim() == 'RUN')"
    )
    assert [word.strip() for word in keywords(lab, 0)] == ["FROM", "RUN"]
    assert keywords(lab, 1) == ["from", "import"]
    lab.cell(1).locator(".cm-content").click()
    lab.page.keyboard.press("Control+A")
    lab.page.keyboard.type("%%dockerfile\nWORKDIR /x")
    lab.cell(1).locator(".cm-line span", has_text="WORKDIR").wait_for()
    lab.page.keyboard.press("Control+A")
    lab.page.keyboard.type("import os")
    lab.cell(1).locator(".cm-line span", has_text="import").wait_for()
    assert lab.complaints == []
