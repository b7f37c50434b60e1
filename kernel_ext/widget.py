"""The live view as one widget: a page that is sent a graph, and then what changes.

anywidget ships the module inside of the widget's state, so there is nothing to install in the browser and
nothing to fetch. The graph is laid out in a thread of its own: `dot` takes as long as it likes, build and
the cell's tick do not wait for it.

The Cancel button is an addition: while a cell runs, only some kernels hear a page at all (ipykernel 7.0 to
7.3 in a subshell; 7.4 with the hook below). The stop button always works.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython.display import DisplayHandle, display

from bknb.digest import Digest
from bknb.display import svg
from bknb.display.model import BuildView
from bknb.display.picture import arrange_anyhow
from kernel_ext.deltas import Deltas

STATIC = Path(__file__).parent / "static"


class BuildWidget(anywidget.AnyWidget):
    """The page's side is ``static/view.js``; `key` tells one build's page from another's."""

    _esm = STATIC / "view.js"
    _css = STATIC / "view.css"
    key = traitlets.Unicode().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    graph = traitlets.Unicode().tag(sync=True)


class WidgetSurface:
    """Shows a build in a `BuildWidget`. `show` is for the main thread, about ten times a second."""

    def __init__(self, title: str, on_cancel: Callable[[], object] | None) -> None:
        self._widget = BuildWidget(key=uuid.uuid4().hex, title=title)
        self._on_cancel = on_cancel
        self._deltas = Deltas()
        self._begun: float | None = None
        # The page asks in whatever thread its message arrives.
        self._lock = threading.Lock()
        self._painter = ThreadPoolExecutor(1, "bknb-layout")
        self._painting: Future[str] | None = None
        self._shape: frozenset[tuple[Digest, tuple[Digest, ...]]] = frozenset()
        self._widget.on_msg(self._heard)
        _answer_in_subshell(self._widget)
        self._handle: DisplayHandle | None = display(self._widget, display_id=True)  # type: ignore[no-untyped-call]

    def show(self, view: BuildView, ops: dict[Digest, object]) -> None:
        """Tells the page what changed, and gives it the graph when that has been laid out."""
        self._paint(view)
        with self._lock:
            self._begun = view.started
            message = self._deltas.between(view, time.time(), ops)
        if message is not None:
            self._widget.send(message)

    def _paint(self, view: BuildView) -> None:
        if self._painting is not None and self._painting.done():
            self._widget.graph = self._painting.result()
            self._painting = None
        shape = frozenset((step.digest, step.inputs) for step in view.steps.values() if step.known)
        if shape != self._shape and self._painting is None:
            self._shape = shape
            self._painting = self._painter.submit(draw, view)

    def settle(self) -> None:
        """Waits for the layout that is under way."""
        if self._painting is not None:
            wait([self._painting])

    def replace(self, shown: Any, *, raw: bool) -> None:
        """Puts the picture that stays in the widget's place."""
        if self._handle is not None:
            self._handle.update(shown, raw=raw)  # type: ignore[no-untyped-call]
        self._painter.shutdown(wait=False, cancel_futures=True)
        self._widget.close()

    def _heard(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if content.get("type") == "cancel" and self._on_cancel is not None:
            self._on_cancel()
        elif content.get("type") == "replay":
            with self._lock:
                whole = self._deltas.whole(time.time(), self._begun)
            self._widget.send(whole)


def draw(view: BuildView) -> str:
    """The graph of a running build: nothing is folded, since any step may still become interesting."""
    return svg.inline(*arrange_anyhow(view, fold_above=len(view.steps) + 1))


def _answer_in_subshell(widget: BuildWidget) -> None:
    """Lets ipykernel 7.4 hear the page while a cell runs.

    It routes a comm's messages to the shell that used the comm last, which is the busy one; the hook is
    private, so it is only used where it is found.
    """
    comm = widget.comm
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default=None: default
