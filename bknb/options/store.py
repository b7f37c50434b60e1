"""The words of ``du`` and ``prune``, and what ``--help`` says of them."""

from __future__ import annotations

import argparse

from bknb.options.grammar import words_parser


def usage_parser(prog: str) -> argparse.ArgumentParser:
    """The parser of the words after ``du``."""
    made = words_parser(prog)
    made.description = "What the store holds, largest first."
    _add_filter(made, "type==regular, description~=apt, inuse, until=24h, ...; repeated: any of them")
    made.add_argument("-v", "--verbose", action="store_true", help="with parents and flags, and whole ids")
    return made


def prune_parser(prog: str) -> argparse.ArgumentParser:
    """The parser of the words after ``prune``."""
    made = words_parser(prog)
    made.description = "Remove what nobody uses and no named image is made of."
    internal = "also what named images share, internal records and those of frontends"
    made.add_argument("-a", "--all", action="store_true", help=internal)
    _add_filter(made, "as for du; until=24h: not used for a day")
    made.add_argument("--keep-duration", metavar="D", help="keep what was used in the last D")
    for names, said in (
        (("--reserved-space", "--keep-storage"), "never go below this"),
        (("--max-used-space",), "go down to this, and no further"),
        (("--min-free-space",), "go on until so much of the disk is free"),
    ):
        made.add_argument(*names, metavar="SIZE", help=said)
    for name, said in (
        ("--gc", "apply the rules that work by themselves after each build"),
        ("--explain", "remove nothing; tell for each record which rule takes it, or why it stays"),
    ):
        made.add_argument(name, action="store_true", help=said)
    return made


def _add_filter(made: argparse.ArgumentParser, said: str) -> None:
    made.add_argument(
        "--filter", action="append", default=[], metavar="FILTER", help=f"only what fits: {said}"
    )
