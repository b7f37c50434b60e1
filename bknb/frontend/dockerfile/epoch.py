"""SOURCE_DATE_EPOCH: a number, or something whose time is taken (dockerfile2llb/epoch.go)."""

from __future__ import annotations

import re
from typing import Final

from bknb import llb
from bknb.errors import DockerfileError
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.archives import newest_file
from bknb.frontend.dockerfile.args import Expand
from bknb.frontend.dockerfile.checksum import parse_checksum
from bknb.frontend.dockerfile.commits import Moment, committed
from bknb.frontend.dockerfile.contexts import Contexts
from bknb.frontend.dockerfile.copy import http_filename
from bknb.frontend.dockerfile.gitref import is_http_source, parse_git_ref
from bknb.frontend.dockerfile.gotext import equal_fold
from bknb.frontend.dockerfile.places import located
from bknb.frontend.dockerfile.stages import SCRATCH, Conversion
from bknb.llb.ops import SourceOp

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_KEY: Final = "SOURCE_DATE_EPOCH"


async def resolve_epoch(conversion: Conversion) -> None:
    """Find the time that is asked for, and write it back into the arguments as a number.

    Raises:
        DockerfileError: nothing of that name has a time.
    """
    given = conversion.build_args.get(_KEY)
    if given is None:
        given = conversion.args.get(_KEY) or None
    if given is None:
        return
    conversion.epoch = await _resolve(conversion, given) if given else None
    text = "" if conversion.epoch is None else str(conversion.epoch.seconds)
    for args in (conversion.build_args, conversion.args):
        if _KEY in args:
            changed = dict(args)
            if text:
                changed[_KEY] = text
            else:
                del changed[_KEY]
            if args is conversion.args:
                conversion.args = changed
            else:
                conversion.build_args = changed


async def _resolve(conversion: Conversion, given: str) -> Moment | None:
    if _NUMBER.fullmatch(given):
        return Moment(int(given))
    state, log_name = await _state(conversion, given)
    source = _single_source(state)
    if source is None:
        return None
    contexts = conversion.contexts
    answer = await contexts.bridge.resolve_source_meta(source.identifier, source.attrs, log_name=log_name)
    if answer.git_commit:
        return committed(answer.git_commit)
    if answer.http_last_modified is not None:
        return Moment(int(answer.http_last_modified))
    filename = source.attrs.get("http.filename", "")
    if not source.identifier.startswith(("http://", "https://")) or not filename:
        return None
    data = await contexts.read(llb.source(source.identifier, source.attrs), filename)
    newest = None if data is None else newest_file(data)
    return None if newest is None else Moment(newest)


async def _state(conversion: Conversion, given: str) -> tuple[llb.State, str]:
    contexts: Contexts = conversion.contexts
    if given == "context":
        return await contexts.main_context(()), "[internal] resolve main build context metadata"
    named = contexts.named(given, None)
    if named is not None:
        state, _ = await named.load(lambda: (), resolve_mode="")
        return state, f"[internal] resolve SOURCE_DATE_EPOCH named context {given}"
    for stage in conversion.dockerfile.stages:
        if equal_fold(stage.head.name, given):
            log_name = f"[internal] resolve SOURCE_DATE_EPOCH source stage {stage.head.name}"
            try:
                return _stage_source(conversion, stage), log_name
            except DockerfileError as error:
                raise located(error, stage.head.ranges) from None
    raise DockerfileError(f"invalid SOURCE_DATE_EPOCH: {given}")


def _stage_source(conversion: Conversion, stage: ast.Stage) -> llb.State:
    """The one remote thing that a stage ADDs."""
    env = {key: value for key, value in conversion.args.items() if key != _KEY}

    def expand(word: str) -> str:
        return conversion.lex.process_word(word, env).text

    if expand(stage.head.base) != SCRATCH:
        raise DockerfileError("SOURCE_DATE_EPOCH stage must use FROM scratch")
    found: llb.State | None = None
    for command in stage.commands:
        match command:
            case ast.Arg():
                for definition in command.args:
                    if definition.key in conversion.build_args:
                        env[definition.key] = conversion.build_args[definition.key]
                    elif definition.value is not None:
                        env[definition.key] = expand(definition.value)
            case ast.Add() if found is None:
                found = _add_source(command, expand)
            case ast.Add():
                raise DockerfileError("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD")
            case _:
                raise DockerfileError(
                    "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported "
                    f"{command.keyword} instruction"
                )
    if found is None:
        raise DockerfileError("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD")
    return found


def _add_source(command: ast.Add, expand: Expand) -> llb.State:
    if command.files or len(command.sources) != 1:
        raise DockerfileError("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source")
    src, checksum = expand(command.sources[0]), expand(command.checksum)
    if is_http_source(src):
        return llb.http(
            src, filename=http_filename(src), checksum=parse_checksum(checksum) if command.checksum else ""
        )
    found = parse_git_ref(src)
    if found is None or found.like_local:
        raise DockerfileError("SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD")
    options = llb.GitOptions(
        ref=found.ref,
        subdir=found.subdir,
        keep_git_dir=command.keep_git_dir is True or found.keep_git_dir is True,
        checksum=checksum if command.checksum else found.checksum,
        skip_submodules=found.submodules is False,
    )
    return llb.git(found.remote, "", options)


def _single_source(state: llb.State) -> SourceOp | None:
    """The source that a state is, if it is one and stands on no other."""
    from bknb.llb.marshal import walk

    edge = state.edge()
    sources = [] if edge is None else [v.op for v in walk(edge.vertex) if isinstance(v.op, SourceOp)]
    return sources[0] if len(sources) == 1 else None
