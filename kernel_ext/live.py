"""The view of a running build, in whatever this kernel's reader looks at.

A `LiveView` folds the events that it is fed and hands the view to a surface: a widget in a notebook, plain
lines or a live display in a terminal, HTML that is drawn anew where there are no widgets. When the build ends
the surface is replaced by what stays: the static picture.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Protocol

from bknb.digest import Digest
from bknb.display import BuildView, PlainProgress, fold_all, mimebundle, render_html
from bknb.events import BuildEvent, Event

if TYPE_CHECKING:
    from bknb.display.reasons import Reasons

MODES = ("auto", "widget", "html", "plain", "rich", "tty", "quiet")
"""What ``--progress`` and ``%config Bknb.progress`` may say; ``tty`` is BuildKit's word for rich."""


class LiveView:
    """Shows one build.

    Args:
        title: what is built.
        mode: one of `MODES`.
        on_cancel: called when the reader presses Cancel; from any thread.
        stream: where terminals' lines go; stderr if None.

    Set `ops` (digest to op) as soon as the definition is known, and the view can show them. All methods are
    for the main thread.
    """

    def __init__(
        self,
        title: str = "",
        *,
        mode: str = "auto",
        on_cancel: Callable[[], object] | None = None,
        stream: IO[str] | None = None,
    ) -> None:
        self.view = BuildView(title=title)
        self.ops: dict[Digest, object] = {}
        self._surface = _surface(choose(mode), title, on_cancel, stream)

    def feed(self, events: Sequence[Event]) -> None:
        """Takes events in the order of their emission and shows what they change; no events are fine too."""
        if events:
            self.view = fold_all(self.view, events)
        self._surface.show(self.view, events, self.ops)

    def finish(
        self, result: object | None = None, *, files: Mapping[Digest, Sequence[str]] | None = None,
        reasons: Reasons | None = None,
    ) -> None:  # fmt: skip
        """Replaces the view by the picture that stays.

        Args:
            result: a `BuildView`, or an object that shows itself (``_repr_mimebundle_``); None is what was fed.
            files: what each step changed, for the picture's details.
            reasons: why it did what it did.
        """
        if not self.view.finished:
            # Something broke before the build could say how it ended; the cell's error says what.
            end = BuildEvent(self.view.build, time.time(), True, error="The build did not come to its end.")
            self.view = fold_all(self.view, [end])
        view = result if isinstance(result, BuildView) else self.view
        if result is None or isinstance(result, BuildView):
            bundle = self._surface.keeps and mimebundle(
                view, definition=self.ops, files=files, reasons=reasons
            )
            self._surface.finish(view, bundle or {}, raw=True)
        else:
            self._surface.finish(view, result, raw=False)

    def settle(self) -> None:
        """Waits until the graph that is being laid out, if any, can be shown."""
        self._surface.settle()

    @property
    def keeps(self) -> bool:
        """Whether the static picture has been shown, so that a result need not show itself again."""
        return self._surface.keeps


def choose(mode: str) -> str:
    """The surface for a mode: ``auto`` looks at where this runs."""
    if mode == "tty":
        return "rich"
    if mode != "auto":
        return mode
    shell = _shell()
    if getattr(shell, "kernel", None) is not None:
        return "widget" if importlib.util.find_spec("anywidget") else "html"
    if shell is not None and sys.stderr.isatty():
        return "rich"
    return "plain"


def _shell() -> Any:
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return get_ipython()


class Surface(Protocol):
    """Where a build is shown. `keeps`: it leaves a picture behind."""

    keeps: bool

    def show(self, view: BuildView, events: Sequence[Event], ops: dict[Digest, object]) -> None: ...

    def settle(self) -> None: ...

    def finish(self, view: BuildView, shown: Any, *, raw: bool) -> None: ...


def _surface(
    mode: str, title: str, on_cancel: Callable[[], object] | None, stream: IO[str] | None
) -> Surface:
    match mode:
        case "widget":
            return _Widget(title, on_cancel)
        case "html":
            return _Html()
        case "rich":
            from kernel_ext.terminal import Terminal

            return Terminal(stream or sys.stderr)
        case "plain":
            return _Plain(stream or sys.stderr)
        case "quiet":
            return _Quiet()
    raise ValueError(f"unknown progress {mode!r}: one of {', '.join(MODES)}")


class _Widget:
    keeps = True

    def __init__(self, title: str, on_cancel: Callable[[], object] | None) -> None:
        from kernel_ext.widget import WidgetSurface

        self._widget = WidgetSurface(title, on_cancel)

    def show(self, view: BuildView, events: Sequence[Event], ops: dict[Digest, object]) -> None:
        self._widget.show(view, ops)

    def settle(self) -> None:
        self._widget.settle()

    def finish(self, view: BuildView, shown: Any, *, raw: bool) -> None:
        self._widget.replace(shown, raw=raw)


class _Html:
    """The static page, drawn anew as the build goes on: slower each time it took longer."""

    keeps = True
    PAUSE = 0.5

    def __init__(self) -> None:
        from IPython.display import display

        self._handle = display({"text/plain": "building…"}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        self._next = 0.0

    def show(self, view: BuildView, events: Sequence[Event], ops: dict[Digest, object]) -> None:
        begun = time.monotonic()
        if not events or begun < self._next or self._handle is None:
            return
        self._handle.update({"text/html": render_html(view), "text/plain": "building…"}, raw=True)
        self._next = time.monotonic() + max(self.PAUSE, 10 * (time.monotonic() - begun))

    def settle(self) -> None:
        pass

    def finish(self, view: BuildView, shown: Any, *, raw: bool) -> None:
        if self._handle is not None:
            self._handle.update(shown, raw=raw)


class _Plain:
    keeps = False

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._progress = PlainProgress(stream.write)

    def show(self, view: BuildView, events: Sequence[Event], ops: dict[Digest, object]) -> None:
        if events:
            self._progress.feed(events)
            self._stream.flush()

    def settle(self) -> None:
        pass

    def finish(self, view: BuildView, shown: Any, *, raw: bool) -> None:
        self._progress.finish()
        self._stream.flush()


class _Quiet:
    keeps = False

    def show(self, view: BuildView, events: Sequence[Event], ops: dict[Digest, object]) -> None:
        pass

    def settle(self) -> None:
        pass

    def finish(self, view: BuildView, shown: Any, *, raw: bool) -> None:
        pass
