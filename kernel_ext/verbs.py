"""``%bknb VERB``: questions about the store, the machine and the past."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bknb import api
from bknb.api.store import explain, prune_of, usage_of
from bknb.api.tables import moved
from bknb.doctor import examine
from bknb.errors import UnsupportedError, UsageError, did_you_mean
from bknb.options import prune_parser, split, usage_parser, wants_help

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from kernel_ext.magics import BknbMagics

_HELP = """%bknb VERB

  doctor    what this machine can do, and what is missing
  du        what the store holds, as a DataFrame (--filter F, --verbose)
  prune     remove what nobody uses and no named image is made of (--all: that too; --filter F,
            --keep-duration, --reserved-space, --max-used-space, --min-free-space; --gc: what the
            rules take that work after each build; --explain: tell for each record why, do nothing)
  cache     the cache as DataFrames: .records .keys .links .uses .mounts
  mounts    the cache mounts, as a DataFrame (mounts save ID FILE.tar.zst, mounts load ID FILE)
  images    the images kept by -t, as a DataFrame
  history   the builds so far, as a DataFrame
  graph     the graph of the last build
  why       why the last build ran what it ran (why A: build A, a variable; why STEP: one step of the
            last, by a part of its text; why A B: build B compared with A, each a variable, the
            beginning of an id, or a saved file)
  replay    what builds of the last commits would have found in the cache: a heat map, what each step costs
            over them, and what another order would have saved (-n 50, -f Dockerfile, REPO/CONTEXT; --help)
  config    the settings; %config Bknb.NAME=VALUE sets one (Bknb.offline=True: without a network)
  help      this text

%%dockerfile? and %%llb? explain the cells."""


def run(magics: BknbMagics, line: str) -> Any:
    """Run one verb.

    Raises:
        UsageError: there is no such verb.
    """
    words = split(line)
    verb, rest = (words[0], words[1:]) if words else ("help", [])
    if verb in ("-h", "--help"):
        verb = "help"
    act = VERBS.get(verb)
    if act is None:
        raise UsageError(
            f"%bknb {verb}: there is no such verb{did_you_mean(verb, VERBS)}; it is one of {', '.join(VERBS)}"
        )
    return act(magics, rest)


def _none(words: list[str], verb: str) -> None:
    if words:
        raise UsageError(f"%bknb {verb} takes no options yet: {words[0]!r} is left over")


def _read(made: ArgumentParser, words: list[str]) -> Namespace | None:
    """What the words say; None where they ask for help, which is printed."""
    if wants_help(words):
        print(made.format_help())
        return None
    return made.parse_args(words)


def _doctor(magics: BknbMagics, words: list[str]) -> Any:
    _none(words, "doctor")
    print(examine(magics.client))


def _du(magics: BknbMagics, words: list[str]) -> Any:
    found = _read(usage_parser("%bknb du"), words)
    if found is None:
        return None
    options = usage_of(found)
    return api.disk_usage(
        magics.client, filters=options.filters, until=options.until, verbose=options.verbose
    )


def _prune(magics: BknbMagics, words: list[str]) -> Any:
    found = _read(prune_parser("%bknb prune"), words)
    if found is None:
        return None
    options = prune_of(found)
    if options.explain:
        return explain(magics.client, options.policy)
    print(api.prune(magics.client, options.policy))
    return None


def _cache(magics: BknbMagics, words: list[str]) -> Any:
    _none(words, "cache")
    return api.cache(magics.client)


def _mounts(magics: BknbMagics, words: list[str]) -> Any:
    if not words:
        return api.mounts(magics.client)
    print(moved(magics.client, words, "%bknb mounts"))
    return None


def _images(magics: BknbMagics, words: list[str]) -> Any:
    _none(words, "images")
    return api.images(magics.client)


def _history(magics: BknbMagics, words: list[str]) -> Any:
    _none(words, "history")
    return api.history(magics.client)


def _graph(magics: BknbMagics, words: list[str]) -> Any:
    _none(words, "graph")
    if magics.last is None:
        raise UsageError("there is no build yet: run a %%dockerfile cell first")
    return magics.last.graph


def _why(magics: BknbMagics, words: list[str]) -> Any:
    if len(words) > 2:
        raise UsageError("%bknb why takes a step, or two builds at most: %bknb why BEFORE AFTER")
    if len(words) == 2:
        from bknb.api.explained import ask

        return ask(magics.client, [magics.shell.user_ns.get(word, word) for word in words])
    if words and isinstance(named := magics.shell.user_ns.get(words[0]), api.Build):
        return named.why()
    if magics.last is None:
        raise UsageError("there is no build yet: run a %%dockerfile cell first")
    return magics.last.why(words[0] if words else None)


def _replay(magics: BknbMagics, words: list[str]) -> Any:
    from bknb.api import replayed

    found = _read(replayed.parser("%bknb replay"), words)
    return None if found is None else replayed.replayed(magics.client, replayed.options_of(found))


def _config(magics: BknbMagics, words: list[str]) -> Any:
    if words:
        raise UnsupportedError(f"%bknb config shows the settings; set one with %config Bknb.{words[0]}")
    magics.shell.run_line_magic("config", "Bknb")


def _help(magics: BknbMagics, words: list[str]) -> Any:
    print(_HELP)


VERBS: Mapping[str, Callable[[Any, list[str]], Any]] = {
    "doctor": _doctor, "du": _du, "prune": _prune, "cache": _cache, "mounts": _mounts, "images": _images, "history": _history, "graph": _graph,
    "why": _why, "replay": _replay, "config": _config, "help": _help,
}  # fmt: skip
