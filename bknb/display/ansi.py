"""Logs as commands write them, made fit for a page: colours kept, all that moves a cursor dropped.

A log is hostile input: whatever stands in it, the text that comes out holds no control character but newline
and tab, and the HTML no tag but ``<span style>`` and ``<b>``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

_ESCAPE = re.compile(
    r"\x1b\[(?P<sgr>[0-9;]*)m"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # other control sequences
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles, hyperlinks
    r"|\x1b[ -/]*[0-~]?"
)
# C0 without tab and newline, C1, and the marks that turn the direction of text around.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
# Mid-tones that read on white and on dark.
_COLOURS = ("#808894", "#d0453a", "#2f9e62", "#b07d10", "#3f7fd0", "#a85bc0", "#1f93a8", "#808894")


def plain(data: bytes | str) -> str:
    r"""The text alone.

    >>> plain(b"\x1b[31mred\x1b[0m 10%\r20%\r\n")
    '20%\n'
    """
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    return _CONTROL.sub("", _overwrite(_ESCAPE.sub("", text)))


def to_html(data: bytes | str) -> str:
    r"""The text as HTML, its colours as mid-tones.

    >>> to_html("\x1b[1;31m<b>\x1b[0m")
    '<b style="color:#d0453a">&lt;b&gt;</b>'
    """
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    return "".join(_spans(_overwrite(text)))


def _overwrite(text: str) -> str:
    """What a terminal shows after carriage returns: the last part of each line, as progress bars mean it."""
    text = text.replace("\r\n", "\n")
    if "\r" not in text:
        return text
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def _spans(text: str) -> Iterator[str]:
    colour, bold, at = "", False, 0
    for found in _ESCAPE.finditer(text):
        yield _span(text[at : found.start()], colour, bold)
        at = found.end()
        if found["sgr"] is not None:
            colour, bold = _attributes(found["sgr"], colour, bold)
    yield _span(text[at:], colour, bold)


def _attributes(codes: str, colour: str, bold: bool) -> tuple[str, bool]:
    numbers = [int(code[:4] or 0) for code in codes.split(";")]
    while numbers:
        code = numbers.pop(0)
        if code == 0:
            colour, bold = "", False
        elif code in (1, 22):
            bold = code == 1
        elif code == 39:
            colour = ""
        elif 30 <= code <= 37 or 90 <= code <= 97:
            colour = _COLOURS[code % 10]
        elif code in (38, 48):  # a colour of the long palettes: passed over, with its numbers
            del numbers[: 2 if numbers[:1] == [5] else 4]
    return colour, bold


def _span(text: str, colour: str, bold: bool) -> str:
    shown = html.escape(_CONTROL.sub("", text), quote=False)
    if not shown or not (colour or bold):
        return shown
    tag = "b" if bold else "span"
    return f'<{tag} style="color:{colour}">{shown}</{tag}>' if colour else f"<b>{shown}</b>"
