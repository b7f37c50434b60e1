"""The words that a build takes, and what ``--help`` says of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from bknb.errors import UsageError, nearest
from bknb.options.values import positive

CALLS = ("build", "check", "lint", "outline", "targets")
FORMATS = ("json", "proto", "dot", "mermaid")
PROGRESS = ("auto", "plain", "quiet", "rawjson", "tty", "widget", "html")


class _Parser(argparse.ArgumentParser):
    """argparse that raises one-line errors and never ends the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(self._plain(message))

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise UsageError(message or "")

    def _plain(self, message: str) -> str:
        unknown = re.match(r"unrecognized arguments: (\S+)(.*)", message)
        if unknown and unknown[1].startswith("-"):
            word = unknown[1].split("=")[0]
            near = nearest(word.lstrip("-"), [known.lstrip("-") for known in self.words()])
            return f"unknown option {word}{f' (did you mean --{near}?)' if near else ''}; --help lists them all"
        if unknown and all(action.option_strings for action in self._actions):
            return f"{self.prog} takes options only: {unknown[1]!r} is left over"
        if unknown:
            return f"one CONTEXT is enough: {unknown[1]!r} is left over (quote a path that has spaces)"
        return message.replace("argument ", "", 1) if message.startswith("argument ") else message

    def words(self) -> list[str]:
        """Every long option."""
        return [word for action in self._actions for word in action.option_strings if word.startswith("--")]


def words_parser(prog: str) -> argparse.ArgumentParser:
    """A parser without options yet, whose errors are `UsageError` and one line."""
    return _Parser(
        prog=prog, add_help=False, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def parser(prog: str, *, cell: bool, formats: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of a build's words.

    Args:
        prog: how the command is called in errors.
        cell: adds what only makes sense in a notebook.
        formats: for a command that prints the graph: how it may be written, the default first.
    """
    p = words_parser(prog)
    add = p.add_argument
    add(
        "context",
        nargs="?",
        default="",
        metavar="CONTEXT",
        help="the folder (or '-' for none) that COPY reads; the current one if absent",
    )
    add(
        "-t",
        "--tag",
        action="append",
        default=[],
        metavar="NAME",
        help="keep the image in the store under this name; may repeat",
    )
    add(
        "-f",
        "--file",
        default="",
        metavar="PATH",
        help="the Dockerfile" + (" (the cell's text if absent)" if cell else "; '-' reads it from stdin"),
    )
    add("--target", default="", metavar="STAGE", help="build this stage")
    add(
        "--build-arg",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set an ARG"
        + (
            "; {expression} is evaluated, a lone NAME takes the variable"
            if cell
            else "; a lone NAME takes the environment's"
        ),
    )
    add("--label", action="append", default=[], metavar="NAME=VALUE", help="a label of the image")
    add("--platform", action="append", default=[], metavar="OS/ARCH", help="build for these platforms")
    add("--no-cache", action="store_true", help="run every step")
    add(
        "--no-cache-filter",
        action="append",
        default=[],
        metavar="STAGE[:LINE]",
        help="run every step of these stages, or the step whose instruction has this line",
    )
    add(
        "--plan",
        action="store_true",
        help="run nothing: say which steps would be cached, which would run, and why",
    )
    add(
        "--touch",
        action="append",
        default=[],
        metavar="FILE",
        help="with --plan: as though the content of this file of the context had changed; may repeat",
    )
    add("--fail-on-miss", action="store_true", help="fail before the first step that is not cached")
    add("--progress", choices=PROGRESS, default="auto", help="how the build is shown")
    add(
        "--secret",
        action="append",
        default=[],
        metavar="id=ID[,src=FILE|,env=VAR]",
        help="what RUN --mount=type=secret may read",
    )
    add(
        "--ssh",
        action="append",
        default=[],
        metavar="default|ID=SOCKET",
        help="what RUN --mount=type=ssh may use",
    )
    add(
        "--build-context",
        action="append",
        default=[],
        metavar="NAME=WHERE",
        help="a further context: a folder, docker-image://, oci-layout://, a URL",
    )
    add("--network", default="", metavar="MODE", help="network of RUN: default, none or host")
    add("--add-host", action="append", default=[], metavar="HOST:IP", help="a line of /etc/hosts in RUN")
    add("--shm-size", default="", metavar="SIZE", help="size of /dev/shm in RUN, such as 128m")
    add("--ulimit", action="append", default=[], metavar="NAME=SOFT[:HARD]", help="a limit in RUN")
    add("--cgroup-parent", default="", metavar="PATH", help="where the cgroup of RUN is made")
    add(
        "--allow",
        action="append",
        default=[],
        metavar="ENTITLEMENT",
        help="network.host or security.insecure",
    )
    add("--pull", action="store_true", help="ask the registry again for every base image")
    add("--push", action="store_true", help="send the image to its registry")
    add("--load", action="store_true", help="keep the image in this store (as -t does)")
    add("--cache-from", action="append", default=[], metavar="REF", help="import cache")
    add("--cache-to", action="append", default=[], metavar="REF", help="export cache")
    add("--builder", default="", metavar="NAME", help="build elsewhere")
    add("--call", default="build", metavar="METHOD", help="build, check, outline or targets")
    add("--check", action="store_true", help="only lint: the same as --call=check")
    add("--iidfile", default="", metavar="FILE", help="write the image's digest there")
    add("--metadata-file", default="", metavar="FILE", help="write the result's metadata there, as JSON")
    add(
        "--annotation",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an annotation of the image's manifest",
    )
    add(
        "--provenance",
        action="append",
        nargs="?",
        const="true",
        default=[],
        metavar="VALUE",
        help="only false: attestations are not there yet",
    )
    add(
        "--sbom",
        action="append",
        nargs="?",
        const="true",
        default=[],
        metavar="VALUE",
        help="only false: attestations are not there yet",
    )
    add("--attest", action="append", default=[], metavar="SPEC", help="attestations are not there yet")
    add(
        "-o",
        "--output",
        action="append",
        default=[],
        metavar="type=T,dest=PATH|DIR",
        help="where the result goes: image, oci, docker, local, tar",
    )
    add("-q", "--quiet", action="store_true", help="print only the digest")
    add(
        "--max-parallelism",
        type=positive,
        default=None,
        metavar="N",
        help="at most N steps of this build at once",
    )
    if formats:
        add("--format", choices=formats, default=formats[0], help="how the graph is written")
    if cell:
        add("--out", default="", metavar="VAR", help="put the result object into this variable")
        add("--bg", action="store_true", help="do not wait: the cell returns a handle at once")
        add("--llb", action="store_true", help="only compile: show the graph and its LLB")
    add("--help", "-h", action="store_true", help="this text")
    return p
