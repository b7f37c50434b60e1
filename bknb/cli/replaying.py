"""``bknb replay``: a heat map of the last commits on stdout, or JSON for programs, or a file to keep."""

from __future__ import annotations

import shutil
import sys
from contextlib import closing

from bknb.cli.building import open_client
from bknb.errors import UsageError
from bknb.options import wants_help

_HELP = """
Nothing is run and nothing is checked out: commits are read with git, configs of base images are looked up once.

  bknb replay -n 200                       the last 200 commits of the repository here
  bknb replay -o replay.html app           of its folder app; the heat map and the changes as a page
  bknb replay --build-arg SHA={commit} .   an argument that differs with each commit
  bknb replay --format json | jq .outcome  a line of JSON for each commit and step
"""


def replay(words: list[str]) -> int:
    """``bknb replay``."""
    from bknb.api.replayed import parser, replayed

    made = parser("bknb replay")
    made.add_argument(
        "-o", "--output", default="", metavar="FILE", help="write it to FILE.html, .svg or .txt instead"
    )
    made.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="text, or a line of JSON for each commit and step",
    )
    if wants_help(words):
        print(made.format_help() + _HELP)
        return 0
    from bknb.api.replayed import options_of

    found = made.parse_args(words)
    if found.output and found.format == "json":
        raise UsageError("bknb replay writes JSON to stdout: say --format json without -o")
    with closing(open_client()) as client:
        answer = replayed(client, options_of(found))
    if found.output:
        answer.save(found.output)
    elif found.format == "json":
        table = answer.table
        sys.stdout.write(table.to_json(orient="records", lines=True, date_format="iso") if len(table) else "")
    else:
        print(answer.text(shutil.get_terminal_size((100, 24)).columns))
    return 0
