"""What a node means: from words to typed instructions (frontend/dockerfile/instructions/parse.go).

One function for each instruction, in the table at the end. The order of checks inside of each is BuildKit's,
since the first failure is the message that people see. Nothing is expanded here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypedDict

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.durations import DurationError, parse_duration
from bknb.frontend.dockerfile.flags import Flags, Kind, parse_flags
from bknb.frontend.dockerfile.gotext import encode, equal_fold, lower, quote, trim_space, upper
from bknb.frontend.dockerfile.heredoc import chomped, heredoc_argument
from bknb.frontend.dockerfile.mounts import parse_device, parse_mount
from bknb.frontend.dockerfile.suggest import search, with_suggestion

_STAGE_NAME = re.compile(r"[a-z][a-z0-9\-_.]*")
_ONBUILD_WORD = re.compile(r"[\t\n\f\r ]*ONBUILD[\t\n\f\r ]*", re.IGNORECASE | re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]+")
_MILLISECOND = 10**6

_NETWORKS: Final[dict[str, ast.Network]] = {"default": "default", "none": "none", "host": "host"}
_SECURITY: Final[dict[str, ast.Security]] = {"sandbox": "sandbox", "insecure": "insecure"}
_RUN_FLAGS: Final[dict[str, Kind]] = {
    "device": "strings", "mount": "strings", "network": "string", "security": "string",
}  # fmt: skip
_COPY_FLAGS: Final[dict[str, Kind]] = {
    "chown": "string", "from": "string", "chmod": "string", "link": "bool", "exclude": "strings",
    "parents": "bool",
}  # fmt: skip
_ADD_FLAGS: Final[dict[str, Kind]] = {
    "chown": "string", "chmod": "string", "link": "bool", "keep-git-dir": "bool", "checksum": "string",
    "unpack": "bool", "exclude": "strings",
}  # fmt: skip
_HEALTH_FLAGS: Final[dict[str, Kind]] = {
    "interval": "string", "timeout": "string", "start-period": "string", "start-interval": "string",
    "retries": "string",
}  # fmt: skip


class _Common(TypedDict):
    keyword: str
    text: str
    start_line: int
    end_line: int
    comments: tuple[str, ...]


def instruction_of_node(node: ast.Node) -> ast.From | ast.Command:
    """The meaning of a node.

    Raises:
        DockerfileError: an unknown instruction, or arguments and flags that it does not take. Without a
            place: that is the node's.
    """
    understand = _INSTRUCTIONS.get(lower(node.keyword))
    if understand is None:
        near = search(node.keyword, NAMES, case_sensitive=False)
        raise with_suggestion(f"unknown instruction: {node.keyword}", near)
    return understand(node)


def _common(node: ast.Node) -> _Common:
    return _Common(
        keyword=node.keyword,
        text=trim_space(node.original),
        start_line=node.start_line,
        end_line=node.end_line,
        comments=node.comments,
    )


def _no_flags(node: ast.Node) -> None:
    parse_flags(node.flags, {})


def _some(node: ast.Node, name: str) -> tuple[str, ...]:
    """The arguments, of which there must be one at least."""
    args = node.flat_args()
    if not args:
        raise DockerfileError(f"{name} requires at least one argument")
    return args


def _one(node: ast.Node, name: str) -> str:
    args = node.flat_args()
    if len(args) != 1:
        raise DockerfileError(f"{name} requires exactly one argument")
    return args[0]


def _docs(comments: tuple[str, ...], names: list[str]) -> list[str]:
    """The description of each stage or argument: the first comment that begins with its name and a space."""
    if not comments:
        return [""] * len(names)
    # By the number of spaces in a name (of a quoted one), what the comments begin with: so that many
    # comments above many arguments take the time of both, not of their product.
    by_spaces: dict[int, dict[str, str]] = {}
    docs = []
    for name in names:
        spaces = name.count(" ")
        if spaces not in by_spaces:
            parts = [comment.split(" ", spaces + 1) for comment in reversed(comments)]
            by_spaces[spaces] = {
                " ".join(words[:-1]): words[-1] for words in parts if len(words) == spaces + 2
            }
        docs.append(by_spaces[spaces].get(name, "") if name else "")
    return docs


def _from(node: ast.Node) -> ast.From:
    args = node.flat_args()
    name = ""
    if len(args) == 3 and equal_fold(args[1], "as"):
        name = lower(args[2])
        if not _STAGE_NAME.fullmatch(name):
            raise DockerfileError(
                f"invalid name for build stage: {quote(args[2])}, "
                "name can't start with a number or contain symbols"
            )
    elif len(args) != 1:
        raise DockerfileError("FROM requires either one or three arguments")
    flags = parse_flags(node.flags, {"platform": "string"})
    return ast.From(
        **_common(node),
        base=args[0],
        name=name,
        platform=flags.text("platform"),
        doc=_docs(node.comments, [name])[0],
    )


def _arg(node: ast.Node) -> ast.Arg:
    words = [word.partition("=") for word in _some(node, "ARG")]
    if not all(key or not sign for key, sign, _ in words):
        raise DockerfileError("ARG names can not be blank")
    docs = _docs(node.comments, [key for key, _, _ in words])
    definitions = tuple(
        ast.ArgDefinition(key, value if sign else None, doc)
        for (key, sign, value), doc in zip(words, docs, strict=True)
    )
    return ast.Arg(**_common(node), args=definitions)


def _pairs(node: ast.Node, name: str) -> tuple[ast.KeyValue, ...]:
    _no_flags(node)
    args = _some(node, name)
    pairs = []
    for key, value, sign in zip(args[::3], args[1::3], args[2::3], strict=True):
        if not key:
            raise DockerfileError(f"{name} names can not be blank")
        pairs.append(ast.KeyValue(key, value, legacy=not sign))
    return tuple(pairs)


def _env(node: ast.Node) -> ast.Env:
    return ast.Env(**_common(node), pairs=_pairs(node, "ENV"))


def _label(node: ast.Node) -> ast.Label:
    return ast.Label(**_common(node), pairs=_pairs(node, "LABEL"))


def _maintainer(node: ast.Node) -> ast.Maintainer:
    maintainer = _one(node, "MAINTAINER")
    _no_flags(node)
    return ast.Maintainer(**_common(node), maintainer=maintainer)


def _command_line(node: ast.Node) -> dict[str, Any]:
    args = node.flat_args()
    if args and not node.json:
        args = (" ".join(args),)
    return {**_common(node), "args": args, "shell_form": not node.json, "files": node.heredocs}


def _run(node: ast.Node) -> ast.Run:
    flags = parse_flags(node.flags, _RUN_FLAGS)
    devices = tuple(map(parse_device, flags.all("device")))
    mounts = tuple(map(parse_mount, flags.all("mount")))
    network = _NETWORKS.get(name := flags.text("network", "default"))
    if network is None:
        raise DockerfileError(f"invalid network mode {quote(name)}")
    security = _SECURITY.get(name := flags.text("security", "sandbox"))
    if security is None:
        raise DockerfileError(f"security {quote(name)} is not valid")
    return ast.Run(
        **_command_line(node),
        mounts=mounts,
        network=network,
        security=security,
        devices=devices,
        flags_used=tuple(flags.values),
    )


def _cmd(node: ast.Node) -> ast.Cmd:
    _no_flags(node)
    return ast.Cmd(**_command_line(node))


def _entrypoint(node: ast.Node) -> ast.Entrypoint:
    _no_flags(node)
    return ast.Entrypoint(**_command_line(node))


def _transfer(node: ast.Node, name: str, known: dict[str, Kind]) -> tuple[dict[str, Any], Flags]:
    """What COPY and ADD share."""
    args = node.flat_args()
    if len(args) < 2:
        raise DockerfileError(
            f"{name} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )
    flags = parse_flags(node.flags, known)
    if heredoc_argument(args[-1]) is not None:
        raise DockerfileError(f"{name} cannot accept a heredoc as a destination")
    bodies = {heredoc.name: heredoc.content for heredoc in node.heredocs}
    sources: list[str] = []
    files: list[ast.InlineFile] = []
    for word in args[:-1]:
        heredoc = heredoc_argument(word)
        if heredoc is None:
            sources.append(word)
            continue
        content = bodies.get(heredoc.name, "")
        if heredoc.chomp:
            content = chomped(content)
        files.append(ast.InlineFile(heredoc.name, content, heredoc.expand))
    fields = {
        **_common(node),
        "sources": tuple(sources),
        "files": tuple(files),
        "dest": args[-1],
        "chown": flags.text("chown"),
        "chmod": flags.text("chmod"),
        "link": flags.switch("link") or False,
        "exclude": flags.all("exclude"),
    }
    return fields, flags


def _copy(node: ast.Node) -> ast.Copy:
    fields, flags = _transfer(node, "COPY", _COPY_FLAGS)
    return ast.Copy(**fields, from_=flags.text("from"), parents=flags.switch("parents") or False)


def _add(node: ast.Node) -> ast.Add:
    fields, flags = _transfer(node, "ADD", _ADD_FLAGS)
    return ast.Add(
        **fields,
        keep_git_dir=flags.switch("keep-git-dir"),
        checksum=flags.text("checksum"),
        unpack=flags.switch("unpack"),
    )


def _workdir(node: ast.Node) -> ast.Workdir:
    path = _one(node, "WORKDIR")
    _no_flags(node)
    return ast.Workdir(**_common(node), path=path)


def _user(node: ast.Node) -> ast.User:
    user = _one(node, "USER")
    _no_flags(node)
    return ast.User(**_common(node), user=user)


def _expose(node: ast.Node) -> ast.Expose:
    ports = _some(node, "EXPOSE")
    _no_flags(node)
    return ast.Expose(**_common(node), ports=tuple(sorted(ports, key=encode)))


def _volume(node: ast.Node) -> ast.Volume:
    args = _some(node, "VOLUME")
    _no_flags(node)
    volumes = tuple(map(trim_space, args))
    if not all(volumes):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return ast.Volume(**_common(node), volumes=volumes)


def _stopsignal(node: ast.Node) -> ast.Stopsignal:
    return ast.Stopsignal(**_common(node), signal=_one(node, "STOPSIGNAL"))


def _healthcheck(node: ast.Node) -> ast.Healthcheck:
    word, *command = _some(node, "HEALTHCHECK")
    kind = upper(word)
    if kind == "NONE":
        if command:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return ast.Healthcheck(**_common(node), test=(kind,))
    flags = parse_flags(node.flags, _HEALTH_FLAGS)
    if kind != "CMD":
        raise DockerfileError(f"Unknown type {quote(kind)} in HEALTHCHECK (try CMD)")
    if not command:
        raise DockerfileError("Missing command after HEALTHCHECK CMD")
    test = (kind, *command) if node.json else ("CMD-SHELL", " ".join(command))
    return ast.Healthcheck(
        **_common(node),
        test=test,
        interval=_interval(flags, "interval"),
        timeout=_interval(flags, "timeout"),
        start_period=_interval(flags, "start-period"),
        start_interval=_interval(flags, "start-interval"),
        retries=_retries(flags.text("retries")),
    )


def _interval(flags: Flags, name: str) -> int:
    """Nanoseconds of a flag, 0 if it was not given."""
    text = flags.text(name)
    if not text:
        return 0
    try:
        duration = parse_duration(text)
    except DurationError as error:
        raise DockerfileError(str(error)) from None
    if duration and duration < _MILLISECOND:
        raise DockerfileError(f'Interval "{name}" cannot be less than 1ms')
    return duration


def _retries(text: str) -> int:
    if not text:
        return 0
    if not _INTEGER.fullmatch(text):
        raise DockerfileError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    digits = text.lstrip("+-").lstrip("0")
    value = int(digits or "0") if len(digits) < 12 else 1 << 31
    value = -value if text.startswith("-") else value
    if not -(1 << 31) <= value < 1 << 31:
        raise DockerfileError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    if value < 0:
        raise DockerfileError(f"--retries cannot be negative ({value})")
    return value


def _shell(node: ast.Node) -> ast.Shell:
    _no_flags(node)
    shell = _some(node, "SHELL")
    if not node.json:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    return ast.Shell(**_common(node), shell=shell)


def _onbuild(node: ast.Node) -> ast.Onbuild:
    trigger = upper(trim_space(_some(node, "ONBUILD")[0]))
    _no_flags(node)
    if trigger == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise DockerfileError(f"{trigger} isn't allowed as an ONBUILD trigger")
    expression = _ONBUILD_WORD.sub("", node.original, count=1)
    bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in node.heredocs)
    return ast.Onbuild(**_common(node), expression=expression + bodies)


_INSTRUCTIONS: Final[dict[str, Callable[[ast.Node], ast.From | ast.Command]]] = {
    "run": _run,
    "copy": _copy,
    "from": _from,
    "env": _env,
    "arg": _arg,
    "workdir": _workdir,
    "cmd": _cmd,
    "entrypoint": _entrypoint,
    "label": _label,
    "expose": _expose,
    "user": _user,
    "add": _add,
    "volume": _volume,
    "shell": _shell,
    "healthcheck": _healthcheck,
    "onbuild": _onbuild,
    "stopsignal": _stopsignal,
    "maintainer": _maintainer,
}

#: Every instruction word, in capitals.
NAMES: Final = tuple(name.upper() for name in _INSTRUCTIONS)
