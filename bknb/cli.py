"""``bknb``: the cell's build on a command line, and a doctor.

``bknb build`` takes the words of ``docker buildx build`` and prints BuildKit's plain progress on stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from bknb import __version__, options
from bknb.errors import BknbError, BuildCancelled, BuildError, UsageError, did_you_mean

COMMANDS = {
    "build": "build an image from a Dockerfile",
    "doctor": "say what this machine can do",
    "llb": "compile to LLB",
}
_HELP = """bknb: BuildKit, opened up

  bknb build [options] CONTEXT    build; `bknb build --help` lists the options
  bknb doctor                     what this machine can do, and what is missing
  bknb --version

In a notebook: %load_ext bknb, then %%dockerfile in a cell.
State is kept in BKNB_ROOT, or in the platform's user data folder."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 when a build failed, 2 for wrong words, 130 when stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(words)
    except BuildCancelled as error:
        print(error, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        return 130
    except UsageError as error:
        print(f"bknb: {error}", file=sys.stderr)
        return 2
    except BknbError as error:
        print(f"bknb: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _run(words: list[str]) -> int:
    command = words[0] if words else ""
    match command:
        case "" | "help" | "--help" | "-h":
            print(_HELP)
            return 0
        case "--version" | "version":
            print(f"bknb {__version__}")
            return 0
        case "build":
            return _build(words[1:])
        case "doctor":
            return _doctor()
        case _:
            raise UsageError(
                f"unknown command {command!r}{did_you_mean(command, COMMANDS)}; bknb help lists them"
            )


def _build(words: list[str]) -> int:
    if options.wants_help(words):
        print(options.parser("bknb build", cell=False).format_help())
        return 0
    found = options.parse(words, prog="bknb build", cell=False)
    if not found.context:
        raise UsageError(
            "bknb build needs a CONTEXT: the folder that COPY reads, such as '.', or '-' for none"
        )
    found = options.with_environment(found, os.environ)
    text = sys.stdin.buffer.read() if found.file == "-" else None
    from bknb.api import Client, Preferences

    client = Client(
        Preferences(
            root=os.environ.get("BKNB_ROOT", ""), offline=os.environ.get("BKNB_OFFLINE", "") in ("1", "true")
        )
    )
    try:
        return _show(client.start(found, dockerfile=text), found)
    finally:
        client.close()


def _show(running: object, found: options.BuildOptions) -> int:
    from bknb.api import failure_text
    from bknb.api.running import RunningBuild
    from bknb.display.plain import PlainProgress
    from bknb.events import to_json

    assert isinstance(running, RunningBuild)
    progress = PlainProgress(lambda text: sys.stderr.write(text))

    def draw() -> None:
        events = running.new_events()
        if found.progress == "rawjson":
            for event in events:
                print(json.dumps(to_json(event)), file=sys.stderr)
        elif found.progress != "quiet":
            progress.feed(events)
            sys.stderr.flush()

    try:
        build = running.wait(draw)
    except BuildError as error:
        draw()
        if found.progress not in ("quiet", "rawjson"):
            progress.finish()
        if found.progress != "rawjson":
            print(failure_text(error), file=sys.stderr)
        return 1
    if found.progress not in ("quiet", "rawjson"):
        progress.finish()
    if found.call != "build":
        return _answer(build)
    if found.quiet and build.metadata.get("containerimage.digest"):
        print(build.metadata["containerimage.digest"])
    return 0


def _answer(build: object) -> int:
    """Print what a frontend answered to ``--call``."""
    from bknb.api.build import Build

    assert isinstance(build, Build)
    answers = build.answers
    print(answers.get("result.txt", b"").decode(errors="replace").rstrip("\n"))
    return int(answers.get("result.statuscode", b"0") or 0)


def _doctor() -> int:
    from bknb.api import Client, Preferences
    from bknb.doctor import examine

    client = Client(Preferences(root=os.environ.get("BKNB_ROOT", "")))
    try:
        print(examine(client))
    finally:
        client.close()
    return 0
