"""Words to options, checked one against the other."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bknb.errors import UnsupportedError, UsageError, did_you_mean
from bknb.options.grammar import CALLS, parser
from bknb.options.model import BuildOptions
from bknb.options.values import entitlement, output, pairs, size, ulimit
from bknb.platforms import Platform
from bknb.reference import Reference


def parse(
    words: Sequence[str] | str,
    *,
    prog: str = "%%dockerfile",
    cell: bool = True,
    formats: Sequence[str] = (),
) -> BuildOptions:
    """Words to options.

    Args:
        words: the words, or a line that is split as a shell does.
        prog: how the command is called in errors.
        cell: whether the notebook's own options are understood.
        formats: see `parser`.

    Raises:
        UsageError: a word is not understood; the message says which and what was probably meant.
        UnsupportedError: understood, but not there yet.
    """
    if isinstance(words, str):
        words = split(words)
    found = parser(prog, cell=cell, formats=formats).parse_args(list(words))
    _refuse_unfinished(found)
    outputs = tuple(output(text) for text in found.output)
    if found.push and not found.tag and not any(o.attrs.get("name") for o in outputs):
        raise UsageError("--push needs a name: say -t REGISTRY/NAME too")
    for tag in found.tag:
        Reference.parse(tag)
    platforms = tuple(part.strip() for text in found.platform for part in text.split(",") if part.strip())
    for platform in platforms:
        try:
            Platform.parse(platform)
        except ValueError as error:
            raise UsageError(f"--platform: {error}") from None
    if found.network not in ("", "default", "none", "host"):
        raise UsageError(
            f"--network {found.network}: it is default, none or host{did_you_mean(found.network, ('default', 'none', 'host'))}"
        )
    _check_plan(found)
    call = "check" if found.check else found.call
    if call not in CALLS:
        raise UsageError(f"--call {call}: it is one of {', '.join(CALLS)}{did_you_mean(call, CALLS)}")
    return BuildOptions(
        context=found.context,
        tags=tuple(found.tag),
        file=found.file,
        target=found.target,
        build_args=pairs(found.build_arg, "--build-arg", lone=True),
        labels={k: v or "" for k, v in pairs(found.label, "--label", lone=True).items()},
        platforms=platforms,
        no_cache=found.no_cache,
        plan=found.plan,
        touch=tuple(found.touch),
        fail_on_miss=found.fail_on_miss,
        no_cache_filter=tuple(name for text in found.no_cache_filter for name in text.split(",") if name),
        progress="quiet" if found.quiet else found.progress,
        secrets=tuple(found.secret),
        ssh=tuple(found.ssh),
        build_contexts={k: v or "" for k, v in pairs(found.build_context, "--build-context").items()},
        network=found.network,
        add_hosts=tuple(found.add_host),
        shm_size=size(found.shm_size, "--shm-size") if found.shm_size else 0,
        ulimits=tuple(ulimit(text) for text in found.ulimit),
        cgroup_parent=found.cgroup_parent,
        allow=frozenset(entitlement(text) for text in found.allow),
        pull=found.pull,
        push=found.push,
        load=found.load,
        call=call,
        iidfile=found.iidfile,
        metadata_file=found.metadata_file,
        annotations=tuple(found.annotation),
        outputs=outputs,
        max_parallelism=found.max_parallelism,
        out=getattr(found, "out", ""),
        background=getattr(found, "bg", False),
        llb=getattr(found, "llb", False),
        quiet=found.quiet,
        format=getattr(found, "format", ""),
    )


def _check_plan(found: argparse.Namespace) -> None:
    """What goes with a plan, and what does not.

    Raises:
        UsageError: a word that a plan has no use for, or one that is for plans only.
    """
    if found.touch and not found.plan:
        raise UsageError("--touch asks what would happen: say --plan too")
    others = {"--llb": getattr(found, "llb", False), "--bg": getattr(found, "bg", False), "--check": found.check,
              "--call": found.call != "build", "--push": found.push}  # fmt: skip
    for word in (word for word, said in others.items() if said):
        if found.plan:
            raise UsageError(f"--plan runs nothing: leave {word} out, or leave out --plan")
        if found.fail_on_miss and word in ("--llb", "--check", "--call"):
            raise UsageError(f"--fail-on-miss is for builds, and {word} runs nothing: leave one of them out")


def with_environment(options: BuildOptions, environ: Mapping[str, str]) -> BuildOptions:
    """Fill in ``--build-arg NAME`` without a value from variables; one that is not set is left out, as docker does."""
    filled = {
        name: environ.get(name) if value is None else value for name, value in options.build_args.items()
    }
    return replace(options, build_args={name: value for name, value in filled.items() if value is not None})


def wants_help(words: Sequence[str] | str) -> bool:
    """Whether ``--help`` or ``-h`` is among the words."""
    return bool({"--help", "-h"} & set(split(words) if isinstance(words, str) else words))


def split(line: str) -> list[str]:
    """A line's words, quotes removed.

    Raises:
        UsageError: a quote is not closed.
    """
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"the line of options cannot be read: {str(error).lower()}") from None


def _refuse_unfinished(found: Any) -> None:
    for option in ("provenance", "sbom"):
        if any(value not in ("false", "0", "") for value in getattr(found, option)):
            raise UnsupportedError(
                f"--{option}: attestations are not made yet; leave it out or say --{option}=false"
            )
    if found.attest:
        raise UnsupportedError("--attest: attestations are not made yet; leave it out")
    for option in ("cache_from", "cache_to"):
        if getattr(found, option):
            raise UnsupportedError(
                f"--{option.replace('_', '-')}: importing and exporting cache is not there yet; this machine's own cache is always used"
            )
    if found.builder not in ("", "default"):
        raise UnsupportedError(
            f"--builder {found.builder}: remote builders are not there yet; leave it out to build in this kernel"
        )
