"""Questions about a Dockerfile: outline, targets, lint, convertllb, describe (frontend/subrequests)."""

from __future__ import annotations

import base64
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bknb import gojson
from bknb.digest import Digest
from bknb.errors import BknbError, BuildCancelled, DockerfileError, Range
from bknb.frontend.dockerfile.args import ArgInfo
from bknb.frontend.dockerfile.contexts import Contexts
from bknb.frontend.dockerfile.gotext import decode
from bknb.frontend.dockerfile.lint import LintWarning
from bknb.frontend.dockerfile.options import FrontendOptions
from bknb.frontend.dockerfile.parser import parse
from bknb.frontend.dockerfile.places import excerpt
from bknb.frontend.dockerfile.stages import BuildStage
from bknb.llb import Definition, SourceInfo
from bknb.protocols import FrontendResult

_RESULT: Final = ({"name": "result.json", "description": ""}, {"name": "result.txt", "description": ""})


@dataclass(frozen=True, slots=True)
class _Kind:
    """One question, as describe tells of it."""

    name: str
    description: str
    opts: list[dict[str, str]] | None
    version: str = "1.0.0"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "version": self.version, "type": "rpc", "description": self.description,
            "opts": self.opts, "inputs": None, "metadata": list(_RESULT), "refs": None,
        }  # fmt: skip


_TARGET_OPTION: Final = {"name": "target", "description": "Target build stage"}
_OUTLINE: Final = _Kind(
    "frontend.outline", "List all parameters current build target supports", [_TARGET_OPTION]
)
_TARGETS: Final = _Kind("frontend.targets", "List all targets current build supports", [])
_DESCRIBE: Final = _Kind("frontend.subrequests.describe", "List available subrequest types", None)


async def answer(
    request: str,
    options: FrontendOptions,
    contexts: Contexts,
    source: SourceInfo,
    warnings: list[LintWarning],
) -> FrontendResult:
    """Answer a question; findings are appended to `warnings`.

    Raises:
        DockerfileError: an unknown question, or a Dockerfile that cannot be compiled.
    """
    match request:
        case "frontend.subrequests.describe":
            found = _describe()
        case "frontend.targets":
            found = _targets(source)
        case "frontend.outline":
            found = await _outline(options, contexts, source, warnings)
        case "frontend.lint":
            found = await _lint(options, contexts, source)
        case "frontend.convertllb":
            found = await _convert(options, contexts, source, warnings)
        case _:
            raise DockerfileError(f"unsupported request {request}")
    metadata = {key: value.encode("utf-8", "surrogateescape") for key, value in found.items()}
    return FrontendResult(
        warnings=tuple(warnings), metadata=metadata, filename=source.filename, source=source.data
    )


def _describe() -> dict[str, str]:
    kinds = (_OUTLINE, _TARGETS, _DESCRIBE)
    rows = [("NAME", "VERSION", "DESCRIPTION")]
    rows += [(kind.name.removeprefix("frontend."), kind.version, kind.description) for kind in kinds]
    return {
        "result.json": gojson.dumps([kind.to_json() for kind in kinds], indent=2),
        "result.txt": _table(rows, 1),
        "version": "1.0.0",
    }


def _targets(source: SourceInfo) -> dict[str, str]:
    dockerfile = parse(source.data)
    dockerfile.check()
    targets, rows = [], [("TARGET", "DESCRIPTION")]
    for index, stage in enumerate(dockerfile.stages):
        head, last = stage.head, index == len(dockerfile.stages) - 1
        targets.append(_filled({
            "name": head.name, "default": last, "description": head.doc, "base": head.base,
            "platform": head.platform, "location": _location(head.ranges),
        }))  # fmt: skip
        default = f"{head.name} (default)" if head.name else "(default)"
        rows.append((default if last else head.name, head.doc))
    listed = {"targets": targets or None, "sources": [base64.b64encode(source.data).decode()]}
    return {"result.json": gojson.dumps(listed, indent=2), "result.txt": _table(rows, 1), "version": "1.0.0"}


async def _outline(
    options: FrontendOptions, contexts: Contexts, source: SourceInfo, warnings: list[LintWarning]
) -> dict[str, str]:
    from bknb.frontend.dockerfile.frontend import compile_dockerfile

    compiled = await compile_dockerfile(options, contexts, source, None, warnings)
    target = compiled.target
    stages = _below(target)
    args = _by_line(_args(stages, compiled.conversion.arg_infos))
    secrets = _by_line(_needed(stages, lambda stage: stage.needs.secrets))
    ssh = _by_line(_needed(stages, lambda stage: stage.needs.ssh))
    name, description = ("", "") if target.head is None else (target.head.name, target.head.doc)
    outline = _filled({
        "name": name, "description": description, "args": args, "secrets": secrets, "ssh": ssh,
        "sources": [base64.b64encode(source.data).decode()],
    })  # fmt: skip
    text = ""
    if name or description:
        rows = [("TARGET:", name or "(default)")]
        rows += [("DESCRIPTION:", description)] if description else []
        text += _table(rows, 1) + "\n"
    if args:
        rows3 = [("BUILD ARG", "VALUE", "DESCRIPTION")]
        rows3 += [(arg["name"], arg.get("value", ""), arg.get("description", "")) for arg in args]
        text += _table(rows3, 3) + "\n"
    for title, needs in (("SECRET", secrets), ("SSH", ssh)):
        if needs:
            rows = [(title, "REQUIRED")]
            rows += [(need["name"], "true" if need.get("required") else "") for need in needs]
            text += _table(rows, 3) + "\n"
    return {"result.json": gojson.dumps(outline, indent=2), "result.txt": text, "version": "1.0.0"}


def _below(target: BuildStage) -> list[BuildStage]:
    """The target, what it stands on, then what its instructions name, each once."""
    found: dict[BuildStage, None] = {}
    stack = [target]
    while stack:
        stage = stack.pop()
        if stage not in found:
            found[stage] = None
            stack += reversed([*([stage.base] if stage.base else []), *stage.deps])
    return list(found)


def _args(stages: Iterable[BuildStage], common: Mapping[str, ArgInfo]) -> list[dict[str, Any]]:
    """The arguments that stages use: a stage's own, else those before the first FROM."""
    found: dict[str, dict[str, Any]] = {}
    for stage in stages:
        known, waiting = ChainMap(stage.needs.args, dict(common)), list(stage.needs.used)
        used: set[str] = set()
        while waiting:
            key = waiting.pop()
            if key not in used:
                used.add(key)
                waiting += known[key].deps if key in known else ()
        for key in sorted(used & known.keys() - found.keys()):
            info = known[key]
            optional = {"description": info.definition.doc, "value": info.value}
            found[key] = {"name": info.definition.key} | _filled(
                optional | {"location": _location(info.ranges)}
            )
    return list(found.values())


_Needs = Callable[[BuildStage], Mapping[str, tuple[bool, tuple[Range, ...]]]]


def _needed(stages: Iterable[BuildStage], of: _Needs) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for stage in stages:
        for name, (required, ranges) in of(stage).items():
            rest = _filled({"required": required, "location": _location(ranges)})
            found.setdefault(name, {"name": name} | rest)
    return list(found.values())


def _by_line(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def line(entry: dict[str, Any]) -> int:
        ranges = entry.get("location", {}).get("ranges", [])
        return int(ranges[0]["start"].get("line", 0)) if ranges else 0

    return sorted(entries, key=line)


async def _lint(options: FrontendOptions, contexts: Contexts, source: SourceInfo) -> dict[str, str]:
    from bknb.frontend.dockerfile.frontend import compile_dockerfile
    from bknb.llb.pbjson import to_gojson

    warnings: list[LintWarning] = []
    problem: BknbError | None = None
    try:
        await compile_dockerfile(options, contexts, source, None, warnings, all_stages=not options.target)
    except BuildCancelled:
        raise
    except BknbError as error:
        problem = error
    definition = Definition.from_edge(source.definition)
    info = _filled({
        "filename": source.filename, "data": base64.b64encode(source.data).decode(),
        "definition": to_gojson(definition.to_message()), "language": source.language,
    })  # fmt: skip
    found: dict[str, Any] = {
        "warnings": [_lint_warning(warning) for warning in warnings] or None,
        "sources": [info],
    }
    if problem is not None:
        locations = problem.locations if isinstance(problem, DockerfileError) else ()
        location = _location(_joined(locations)) if locations else {}
        found["buildError"] = {"message": problem.message, "location": location}
    return {
        "result.json": gojson.dumps(found, indent=2),
        "result.txt": "".join(_lint_text(warning, source) for warning in sorted(warnings, key=_lint_order)),
        "result.statuscode": "1" if warnings or problem else "0",
        "version": "1.0.0",
    }


def _lint_warning(warning: LintWarning) -> dict[str, Any]:
    rule = warning.rule
    optional = {"description": rule.description, "url": rule.url, "detail": warning.text}
    location = _location(warning.ranges) or {}
    return {"ruleName": rule.name} | _filled(optional) | {"location": location}


def _lint_order(warning: LintWarning) -> tuple[bool, int, str]:
    line = warning.ranges[0].start_line if warning.ranges else 0
    return bool(warning.ranges), line, "" if warning.ranges else warning.rule.name


def _lint_text(warning: LintWarning, source: SourceInfo) -> str:
    url = f" - {warning.rule.url}" if warning.rule.url else ""
    place = excerpt(source.filename, decode(source.data), warning.ranges)
    return f"\nWARNING: {warning.rule.name}{url}\n{warning.text}\n{place}"


def _joined(locations: Sequence[tuple[Range, ...]]) -> tuple[Range, ...]:
    """Ranges in order, those that touch made one."""
    ranges = sorted((part for location in locations for part in location), key=lambda part: part.start_line)
    found: list[Range] = []
    for part in ranges:
        if found and part.start_line <= found[-1].end_line:
            last = found[-1]
            found[-1] = Range(
                last.start_line,
                last.start_character,
                max(last.end_line, part.end_line),
                last.end_character,
            )
        else:
            found.append(part)
    return tuple(found)


async def _convert(
    options: FrontendOptions, contexts: Contexts, source: SourceInfo, warnings: list[LintWarning]
) -> dict[str, str]:
    from bknb.frontend.dockerfile.frontend import compile_dockerfile
    from bknb.llb.pbjson import to_gojson, to_protojson
    from bknb.pb import ops_pb2 as pb

    compiled = await compile_dockerfile(options, contexts, source, None, warnings)
    edge, _ = compiled.graph()
    definition = Definition.from_edge(edge)
    message = definition.to_message()
    ops = {Digest.of(data): to_protojson(pb.Op.FromString(data)) for data in definition.ops}
    found = {
        "def": {digest: ops[digest] for digest in sorted(ops)},
        "metadata": {digest: to_gojson(message.metadata[digest]) for digest in sorted(ops)},
        "source": to_protojson(message.Source),
    }
    return {"result.json": gojson.dumps(found, indent=2), "version": "0.1.0"}


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def _location(ranges: Sequence[Range]) -> dict[str, Any] | None:
    """pb.Location in JSON; None where there is no place."""
    if not ranges:
        return None
    return {"ranges": [
        {
            "start": _filled({"line": part.start_line, "character": part.start_character}),
            "end": _filled({"line": part.end_line, "character": part.end_character}),
        }
        for part in ranges
    ]}  # fmt: skip


def _table(rows: Sequence[tuple[str, ...]], padding: int) -> str:
    """Columns in line; the last is not padded (Go's text/tabwriter)."""
    widths = [max(map(len, column)) + padding for column in list(zip(*rows, strict=True))[:-1]]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("".join([*cells, row[-1]]) + "\n")
    return "".join(lines)
