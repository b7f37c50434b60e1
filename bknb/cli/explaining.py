"""``bknb why``: why a build ran what it ran, from the history or from saved files."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

from bknb.cli.building import open_client
from bknb.errors import UsageError
from bknb.options import wants_help, words_parser

if TYPE_CHECKING:
    from bknb.api.explained import Why

_HELP = """usage: bknb why [[BEFORE] AFTER] [--step TEXT] [--format json]

Why a build ran what it ran, from the root causes, compared with an earlier one.

  bknb why                   the newest build, compared with the last one like it
  bknb why AFTER             another build: the beginning of its id (bknb history), or a file (build.save)
  bknb why BEFORE AFTER      two builds
  --step TEXT                one step, by a part of its instruction; also why it was cached
  --format json              a line of JSON for each root cause"""


def why(words: list[str]) -> int:
    """``bknb why``: the answer as text, or as lines of JSON."""
    if wants_help(words):
        print(_HELP)
        return 0
    made = words_parser("bknb why")
    made.add_argument("builds", nargs="*")
    made.add_argument("--step", default="")
    made.add_argument("--format", choices=("text", "json"), default="text")
    asked = made.parse_intermixed_args(words)
    if len(asked.builds) > 2:
        raise UsageError(f"bknb why takes two builds at most: {asked.builds[2]!r} is left over")
    from bknb.api.explained import ask

    with closing(open_client()) as client:
        found = ask(client, asked.builds, asked.step)
    if asked.format == "json":
        _print_json(found)
        return 0
    explanation = found.explanation
    against = f"compared with {explanation.before}" if explanation.before else "nothing to compare with"
    print(f"build {explanation.after}, {against}")
    print(repr(found) or "Nothing ran: every step was cached.")
    return 0


def _print_json(found: Why) -> None:
    for cause in found.causes:
        shown = {
            "kind": cause.kind.value,
            "subject": cause.subject,
            "before": cause.before,
            "after": cause.after,
            "steps": [one.step.command or one.step.name for one in found.explanation.made_run(cause)],
            "hint": cause.hint,
            "diff": list(cause.diff),
        }
        print(json.dumps({name: value for name, value in shown.items() if value}, ensure_ascii=False))
