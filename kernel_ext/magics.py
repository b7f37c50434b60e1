"""The magics: words in, builds out. What they do is done elsewhere."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand, output_can_be_silenced
from IPython.display import display

from bknb import options as words
from bknb.api import Build, Client, RunningBuild
from bknb.api.client import set_default_client
from bknb.api.request import redact
from bknb.errors import BknbError, BuildCancelled, BuildError, MissError, SourceError, UnsupportedError
from bknb.errors import UsageError as WrongWords
from bknb.options import BuildOptions
from bknb.protocols import Origin
from kernel_ext import notebook, verbs
from kernel_ext.arguments import evaluate
from kernel_ext.errors import for_cell
from kernel_ext.formatters import Formatters
from kernel_ext.live import LiveView
from kernel_ext.llb_cell import run_llb
from kernel_ext.settings import Bknb

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from bknb.api.planned import Plan
    from bknb.llb.vertex import Edge


@magics_class
class BknbMagics(Magics):
    """``%%dockerfile``, ``%%llb`` and ``%bknb``."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell=shell)
        self.shell: InteractiveShell = shell
        self.settings = Bknb(config=shell.config)
        self.formatters = Formatters(shell)
        self._client: Client | None = None
        self.last: Build | None = None
        """The newest build of this notebook, also one that failed."""

    def register(self) -> None:
        """Make the magics, the settings and the formatters known to the shell."""
        from kernel_ext.complete import add_matcher

        self.shell.register_magics(self)
        self.shell.configurables.append(self.settings)  # type: ignore[arg-type]
        self.formatters.register()
        add_matcher(self.shell)
        set_default_client(lambda: self.client)

    def unregister(self) -> None:
        """Take everything back, and end the builder."""
        from kernel_ext.complete import remove_matcher

        set_default_client(None)
        remove_matcher(self.shell)
        self.formatters.unregister()
        self.shell.configurables[:] = [c for c in self.shell.configurables if id(c) != id(self.settings)]
        for kind, name in (
            ("cell", "dockerfile"),
            ("line", "dockerfile"),
            ("cell", "llb"),
            ("line", "llb"),
            ("line", "bknb"),
        ):
            self.shell.magics_manager.magics[kind].pop(name, None)
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def client(self) -> Client:
        """The builder's client; a new one when ``%config Bknb`` has changed what a builder is made from."""
        preferences = self.settings.preferences()
        if self._client is not None and self._client.preferences != preferences:
            self._client.close()
            self._client = None
        if self._client is None:
            self._client = Client(preferences)
        return self._client

    @output_can_be_silenced
    @no_var_expand
    @line_cell_magic
    def dockerfile(self, line: str, cell: str | None = None) -> Any:
        """Build the Dockerfile in this cell.

        ::

            %%dockerfile [options] [CONTEXT]
            FROM busybox
            COPY . /src
            RUN ls /src

        The options are those of ``docker buildx build``; ``%%dockerfile --help`` lists them. CONTEXT is the folder
        that COPY reads, the current one if it is left out. ``%dockerfile -f Dockerfile .`` builds a file.

        Examples::

            %%dockerfile -t app --target test          keep the result as "app"
            %%dockerfile --build-arg V={version}       a Python value for ARG V
            %%dockerfile --out build                   the result object in a variable
            %%dockerfile --bg                          do not wait: the cell gives a handle
            %%dockerfile --llb                         compile only: show the graph
            %%dockerfile --plan                        run nothing: what would be cached, what would run, and why
            %%dockerfile -o type=oci,dest=app.tar      write the image to a file

        A ``# syntax=`` line goes on the cell's second line. Values of Python never enter the cell's text. A trailing
        ``;`` on the first line hides the picture.
        """
        return self._run(line, cell, lambda found: cell)

    @output_can_be_silenced
    @no_var_expand
    @line_cell_magic
    def llb(self, line: str, cell: str | None = None) -> Any:
        """Build a graph made in Python with ``bknb.llb``; the last expression is solved.

        ::

            %%llb [options]
            base = llb.image("busybox")
            base.run(["sh", "-c", "echo hello > /greeting"])

        The name ``llb`` is there already; other names are the notebook's own, and stay. The last expression is a
        State, an Edge or a Definition. Options are those of ``%%dockerfile`` that have to do with running and output.
        """
        if cell is None:
            raise UsageError("%llb needs a cell: write %%llb on the first line, and the graph below it")
        return self._run(line, None, lambda found: None, make_edge=lambda: run_llb(self.shell, cell))

    @no_var_expand
    @line_cell_magic
    def bknb(self, line: str, cell: str | None = None) -> Any:
        """Ask bknb: ``%bknb doctor | why | du | prune | images | history | graph | config | help``."""
        if cell is not None:
            raise UsageError("%bknb takes no cell: write %%dockerfile to build one")
        return self._guard(lambda: verbs.run(self, line))

    def _run(
        self,
        line: str,
        cell: str | None,
        text: Callable[[BuildOptions], str | None],
        make_edge: Callable[[], Edge | None] | None = None,
    ) -> Any:
        magic = "%%llb" if make_edge is not None else "%%dockerfile"
        line = line.rstrip().removesuffix(";")

        def act() -> Any:
            if words.wants_help(line):
                print(words.parser(magic, cell=True).format_help())
                return None
            found = evaluate(words.parse(line, prog=magic), self.shell.user_ns)
            if cell is not None and found.file:
                raise WrongWords(
                    f"a cell is its own Dockerfile: leave -f {found.file} out, or build the file with %dockerfile -f {found.file}"
                )
            if make_edge is None and cell is None and not found.file and not found.context:
                raise WrongWords(
                    "%dockerfile builds a file: say %dockerfile -f Dockerfile CONTEXT; to build a cell write %%dockerfile on its first line"
                )
            edge = make_edge() if make_edge is not None else None
            return self._start(found, line, text(found), edge, llb=make_edge is not None)

        return self._guard(act)

    def _start(
        self, found: BuildOptions, line: str, text: str | None, edge: Edge | None, *, llb: bool
    ) -> Any:
        path = notebook.notebook_path(os.environ, self.shell.user_ns)
        context = os.path.abspath(os.path.expanduser(found.context or "."))
        withheld = notebook.withheld(context, path) if self.settings.withhold else ()
        origin = Origin(path, self._cell_id(), self.client.id, redact(shlex.split(line)), context)
        if found.plan:
            return self._plan(
                found,
                self.client.plan(
                    found, dockerfile=text, edge=edge, llb=llb, withheld=withheld, origin=origin
                ),
            )
        running = self.client.start(
            found, dockerfile=text, edge=edge, llb=llb, withheld=withheld, origin=origin
        )
        if found.background:
            self._keep(found, running)
            return running
        return self._wait(found, running)

    def _plan(self, found: BuildOptions, plan: Plan) -> Plan:
        """Keep a plan; the cell shows what it returns."""
        self._keep(found, plan)
        if found.fail_on_miss and plan.misses:
            display(plan)  # type: ignore[no-untyped-call]
            plan.require_cached()
        return plan

    def _wait(self, found: BuildOptions, running: RunningBuild) -> Build | None:
        try:
            return self._show(found, running)
        except BuildCancelled:
            raise
        except (
            KeyboardInterrupt
        ):  # it came while the view was made or drawn, not while the build was waited for
            raise running.stop() from None

    def _show(self, found: BuildOptions, running: RunningBuild) -> Build | None:
        mode = found.progress if found.progress != "auto" else self.settings.progress
        if mode == "rawjson":
            raise WrongWords("--progress rawjson is for bknb build; in a cell, build.events has the same")
        live = LiveView(running.title, mode=mode, on_cancel=running.cancel)
        try:
            build = running.wait(lambda: live.feed(running.new_events()))
        except MissError as error:
            live.finish(error.plan)
            raise
        except BuildError as error:
            live.feed(running.new_events())
            if isinstance(error.result, Build):
                self.last = error.result
                self._keep(found, error.result)
                live.ops = dict(error.result.ops)
            live.finish()
            raise
        except BaseException:
            live.feed(running.new_events())
            live.finish()
            raise
        live.feed(running.new_events())
        live.ops = dict(build.ops)
        live.finish(files=build.changed(), reasons=build.reasons if live.keeps else None)
        self.last = build
        self._keep(found, build)
        if found.call != "build":
            print(build.answers.get("result.txt", b"").decode(errors="replace").rstrip("\n"))
        if live.keeps:
            self.formatters.shown(build)
            if found.llb and build.edge is not None:
                self.formatters.compiled(build)
        return build

    def _keep(self, found: BuildOptions, value: object) -> None:
        if found.out:
            if not found.out.isidentifier():
                raise WrongWords(f"--out {found.out}: it is not a name for a variable")
            self.shell.user_ns[found.out] = value

    def _cell_id(self) -> str:
        parent = getattr(self.shell, "parent_header", {}) or {}
        header = self.shell.get_parent() if hasattr(self.shell, "get_parent") else parent
        return str(header.get("metadata", {}).get("cellId", "")) if isinstance(header, dict) else ""

    def _guard(self, act: Callable[[], Any]) -> Any:
        """Show errors of bknb as a cell shows them."""
        try:
            return act()
        except (WrongWords, UnsupportedError, SourceError) as error:  # the last: what was named is not there
            raise UsageError(error.message) from None
        except KeyboardInterrupt as error:
            stopped = (
                error
                if isinstance(error, BuildCancelled)
                else BuildCancelled("Stopped before the build began.")
            )
            raise for_cell(stopped) from None
        except BknbError as error:
            if not self.settings.short_errors:
                raise
            raise for_cell(error) from error.__cause__
