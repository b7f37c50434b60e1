"""One build as a file: a zip of JSON lines and texts, with no live objects in it.

``build.json`` says what it is, ``events.jsonl`` is what happened, ``definitions/N.pb`` are the graphs of each
platform, ``Dockerfile`` is the source. A file from elsewhere is read with bounds and never unpacked to a disk.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bknb.errors import UsageError
from bknb.events import Event, from_json
from bknb.llb.veil import Veil
from bknb.protocols import FrontendResult
from bknb.record import Record

FORMAT: Final = 1
MAX_ENTRY: Final = 256 << 20
"""Bytes of one entry of a file that is read."""


@dataclass(frozen=True, slots=True)
class SavedBuild:
    """What a file holds.

    Attributes:
        id: of the build.
        events: everything that happened, to be replayed.
        definitions: serialised pb.Definition of each platform; `Definition.from_bytes` reads them.
        dockerfile: its bytes, under `filename`.
        metadata: what the exporters answered.
        record: what else is known of it.
        texts: digest -> what it was taken of: lists of the files that steps read, and what sources meant.
        removed: step -> when its result had been removed before it ran again (unix seconds), and by what, in words.
        reasons: what its picture said of why (`display.Reasons`).
        veiled: as in a `Record`.
    """

    id: str
    events: tuple[Event, ...]
    definitions: tuple[bytes, ...] = ()
    dockerfile: bytes = b""
    filename: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    record: Record | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    removed: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    reasons: Mapping[str, Any] = field(default_factory=dict)
    veiled: Mapping[str, str] = field(default_factory=dict)


def save_build(
    path: str | os.PathLike[str],
    id: str,
    events: Iterable[Event],
    frontend: FrontendResult,
    metadata: Mapping[str, str],
    record: Record | None = None,
    *,
    texts: Mapping[str, str] | None = None,
    removed: Mapping[str, tuple[float, str]] | None = None,
    reasons: Mapping[str, Any] | None = None,
    veil: Veil = Veil(),  # noqa: B008 - frozen
) -> None:
    """Write a build to a file, whole or not at all; the arguments are as in `SavedBuild`, `veil` takes values out.

    Raises:
        UsageError: the file cannot be written.
    """
    about = {"format": FORMAT, "id": id, "filename": frontend.filename, "metadata": dict(metadata)}
    if record is not None:
        about["record"] = record.to_json()
    definitions = [veil.definition(result.edge) for result in frontend.results]
    veiled = {new: old for _, changed in definitions for new, old in changed.items()}
    kept = (("removed", removed), ("reasons", reasons), ("veiled", veiled))
    about |= {name: dict(given) for name, given in kept if given}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("build.json", json.dumps(about, indent=1))
        with archive.open("events.jsonl", "w") as lines:
            lines.writelines(veil.value(event).to_bytes() + b"\n" for event in events)
        if texts:
            archive.writestr("texts.json", json.dumps(texts))
        if frontend.source:
            archive.writestr("Dockerfile", veil.data(frontend.source))
        for number, (definition, _) in enumerate(definitions):
            archive.writestr(f"definitions/{number}.pb", definition)
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(made.getvalue())
        unfinished.replace(target)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UsageError(f"cannot save the build to {target}: {error.strerror}") from None


def open_build(path: str | os.PathLike[str]) -> SavedBuild:
    """Read the file of `save_build`.

    Raises:
        UsageError: it is not there, or is no such file, or of a newer bknb.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, os.fspath(path))
    except OSError as error:
        raise UsageError(f"cannot open {os.fspath(path)}: {error.strerror}") from None
    except (
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        EOFError,
        RecursionError,
        NotImplementedError,
        RuntimeError,
    ):
        raise UsageError(f"{os.fspath(path)} is not a saved build") from None


def _read(archive: zipfile.ZipFile, path: str) -> SavedBuild:
    about = json.loads(_entry(archive, "build.json"))
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise ValueError("no format")
    if about["format"] > FORMAT:
        raise UsageError(
            f"{path} was written by a newer bknb (format {about['format']}, here {FORMAT}): update bknb"
        )
    lines = _entry(archive, "events.jsonl").decode().splitlines()
    names = set(archive.namelist())
    definitions: list[bytes] = []
    while f"definitions/{len(definitions)}.pb" in names:
        definitions.append(_entry(archive, f"definitions/{len(definitions)}.pb"))
    record = about.get("record")
    return SavedBuild(
        str(about["id"]),
        tuple(from_json(json.loads(line)) for line in lines),
        tuple(definitions),
        _entry(archive, "Dockerfile") if "Dockerfile" in names else b"",
        str(about.get("filename", "")),
        _words(about.get("metadata", {})),
        Record.from_json(record) if record is not None else None,
        _words(json.loads(_entry(archive, "texts.json"))) if "texts.json" in names else {},
        {
            str(step): (float(when), str(said))
            for step, (when, said) in dict(about.get("removed", {})).items()
        },
        reasons if isinstance(reasons := about.get("reasons", {}), dict) else {},
        _words(about.get("veiled", {})),
    )


def _words(given: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in given.items()} if isinstance(given, dict) else {}


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        data: Any = file.read(MAX_ENTRY + 1)
    if len(data) > MAX_ENTRY:
        raise ValueError(f"{name} is too large")
    return bytes(data)
