"""The graph in DOT, and where `dot` puts its boxes.

DOT is written by the graphviz package and is also what a reader may save. Of what `dot` computes, the picture
uses the ranks: which boxes stand side by side in time. `bknb.display.lanes` makes lanes of that, which `dot`
itself cannot draw.

The program is `dot` if it is on PATH, else the one that the graphviz-pure wheel brings. It is a process of
its own, bounded in time; where there is none, or it fails, the graph is shown as text.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bknb.display.boxes import Box, Plan
from bknb.display.palette import GREY, INK, LANE, LOOKS

TIMEOUT = 5.0
"""Seconds that a layout may take."""
LARGEST = 400
"""Boxes; above that the order of the graph itself is used."""

Places = Mapping[str, tuple[float, float]]
"""Box id to the middle of its place in inches: x grows with the rank, y downwards."""


def program() -> str | None:
    """The path of a program that lays DOT out, or None."""
    beside = Path(sys.executable).parent / "graphviz-pure"
    return shutil.which("dot") or shutil.which("graphviz-pure") or (str(beside) if beside.is_file() else None)


def dot(plan: Plan) -> str:
    """The graph as DOT: a cluster for each stage, each state by colour, sign and word."""
    # Imported here: it costs 30 ms that a build which shows nothing need not spend.
    import graphviz

    graph = graphviz.Digraph(
        "build",
        graph_attr={"rankdir": "LR", "bgcolor": "transparent", "fontname": "sans-serif", "fontsize": "11",
                    "fontcolor": GREY, "nodesep": "0.15", "ranksep": "0.3", "newrank": "true"},
        node_attr={"shape": "box", "style": "rounded,filled", "fontname": "sans-serif", "fontsize": "11",
                   "fontcolor": INK, "fixedsize": "true", "width": "2.2", "height": "0.6"},
        edge_attr={"color": GREY, "arrowsize": "0.6"},
    )  # fmt: skip
    for index, label in enumerate(plan.lanes):
        with graph.subgraph(name=f"cluster_{index}") as cluster:
            cluster.attr(label=graphviz.escape(label), color=LANE, style="rounded")
            for box in plan.boxes:
                if box.lane == index:
                    _node(cluster, box, graphviz.escape)
    for arrow in plan.arrows:
        graph.edge(
            f"n-{arrow.source}",
            f"n-{arrow.target}",
            penwidth="2" if arrow.strong else "1",
            style="dashed" if arrow.dashed else "solid",
        )
    return str(graph.source)


def _node(cluster: object, box: Box, escape: object) -> None:
    from bknb.display import amounts

    look = LOOKS[box.state]
    text = amounts.cut(f"{box.keyword} {box.words}".strip(), 30)
    label = f"{escape(text)}\\n{escape(box.status)}"  # type: ignore[operator]
    outline = "rounded,filled,dashed" if box.state.value == "skipped" else "rounded,filled"
    cluster.node(f"n-{box.id}", label, fillcolor=look.fill, color=look.line, style=outline)  # type: ignore[attr-defined]


Structure = tuple[tuple[tuple[str, int], ...], tuple[tuple[str, str], ...]]
"""What a layout depends on: boxes with their lanes, and arrows. The same for a build and for its rebuild."""


def structure(plan: Plan) -> Structure:
    """The plan without words and states."""
    return tuple((box.id, box.lane) for box in plan.boxes), tuple((a.source, a.target) for a in plan.arrows)


def skeleton(found: Structure) -> str:
    """A structure in DOT."""
    import graphviz

    boxes, arrows = found
    graph = graphviz.Digraph(
        graph_attr={
            "rankdir": "LR",
            "nodesep": "0.15",
            "ranksep": "0.3",
            "newrank": "true",
            "splines": "false",
        },
        node_attr={"shape": "box", "fixedsize": "true", "width": "2.2", "height": "0.6", "label": ""},
    )
    for lane in dict.fromkeys(lane for _, lane in boxes):
        with graph.subgraph(name=f"cluster_{lane}") as cluster:
            for name, home in boxes:
                if home == lane:
                    cluster.node(f"n-{name}")
    graph.edges((f"n-{source}", f"n-{target}") for source, target in arrows)
    return str(graph.source)


def places(plan: Plan, command: str | None = None) -> Places | None:
    """Where `dot` puts the boxes, or None if there is no program, or it fails, or takes too long."""
    command = command or program()
    if command is None or not plan.boxes or len(plan.boxes) > LARGEST:
        return None
    found = _run(command, structure(plan))
    return found if len(found) == len(plan.boxes) else None


@functools.lru_cache(maxsize=64)
def _run(command: str, asked: Structure) -> Places:
    """One run of the program, remembered: a rebuild has the same graph, and so has the saved picture."""
    try:
        done = subprocess.run(
            [command, "-Tplain"],
            input=skeleton(asked).encode("utf-8", "replace"),
            capture_output=True,
            timeout=TIMEOUT,
            start_new_session=True,
            check=True,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, tuple[float, float]] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        words = line.split(" ", 4)
        if words[0] == "node" and len(words) >= 4:
            found[words[1].strip('"').removeprefix("n-")] = (float(words[2]), -float(words[3]))
    return found


def order(plan: Plan) -> Places:
    """Places by the graph itself: the longest way from a start is the rank."""
    rank: dict[str, int] = {}
    inputs: dict[str, list[str]] = {}
    for arrow in plan.arrows:
        inputs.setdefault(arrow.target, []).append(arrow.source)
    for box in plan.boxes:
        rank[box.id] = 0
    for _ in range(min(len(plan.boxes), LARGEST)):
        moved = False
        for box in plan.boxes:
            deepest = max((rank[s] + 1 for s in inputs.get(box.id, ())), default=0)
            if deepest > rank[box.id] and deepest <= len(plan.boxes):
                rank[box.id], moved = deepest, True
        if not moved:
            break
    return {box.id: (float(rank[box.id]), float(at)) for at, box in enumerate(plan.boxes)}
