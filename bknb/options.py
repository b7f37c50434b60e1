"""The options of a build: words in, one frozen `BuildOptions` out.

The cell magic and ``bknb build`` read the same words, those of ``docker buildx build``, with the same parser.
A word that is not understood is one line, with the nearest word that is.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from bknb.errors import UnsupportedError, UsageError, did_you_mean
from bknb.platforms import Platform
from bknb.reference import Reference

_SIZES = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kb": 1 << 10,
    "m": 1 << 20,
    "mb": 1 << 20,
    "g": 1 << 30,
    "gb": 1 << 30,
    "t": 1 << 40,
    "tb": 1 << 40,
}
_REQUESTS = {
    "check": "frontend.lint",
    "lint": "frontend.lint",
    "outline": "frontend.outline",
    "targets": "frontend.targets",
}
CALLS = ("build", "check", "lint", "outline", "targets")
FORMATS = ("json", "proto", "dot", "mermaid")
PROGRESS = ("auto", "plain", "quiet", "rawjson", "tty", "widget", "html")


@dataclass(frozen=True, slots=True)
class Output:
    """One ``--output``: its type and attributes."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What one build was asked for; every field is named like its option.

    `build_args` maps to None where the value is to be taken from the caller's variables. `context` is "" for the
    current folder. Sizes are bytes.
    """

    context: str = ""
    tags: tuple[str, ...] = ()
    file: str = ""
    target: str = ""
    build_args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    plan: bool = False
    touch: tuple[str, ...] = ()
    fail_on_miss: bool = False
    progress: str = "auto"
    secrets: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    build_contexts: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    add_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    cgroup_parent: str = ""
    allow: frozenset[str] = frozenset()
    pull: bool = False
    push: bool = False
    load: bool = False
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    builder: str = ""
    call: str = "build"
    iidfile: str = ""
    metadata_file: str = ""
    annotations: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    max_parallelism: int | None = None
    out: str = ""
    background: bool = False
    llb: bool = False
    quiet: bool = False
    format: str = ""

    def frontend_opts(self) -> dict[str, str]:
        """The options as a frontend receives them (frontend/dockerui/config.go, docker/buildx build/opt.go)."""
        opts: dict[str, str] = {}
        opts.update(
            (f"build-arg:{name}", value) for name, value in self.build_args.items() if value is not None
        )
        opts.update((f"label:{name}", value) for name, value in self.labels.items())
        simple = {
            "target": self.target, "platform": ",".join(self.platforms), "force-network-mode": self.network if self.network != "default" else "",
            "add-hosts": ",".join(_hosts(self.add_hosts)), "cgroup-parent": self.cgroup_parent, "ulimit": ",".join(self.ulimits),
            "shm-size": str(self.shm_size) if self.shm_size else "", "image-resolve-mode": "pull" if self.pull else "",
        }  # fmt: skip
        opts.update((key, value) for key, value in simple.items() if value)
        if self.no_cache:
            opts["no-cache"] = ""
        elif self.no_cache_filter:
            opts["no-cache"] = ",".join(self.no_cache_filter)
        if self.call != "build":
            opts["requestid"] = _REQUESTS[self.call]
        return opts


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
            return f"unknown option {word}{did_you_mean(word, self.words())}; --help lists them all"
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
        type=_positive,
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
    outputs = tuple(_output(text) for text in found.output)
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
        build_args=_pairs(found.build_arg, "--build-arg", lone=True),
        labels={k: v or "" for k, v in _pairs(found.label, "--label", lone=True).items()},
        platforms=platforms,
        no_cache=found.no_cache,
        plan=found.plan,
        touch=tuple(found.touch),
        fail_on_miss=found.fail_on_miss,
        no_cache_filter=tuple(name for text in found.no_cache_filter for name in text.split(",") if name),
        progress="quiet" if found.quiet else found.progress,
        secrets=tuple(found.secret),
        ssh=tuple(found.ssh),
        build_contexts={k: v or "" for k, v in _pairs(found.build_context, "--build-context").items()},
        network=found.network,
        add_hosts=tuple(found.add_host),
        shm_size=size(found.shm_size, "--shm-size") if found.shm_size else 0,
        ulimits=tuple(_ulimit(text) for text in found.ulimit),
        cgroup_parent=found.cgroup_parent,
        allow=frozenset(_entitlement(text) for text in found.allow),
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


def size(text: str, option: str) -> int:
    """Bytes of ``64m``, ``1g``, ``1048576``.

    Raises:
        UsageError: not a size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?b?)\s*", text, re.IGNORECASE)
    unit = found[2].lower().replace("i", "") if found else ""
    if found is None or unit not in _SIZES:
        raise UsageError(f"{option} {text}: it is not a size; write 64m or 1g")
    return int(float(found[1]) * _SIZES[unit])


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


def _pairs(values: Sequence[str], option: str, *, lone: bool = False) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not name or not (equals or lone):
            raise UsageError(f"{option} {text}: write NAME=VALUE")
        found[name] = value if equals else None
    return found


def _output(text: str) -> Output:
    fields = next(csv.reader(io.StringIO(text))) if text else []
    if len(fields) == 1 and "=" not in fields[0]:
        if fields[0] == "-":
            return Output("tar", {"dest": "-"})
        return Output("local", {"dest": os.path.abspath(os.path.expanduser(fields[0]))})
    attrs: dict[str, str] = {}
    for part in fields:
        key, equals, value = part.strip().partition("=")
        if not equals:
            raise UsageError(f"--output {text}: {part!r} is not key=value; write type=oci,dest=image.tar")
        attrs[key.lower()] = value
    kind = attrs.pop("type", "")
    if kind == "registry":
        kind, attrs = "image", {**attrs, "push": "true"}
    known = ("image", "oci", "docker", "local", "tar", "cacheonly")
    if kind not in known:
        raise UsageError(f"--output {text}: type is one of {', '.join(known)}{did_you_mean(kind, known)}")
    if kind in ("oci", "docker", "local", "tar") and not attrs.get("dest"):
        if kind != "docker":
            raise UsageError(f"--output {text}: say where it goes: dest=PATH")
        raise UnsupportedError(
            "--output type=docker without dest= loads into a Docker Engine, which is not there yet; write dest=image.tar and docker load it"
        )
    if attrs.get("dest") not in (None, "-"):
        attrs["dest"] = os.path.abspath(os.path.expanduser(attrs["dest"]))
    return Output(kind, attrs)


def _ulimit(text: str) -> str:
    if not re.fullmatch(r"[a-z]+=-?\d+(:-?\d+)?", text):
        raise UsageError(f"--ulimit {text}: write NAME=SOFT[:HARD], such as nofile=1024:2048")
    name, _, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    return f"{name}={soft}:{hard if colon else soft}"


def _entitlement(text: str) -> str:
    known = ("network.host", "security.insecure")
    if text not in known:
        raise UsageError(
            f"--allow {text}: it is network.host or security.insecure{did_you_mean(text, known)}"
        )
    return text


def _hosts(hosts: Sequence[str]) -> list[str]:
    out = []
    for text in hosts:
        host, separator, address = text.partition("=") if "=" in text else text.partition(":")
        if not host or not separator or not address:
            raise UsageError(f"--add-host {text}: write HOST:IP")
        out.append(f"{host}={address.strip('[]')}")
    return out


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)
