"""What stands behind each step, folded: lines of the Dockerfile, digests, keys, op, files, log."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from bknb.digest import Digest
from bknb.display import amounts
from bknb.display.ansi import plain, to_html
from bknb.display.boxes import lanes
from bknb.display.markup import CODE, PRE, QUIET, fill, fold, source_lines, step_name
from bknb.display.model import BuildView, State, StepView
from bknb.display.operation import describe
from bknb.display.palette import LOOKS

SMALLEST_STEP = 1000
"""Bytes that the details of any step take."""
_INTEREST = {State.FAILED: 0, State.RAN: 1, State.RUNNING: 1, State.MERGED: 1}

Files = Mapping[Digest, Sequence[str]]
"""What each step changed, a line for each file (``A /usr/bin/x``)."""


def details(view: BuildView, ops: Mapping[Digest, object], files: Files, room: int) -> str:
    """Folded details of each step, in the order of the build, as many as there is room for.

    Room is given by interest: what failed first, then what ran, then the others; logs are cut before
    steps are left out.
    """
    steps = [step for _, found in lanes(view.shown) for step in found]
    by_interest = sorted(steps, key=lambda s: _INTEREST.get(s.state, 2))
    share = max(2_000, room // (1 + sum(bool(s.log) for s in steps)))
    drawn: dict[Digest, str] = {}
    for step in by_interest:
        if room < SMALLEST_STEP:
            break
        budget = room if step.state is State.FAILED else min(max(share, room // 4), room)
        text = _step(view, step, ops.get(step.digest), files.get(step.digest, ()), budget)
        cost = len(text.encode("utf-8", "replace"))
        if cost > room:
            continue
        drawn[step.digest] = text
        room -= cost
    if not drawn:
        return ""
    body = "".join(drawn[step.digest] for step in steps if step.digest in drawn)
    left_out = len(steps) - len(drawn)
    if left_out:
        more = f"Details of {amounts.count(left_out, 'more step')}: "
        body += f'<div style="{QUIET}">{more}<code style="{CODE}">build["RUN …"].log</code></div>'
    return fold(
        "Steps in detail",
        "Dockerfile lines, digests, keys, logs",
        f'<div style="margin:4px 0 0 14px">{body}</div>',
        opened=bool(view.failed),
    )


def _step(view: BuildView, step: StepView, op: object | None, files: Sequence[str], budget: int) -> str:
    lines = step.log_bytes.count(b"\n")
    return fill(
        "step",
        {
            "open": " open" if step.state is State.FAILED else "",
            "sign": LOOKS[step.state].sign,
            "name": step_name(step, 110),
            "remark": f" · {amounts.count(lines, 'log line')}" if lines else "",
            "source": source_lines(view, step),
            "facts": _facts(step, op),
            "files": _files(files),
            "log": _log(step, budget - 5_000),
        },
    )


def _facts(step: StepView, op: object | None) -> str:
    facts = [("digest", step.digest), ("known to the cache as", step.solver_digest), ("result", step.result)]
    facts += [("key", key) for key in step.keys[:6]]
    if len(step.keys) > 6:
        facts.append(("keys", f"and {len(step.keys) - 6} more"))
    facts += [
        (f"waited for {wait.cause}", amounts.seconds(wait.ended - wait.started))
        for wait in step.waits[:6]
        if wait.ended is not None
    ]
    lines = [f"{name}: {plain(value)[:200]}" for name, value in facts if value]
    if op is not None:
        lines.append(plain(describe(op)))
    return f'<pre style="{PRE};background:none;padding:0;opacity:.8">{html.escape(chr(10).join(lines))}</pre>'


def _files(files: Sequence[str]) -> str:
    if not files:
        return ""
    shown = [html.escape(amounts.cut(plain(name), 160)) for name in files[:40]]
    more = f"\n… and {len(files) - 40} more: build.files" if len(files) > 40 else ""
    text = f'<pre style="{PRE}">{chr(10).join(shown)}{more}</pre>'
    return fold(amounts.count(len(files), "changed file"), "", text, opened=False)


def _log(step: StepView, budget: int) -> str:
    data = step.log_bytes
    if not data:
        return ""
    # Escapes and entities make text longer than the bytes it came from; six times is the worst.
    text, kept = to_html(data[-budget:] if budget > 0 else b""), len(data)
    while len(text.encode("utf-8", "replace")) > max(budget, 0) and kept > 400:
        kept = min(kept, max(budget, 0)) // 2
        text = to_html(data[-kept:].partition(b"\n")[2])
    said = ""
    if kept < len(data) or budget < len(data):
        call = html.escape(f'build.log("{amounts.short(step.digest, 12)}")')
        whole = f'<code style="{CODE}">{call}</code>'
        said = (
            f'<div style="{QUIET}">Only the end of {amounts.size(len(data))} is shown. Whole: {whole}</div>'
        )
    return f'{said}<pre style="{PRE};max-height:360px;overflow:auto">{text}</pre>'
