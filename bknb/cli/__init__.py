"""``bknb COMMAND``: what a cell and ``%bknb`` do, on a command line.

A command is a function from its words to an exit code, in a module that is loaded when it is wanted:

- `building`: ``build`` and ``llb``     - `questions`: what is asked of the store, the machine and the past
- `explaining`: ``why``                  - `replaying`: ``replay``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Final

from bknb import __version__
from bknb.errors import BknbError, BuildCancelled, UsageError, did_you_mean

COMMANDS: Final[Mapping[str, str]] = {
    "build": "building", "llb": "building", "replay": "replaying", "why": "explaining",
    "du": "questions", "prune": "questions", "mounts": "questions", "images": "questions", "history": "questions", "doctor": "questions",
}  # fmt: skip
"""Command -> the module of this package that has a function of that name."""

_HELP = """bknb: BuildKit, opened up

  bknb build [options] CONTEXT    build; `bknb build --help` lists the options
  bknb llb [options] [CONTEXT]    only compile, and print the graph; `bknb llb --help`
  bknb replay [options] [REPO]    what builds of the last commits would have found in the cache; nothing is run
  bknb why [BEFORE AFTER]         why the newest build ran what it ran; `bknb why --help`
  bknb images                     the images that -t kept
  bknb history                    the builds so far, newest first
  bknb du [options]               what the store holds; `bknb du --help`
  bknb prune [options]            remove what nobody uses; `bknb prune --help`
  bknb mounts [save|load ...]     what RUN --mount=type=cache keeps, as tars; `bknb mounts --help`
  bknb doctor                     what this machine can do, and what is missing
  bknb --version

In a notebook: %load_ext bknb, then %%dockerfile in a cell.
State is kept in BKNB_ROOT, or in the platform's user data folder. BKNB_OFFLINE=1 reaches no registry: docker.io is then
served from this machine, with a busybox made of Debian's (%config Bknb.offline = True in a notebook)."""


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
    except BknbError as error:
        said = str(error)
        print(said if said.startswith("bknb ") else f"bknb: {said}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _run(words: list[str]) -> int:
    command = words[0] if words else ""
    if command in ("", "help", "--help", "-h"):
        print(_HELP)
        return 0
    if command in ("--version", "version"):
        print(f"bknb {__version__}")
        return 0
    if command.startswith("-"):
        known = ("--version", "--help")
        raise UsageError(f"unknown option {command}{did_you_mean(command, known)}; bknb help lists them")
    if command not in COMMANDS:
        raise UsageError(
            f"unknown command {command!r}{did_you_mean(command, COMMANDS)}; bknb help lists them"
        )
    act: Callable[[list[str]], int] = getattr(import_module(f"{__name__}.{COMMANDS[command]}"), command)
    return act(words[1:])
