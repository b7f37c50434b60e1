"""From options to what a builder is asked, and to the session that answers its questions."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bknb.api.filters import check_filters, check_target
from bknb.errors import SourceError, UnsupportedError, UsageError
from bknb.llb.vertex import Edge
from bknb.options import BuildOptions, Output
from bknb.protocols import ExportRequest, LocalDirectory, Origin, SolveRequest
from bknb.reference import Reference
from bknb.session import LocalSession
from bknb.session.local import parse_secret, parse_ssh

_REMOTE = ("http://", "https://", "git://", "ssh://", "git@", "docker-image://", "oci-layout://", "target:")
_LARGEST = 16 << 20
_SECRET_WORDS = ("apikey", "auth", "credential", "key", "password", "pword", "passwd", "secret", "token")
"""frontend/dockerfile/dockerfile2llb/convert.go calls such names of build arguments secret; their values are not recorded."""


def build_session(
    options: BuildOptions, dockerfile: str | bytes | None, withheld: Sequence[str], environ: Mapping[str, str],
    *, llb: bool = False,
) -> LocalSession:  # fmt: skip
    """The folders, secrets and agents that the options name.

    Raises:
        UsageError, SourceError: one of them is not there.
    """
    context = options.context or "."
    if context.startswith(_REMOTE):
        raise UnsupportedError(
            f"the context {context} is not a folder: contexts from git and http are not there yet; clone it and name the folder"
        )
    path = os.path.abspath(os.path.expanduser(context))
    if context != "-" and not os.path.isdir(path):
        raise SourceError(
            f"the context {context} is not a folder: name the folder that COPY shall read, or '-' for none"
        )
    directories = {"context": LocalDirectory(path, tuple(withheld), files={} if context == "-" else None)}
    if dockerfile is not None:
        data = dockerfile if isinstance(dockerfile, bytes) else dockerfile.encode()
        directories["dockerfile"] = LocalDirectory(path, files={"Dockerfile": data})
    elif not llb:
        directories["dockerfile"] = LocalDirectory(os.path.dirname(_dockerfile(options, path)))
    for name, where in options.build_contexts.items():
        if not where.startswith(_REMOTE):
            folder = os.path.abspath(os.path.expanduser(where))
            if not os.path.isdir(folder):
                raise SourceError(f"--build-context {name}={where}: {where} is not a folder")
            directories[f"context:{name}"] = LocalDirectory(folder, tuple(withheld), shared_key=name)
            directories[name] = directories[f"context:{name}"]
    secrets = dict(parse_secret(text) for text in options.secrets)
    for id, source in secrets.items():
        source.check(id)
    agents = dict(parse_ssh(text, environ) for text in options.ssh)
    if options.llb:  # what is only compiled names no session, so that it can be built by any other
        return LocalSession(directories, secrets, agents, environ, id="")
    return LocalSession(directories, secrets, agents, environ)


def build_request(
    options: BuildOptions,
    session: LocalSession,
    edge: Edge | None,
    *,
    llb: bool,
    origin: Origin,
    dockerfile: str | bytes | None,
) -> SolveRequest:
    """What the builder is asked.

    Raises:
        UsageError: outputs that do not fit together.
    """
    opts = options.frontend_opts()
    context, file = session.directories["context"].path, ""
    if dockerfile is None and not llb:
        file = _dockerfile(options, context)
        opts["filename"] = os.path.basename(file)
    for name, where in options.build_contexts.items():
        opts[f"context:{name}"] = where if where.startswith(_REMOTE) else f"local:{name}"
    if options.no_cache_filter and not llb:
        check_filters(options.no_cache_filter, _text(options, session, dockerfile))
    if options.target and not llb:
        check_target(options.target, _text(options, session, dockerfile))
    names = (*options.tags, options.target, os.path.basename(options.file))
    title = next((word for word in names if word), "LLB" if llb else "Dockerfile")
    return SolveRequest(
        frontend="" if llb else "dockerfile.v0",
        opts=opts,
        edge=edge,
        exports=() if options.llb or options.call != "build" else exports(options),
        max_parallelism=options.max_parallelism,
        entitlements=options.allow,
        title=title,
        origin=replace(origin, context=origin.context or ("" if options.context == "-" else context), dockerfile=file),
        compile_only=options.llb or options.call != "build",
        fail_on_miss=options.fail_on_miss,
    )


def _text(options: BuildOptions, session: LocalSession, dockerfile: str | bytes | None) -> str | bytes:
    """The Dockerfile; nothing of one that cannot be read, which whoever compiles it says."""
    if dockerfile is not None:
        return dockerfile
    try:
        with open(_dockerfile(options, session.directories["context"].path), "rb") as file:
            return file.read(_LARGEST)
    except OSError:
        return ""


def exports(options: BuildOptions) -> tuple[ExportRequest, ...]:
    """The outputs of a build. A tag keeps the image in the store, beside whatever else is asked for.

    Raises:
        UsageError: a push without a name.
    """
    names = ",".join(str(Reference.parse(tag)) for tag in options.tags)
    found = [_export(output, options, names) for output in options.outputs]
    if (options.tags or options.load or options.push) and not any(e.type == "image" for e in found):
        found.append(_export(Output("image"), options, names))
    return tuple(found)


def _export(output: Output, options: BuildOptions, names: str) -> ExportRequest:
    attrs = dict(output.attrs)
    _check_place(output)
    if output.type in ("image", "oci", "docker"):
        if names:
            attrs.setdefault("name", names)
        attrs.update(_annotation(text) for text in options.annotations)
    if output.type == "image" and options.push:
        attrs["push"] = "true"
    if options.build_args.get("SOURCE_DATE_EPOCH"):
        attrs.setdefault("source-date-epoch", options.build_args["SOURCE_DATE_EPOCH"] or "")
    return ExportRequest(output.type, attrs)


def _check_place(output: Output) -> None:
    """Whether a file can be made where it shall go; no folder is made for it (docker/buildx, controller/pb/export.go).

    Raises:
        SourceError: its folder is not there, or it is one.
    """
    dest = output.attrs.get("dest", "-")
    is_file = output.type == "tar" or (
        output.type in ("oci", "docker") and output.attrs.get("tar", "true").lower() in ("true", "1", "t")
    )
    if not is_file or dest == "-":
        return
    if os.path.isdir(dest):
        raise SourceError(f"destination {dest} is a folder: say which file, dest={dest}/out.tar")
    if not os.path.isdir(os.path.dirname(dest)):
        raise SourceError(f"cannot write {dest}: there is no folder {os.path.dirname(dest)}; make it first")


def _annotation(text: str) -> tuple[str, str]:
    """``[TYPE[PLATFORM]:]KEY=VALUE`` as an exporter's attribute (docker/buildx, util/buildflags/export.go)."""
    key, equals, value = text.partition("=")
    found = re.fullmatch(r"(?:(index|manifest|manifest-descriptor|index-descriptor)(\[[^\]]+\])?:)?(.+)", key)
    if not equals or found is None:
        raise UsageError(f"--annotation {text}: write KEY=VALUE, or manifest:KEY=VALUE, index:KEY=VALUE")
    kind = f"-{found[1]}" if found[1] else ""
    return f"annotation{kind}{found[2] or ''}.{found[3]}", value


def _dockerfile(options: BuildOptions, context: str) -> str:
    """Absolute path of the Dockerfile."""
    path = (
        os.path.abspath(os.path.expanduser(options.file))
        if options.file
        else os.path.join(context, "Dockerfile")
    )
    if not options.file and not os.path.exists(path) and os.path.exists(os.path.join(context, "dockerfile")):
        path = os.path.join(context, "dockerfile")
    if not os.path.exists(path):
        if options.file:
            raise SourceError(f"-f {options.file}: there is no such file (it is looked for from here, not from CONTEXT)")
        raise SourceError(f"there is no Dockerfile in {context}: name it with -f")
    return path


def redact(words: Sequence[str]) -> str:
    """A build's words for its record: values of build arguments whose name looks like a secret's are taken out.

    >>> redact(["--build-arg", "API_TOKEN=x", "--build-arg", "V=1", "."])
    '--build-arg API_TOKEN=*** --build-arg V=1 .'
    """
    out = []
    for word in words:
        option, separator, rest = word.partition("=") if word.startswith("--build-arg=") else ("", "", word)
        name, equals, _ = rest.partition("=")
        secret = equals and any(
            hint in name.lower().replace("_", "").replace("-", "") for hint in _SECRET_WORDS
        )
        out.append(f"{option}{separator}{name}=***" if secret and not name.startswith("-") else word)
    return " ".join(out)
