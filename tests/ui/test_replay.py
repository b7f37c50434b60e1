"""The page of a replay in a browser: light, dark, narrow."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bknb.display.heat import CACHED, OPEN, RAN, HeatColumn, HeatMap, HeatRow
from bknb.display.replay import ReplayMove, ReplayView, render_html
from tests.ui.conftest import SHOTS

pytestmark = pytest.mark.browser

STEPS = (
    ("build", "WORKDIR /app", 0.0, ""), ("build", "RUN apt-get update && apt-get install -y --no-install-recommends build-essential", 0.02, "1 m 20 s"),
    ("build", "COPY . .", 0.7, "12 s"), ("build", "RUN npm ci", 0.7, "53 m 40 s"), ("build", "RUN npm run build", 0.7, "28 m 10 s"),
    ("stage-1", "RUN adduser -D app", 0.0, "0.4 s"), ("stage-1", "COPY --from=build /app/dist /srv", -1, ""), ("stage-1", "COPY docs /srv/docs", -0.5, "2.1 s"),
    ("stage-1", "RUN gzip -k /srv/docs/*", -0.5, "31 s"),
)  # fmt: skip
MOVE = ReplayMove(
    "Copy package.json and package-lock.json first", "would have saved 54 m 26 s: 142 runs in 200 commits",
    ["RUN npm ci would have run in 12 commits and not in 154; 23 s each, the median of 9 earlier runs",
     "COPY package.json package-lock.json ./ would have run in 12 commits: it is new"],
    "npm reads nothing of the project but package.json, package-lock.json, and what it makes is not in the context",
    ["--- Dockerfile", "+++ Dockerfile", "@@ -2,5 +2,6 @@", " WORKDIR /app", "+COPY package.json package-lock.json ./", "+RUN npm ci", " COPY . .",
     "-RUN npm ci", " RUN npm run build"],
)  # fmt: skip


def view(commits: int) -> ReplayView:
    """A history in which the sources change often."""
    chance = random.Random(3)
    draws = [chance.random() for _ in range(commits)]
    docs = [chance.random() for _ in range(commits)]
    rows = []
    for stage, name, often, cost in STEPS:
        cells = []
        for at, draw in enumerate(draws):
            if at == 0 or (often > 0 and draw < often) or (often == -0.5 and docs[at] < 0.4):
                cells.append(RAN)
            else:
                cells.append(OPEN if often < 0 and draw < 0.7 else CACHED)
        rows.append(HeatRow(stage, name, cells, cells.count(RAN), cells.count(OPEN), cost, "adduser" in name))
    columns = [
        HeatColumn(f"{at * 7919 + 0xA1B2C3:08x}", 1_770_000_000 + at * 40_000, at == commits // 3)
        for at in range(commits)
    ]
    said = f"would have run over the last {commits} commits of shop: 684 of 1,800."
    return ReplayView("38 % of the steps", said, HeatMap(rows, columns), [MOVE], ["Granted."])


@pytest.mark.parametrize(("name", "commits", "scheme", "width"), [
    ("replay", 200, "light", 1040), ("replay_dark", 50, "dark", 1040), ("replay_few", 8, "light", 1040), ("replay_narrow", 50, "light", 560),
])  # fmt: skip
def test_a_page(chromium: Any, name: str, commits: int, scheme: str, width: int) -> None:
    """The picture is drawn, nothing is asked of the network, and nothing stands out at the side."""
    context = chromium.new_context(viewport={"width": width, "height": 700}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    page.on(
        "request", lambda request: asked.append(request.url) if not request.url.startswith("data:") else None
    )
    ground, ink = ("#111", "#ddd") if scheme == "dark" else ("#fff", "#222")
    style = f"color-scheme:{scheme};background:{ground};color:{ink}"
    try:
        page.set_content(f'<html style="{style}"><body>{render_html(view(commits))}</body></html>')
        page.wait_for_function("document.images.length === 1 && document.images[0].complete")
        assert page.evaluate("document.images[0].naturalWidth") > 400
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=str(SHOTS / f"{name}.png"), full_page=True)
        assert asked == []
    finally:
        context.close()
