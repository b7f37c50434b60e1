"""``bknb build`` and ``bknb llb``: the cell's build on a command line.

``build`` takes the words of ``docker buildx build`` and prints BuildKit's plain progress on stderr. ``llb`` takes the
same words, compiles, and writes the graph to stdout; it runs nothing, and works where nothing can run.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from bknb import options
from bknb.errors import BuildError, UsageError

if TYPE_CHECKING:
    from bknb.api import Build, Client, RunningBuild
    from bknb.llb import Definition

_LLB_HELP = """
Nothing runs: configs of base images are looked up, and that is all. The graph goes to stdout.

  bknb llb .                                         a line of JSON for each op, as buildctl debug dump-llb prints
  bknb llb --format proto . | buildctl build --local context=.
  bknb llb --format dot . | dot -Tsvg > graph.svg
  bknb llb -f - . < Dockerfile                       the Dockerfile from stdin
"""


def build(words: list[str]) -> int:
    """``bknb build``: the words of ``docker buildx build``, BuildKit's plain progress on stderr."""
    if options.wants_help(words):
        print(options.parser("bknb build", cell=False).format_help())
        return 0
    found = options.parse(words, prog="bknb build", cell=False)
    if not found.context:
        raise UsageError(
            "bknb build needs a CONTEXT: the folder that COPY reads, such as '.', or '-' for none"
        )
    with closing(open_client()) as client:
        if found.plan:
            return _plan(client, found)
        return _show(_start(client, found), found)


def llb(words: list[str]) -> int:
    """``bknb llb``: the same words; compiles, and writes the graph to stdout."""
    if options.wants_help(words):
        print(options.parser("bknb llb", cell=False, formats=options.FORMATS).format_help() + _LLB_HELP)
        return 0
    found = options.parse(words, prog="bknb llb", cell=False, formats=options.FORMATS)
    if found.outputs or found.push or found.load or found.call != "build":
        raise UsageError(
            "bknb llb only compiles: leave --output, --push, --load, --call and --check to bknb build"
        )
    if len(found.platforms) > 1:
        raise UsageError("bknb llb writes one graph, and there is one for each platform: say one --platform")
    if found.format == "proto" and sys.stdout.isatty():
        raise UsageError(
            "--format proto is bytes and no text: write bknb llb --format proto . | buildctl build, or > FILE"
        )
    found = replace(found, llb=True, progress="quiet" if found.progress == "auto" else found.progress)
    with closing(open_client(runtime="none")) as client:
        build = _wait(_start(client, found), found)
        if build is None:
            return 1
        sys.stdout.buffer.write(_written(build.definition, found.format))
        sys.stdout.buffer.flush()
        return 0


def _written(definition: Definition, format: str) -> bytes:
    from bknb.llb import render

    match format:
        case "proto":
            return definition.to_bytes()
        case "dot":
            return render.dot(definition).encode()
        case "mermaid":
            return render.mermaid(definition).encode()
        case _:
            return render.json_lines(definition).encode()


def open_client(runtime: str = "auto") -> Client:
    """A client on the state folder that the environment names; it starts nothing yet."""
    from bknb.garbage import no_collection

    with no_collection():
        from bknb.api import Client, Preferences

    offline = os.environ.get("BKNB_OFFLINE", "") in ("1", "true")
    return Client(Preferences(root=os.environ.get("BKNB_ROOT", ""), offline=offline, runtime=runtime))


def _plan(client: Client, found: options.BuildOptions) -> int:
    """Print what the build would do; with ``--fail-on-miss`` it is an error if a step would run."""
    text = sys.stdin.buffer.read() if found.file == "-" else None
    plan = client.plan(options.with_environment(found, os.environ), dockerfile=text)
    if not found.quiet:
        print(plan)
    if found.fail_on_miss:
        plan.require_cached()
    return 1 if plan.view.failed else 0


def _start(client: Client, found: options.BuildOptions) -> RunningBuild:
    text = sys.stdin.buffer.read() if found.file == "-" else None
    return client.start(options.with_environment(found, os.environ), dockerfile=text)


def _show(running: RunningBuild, found: options.BuildOptions) -> int:
    build = _wait(running, found)
    if build is None:
        return 1
    if found.call != "build":
        return _answer(build)
    if found.quiet and build.metadata.get("containerimage.digest"):
        print(build.metadata["containerimage.digest"])
    return 0


def _wait(running: RunningBuild, found: options.BuildOptions) -> Build | None:
    """Print progress on stderr until the end; None when it failed, which has been said then."""
    from bknb.api import failure_text
    from bknb.display.plain import PlainProgress

    progress = PlainProgress(lambda text: sys.stderr.write(text))
    lines = found.progress not in ("quiet", "rawjson")

    def draw() -> None:
        events = running.new_events()
        if found.progress == "rawjson":
            for event in events:
                print(json.dumps(event.to_json()), file=sys.stderr)
        elif lines:
            progress.feed(events)
            sys.stderr.flush()

    try:
        return running.wait(draw)
    except BuildError as error:
        failure = error
    finally:
        if lines:
            draw()
            progress.finish()
    if found.progress != "rawjson":
        # The progress has shown a failed step, with its place and its log.
        shown = lines and failure.step is not None
        print(f"ERROR: {failure}" if shown else failure_text(failure), file=sys.stderr)
    return None


def _answer(build: Build) -> int:
    """Print what a frontend answered to ``--call``."""
    answers = build.answers
    print(answers.get("result.txt", b"").decode(errors="replace").rstrip("\n"))
    return int(answers.get("result.statuscode", b"0") or 0)
