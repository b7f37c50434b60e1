"""COPY and ADD (dockerfile2llb/convert_copy.go)."""

from __future__ import annotations

import posixpath
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from bknb import llb
from bknb.errors import DockerfileError
from bknb.frontend.dockerfile import ast, ospath
from bknb.frontend.dockerfile.checksum import parse_checksum
from bknb.frontend.dockerfile.chmod import check_symbolic_mode
from bknb.frontend.dockerfile.gitref import GitRef, is_git_source, is_http_source, parse_git_ref
from bknb.frontend.dockerfile.gotext import encode, parse_uint, quote
from bknb.frontend.dockerfile.naming import instruction_name
from bknb.frontend.dockerfile.stages import BuildStage, Step
from bknb.llb.graph import Constraints
from bknb.llb.url import URL
from bknb.llb.values import clean, join
from bknb.llb.vertex import ProgressGroup

if TYPE_CHECKING:
    from bknb.frontend.dockerfile.lower import Lowering

# BuildKit has no limit, and takes as long as it takes.
_MAX_SOURCES: Final = 10_000
_ROOT_PATTERNS: Final = ("*", "**", "**/*")


@dataclass(frozen=True, slots=True)
class _Source:
    """One thing to copy, and how."""

    state: llb.State
    path: str
    options: dict[str, Any]


def lower_copy(lowering: Lowering, stage: BuildStage, step: Step, command: ast.Copy | ast.Add) -> None:
    """Lower one COPY or ADD.

    Raises:
        DockerfileError: a source that is not what the instruction takes.
    """
    count = len(command.sources) + len(command.files)
    if count > _MAX_SOURCES:
        raise DockerfileError(f"{count} sources are too many for one instruction: at most {_MAX_SOURCES}")
    source = _source_stage(lowering, stage, step, command)
    dest = _destination(stage, command.dest)
    mode = _mode(command.chmod)
    _check_checksum(command)
    text = instruction_name(command.text, lowering.conversion.lex, lowering.env(stage))
    first = stage.steps_done
    name = lowering.name(stage, step, text, platform=stage.platform)
    state = lowering.context if source is None else source.state
    action: llb.FileAction | None = None
    for found in _sources(lowering, stage, step, command, state, name, from_context=source is None):
        options: dict[str, Any] = {"create_dest": True, "owner": command.chown or None, "mode": mode}
        options |= found.options | {"exclude": command.exclude}
        one = llb.copy(found.state, found.path, dest, **options)
        action = one if action is None else replace(one, before=action)
    assert action is not None
    constraints = lowering.constraints(step, name, ignore_cache=lowering.ignores_cache(stage, step))
    if command.link and not command.chmod:
        stage.steps_done = first
        _link(lowering, stage, step, action, constraints, text)
    else:
        stage.state = stage.state.file(action, constraints=constraints)
    lowering.note(stage, step, stage.state)
    lowering.commit(stage, _history(command), layer=True)
    _note_paths(stage, source, command)


def _source_stage(
    lowering: Lowering, stage: BuildStage, step: Step, command: ast.Copy | ast.Add
) -> BuildStage | None:
    if not step.sources:
        return None
    source = step.sources[0]
    if not source.dispatched:
        from_ = command.from_ if isinstance(command, ast.Copy) else ""
        raise DockerfileError(
            f"cannot copy from stage {quote(from_)}, it needs to be defined before current stage "
            f"{quote(stage.shown)}"
        )
    return source


def _destination(stage: BuildStage, dest: str) -> str:
    assert stage.platform is not None
    system = stage.platform.os
    try:
        dest = ospath.drop_drive(dest, system, keep_slash=True)
    except DockerfileError as error:
        raise DockerfileError(f"removing drive letter: {error.message}") from None
    if ospath.is_absolute(dest, system):
        return ospath.normalize("/", dest, system, keep_slash=True)
    dest = "./" if dest in (".", "") else dest
    return ospath.normalize(stage.state.values.dir, dest, system, keep_slash=True)


def _mode(chmod: str) -> int | str | None:
    if not chmod:
        return None
    octal = DockerfileError(
        f"invalid chmod parameter: '{chmod}'. it should be octal string and between 0 and 07777"
    )
    number = parse_uint(chmod, 8, 32)
    if number is not None:
        if number > 0o7777:
            raise octal
        return number
    try:
        check_symbolic_mode(chmod)
    except ValueError as error:
        raise (DockerfileError(str(error)) if str(error) else octal) from None
    return chmod


def _check_checksum(command: ast.Copy | ast.Add) -> None:
    if not isinstance(command, ast.Add) or not command.checksum:
        return
    if len(command.sources) != 1:
        raise DockerfileError("checksum can't be specified for multiple sources")
    if not is_http_source(command.sources[0]) and not is_git_source(command.sources[0]):
        raise DockerfileError("checksum requires HTTP(S) or Git sources")


def _sources(
    lowering: Lowering,
    stage: BuildStage,
    step: Step,
    command: ast.Copy | ast.Add,
    state: llb.State,
    name: str,
    *,
    from_context: bool,
) -> Iterator[_Source]:
    """What an instruction copies: its sources, then its here-documents, whatever their order in the file."""
    adds = isinstance(command, ast.Add)
    git = _GitFlags.of(command)
    for src in command.sources:
        found = parse_git_ref(src)
        if found is not None and not found.like_local:
            if not adds:
                raise DockerfileError("source can't be a git ref for COPY")
            git = git.joined(found)
            yield _Source(git.state(found, name), "/", {})
        elif is_http_source(src):
            if not isinstance(command, ast.Add):
                raise DockerfileError("source can't be a URL for COPY")
            yield _http(src, command, git.checksum, name)
        else:
            if from_context:
                _check_ignored(lowering, step, src)
                lowering.uses_context = True
            yield _local(stage, command, state, src)
    for file in command.files:
        yield _inline(stage, file)


@dataclass(frozen=True, slots=True)
class _GitFlags:
    """ADD's flags for repositories; what an address says is kept for the sources after it."""

    keep_git_dir: bool | None = None
    checksum: str = ""

    @classmethod
    def of(cls, command: ast.Copy | ast.Add) -> _GitFlags:
        return cls(command.keep_git_dir, command.checksum) if isinstance(command, ast.Add) else cls()

    def joined(self, found: GitRef) -> _GitFlags:
        keep, checksum = self.keep_git_dir, self.checksum
        if found.keep_git_dir is not None:
            if keep is not None and keep != found.keep_git_dir:
                raise DockerfileError("inconsistent keep-git-dir configuration")
            keep = found.keep_git_dir
        if found.checksum:
            if checksum not in ("", found.checksum):
                raise DockerfileError(f"checksum mismatch {quote(checksum)} != {quote(found.checksum)}")
            checksum = found.checksum
        return _GitFlags(keep, checksum)

    def state(self, found: GitRef, name: str) -> llb.State:
        options = llb.GitOptions(
            ref=found.ref,
            subdir=found.subdir,
            keep_git_dir=self.keep_git_dir is True,
            checksum=self.checksum,
            skip_submodules=found.submodules is False,
            fetch_by_commit=found.fetch_by_commit,
        )
        return llb.git(found.remote, "", options, name=name)


def _http(src: str, command: ast.Add, checksum: str, name: str) -> _Source:
    checksum = parse_checksum(checksum) if checksum else ""
    filename = http_filename(src)
    constraints = Constraints(name=name, description={"com.docker.dockerfile.v1.command": ""})
    state = llb.http(src, filename=filename, checksum=checksum, constraints=constraints)
    return _Source(state, filename, {"unpack": command.unpack is True})


def http_filename(src: str) -> str:
    """What a file of the web is called.

    >>> http_filename("https://example.com/a/b.tgz?x"), http_filename("https://example.com")
    ('b.tgz', '__unnamed__')
    """
    try:
        path = URL.parse(src).path
    except ValueError:
        return "__unnamed__"
    name = posixpath.basename(path.rstrip("/"))
    return "__unnamed__" if name in ("", ".") else name


def _local(stage: BuildStage, command: ast.Copy | ast.Add, state: llb.State, src: str) -> _Source:
    assert stage.platform is not None
    system = stage.platform.os
    options: dict[str, Any] = {
        "follow_symlinks": True,
        "contents_only": True,
        "wildcard": True,
        "allow_empty_wildcard": True,
        "unpack": isinstance(command, ast.Add) and command.unpack is not False,
    }
    if isinstance(command, ast.Copy) and command.parents:
        parent, pivot, pattern = src.partition("/./")
        src, pattern = (parent, pattern) if pivot else ("/", src)
        pattern = _normal(pattern, system)
        options["include"] = (pattern.removeprefix("/"),)
        if not _has_wildcards(src) and not _has_wildcards(pattern):
            options["required"] = (_normal(join(src, pattern), system),)
    return _Source(state, _normal(src, system), options)


def _normal(path: str, system: str) -> str:
    try:
        return ospath.normalize("/", path, system)
    except DockerfileError as error:
        raise DockerfileError(f"removing drive letter: {error.message}") from None


def _has_wildcards(path: str) -> bool:
    return re.search(r"[*?\[]", re.sub(r"\\.", "", path, flags=re.DOTALL)) is not None


def _inline(stage: BuildStage, file: ast.InlineFile) -> _Source:
    assert stage.platform is not None
    try:
        path = ospath.drop_drive(file.name, stage.platform.os)
    except DockerfileError as error:
        raise DockerfileError(f"removing drive letter: {error.message}") from None
    constraints = Constraints(platform=stage.platform, name="[internal] preparing inline document")
    state = llb.scratch().file(llb.mkfile(path, encode(file.content), 0o644), constraints=constraints)
    return _Source(state, ospath.to_slash(path, stage.platform.os), {})


def _check_ignored(lowering: Lowering, step: Step, src: str) -> None:
    """The build check for sources that the ignore file withholds."""
    matcher = lowering.matcher
    # What a `!` takes back below an ignored folder cannot be told from the text.
    if matcher is None or matcher.exclusions:
        return
    src = clean(src)
    if src in (".", "/"):
        patterns = [pattern.text for pattern in matcher.patterns if not pattern.exclusion]
        if not any(pattern in _ROOT_PATTERNS for pattern in patterns):
            return
    from bknb.patterns import PatternError

    try:
        ignored = matcher.matches(src)
    except PatternError:
        return
    if ignored:
        kind = "Add" if isinstance(step.command, ast.Add) else "Copy"
        lowering.lint.run("CopyIgnoredFile", step.ranges, kind, src)


def _link(
    lowering: Lowering,
    stage: BuildStage,
    step: Step,
    action: llb.FileAction,
    constraints: Constraints,
    text: str,
) -> None:
    """Copy onto nothing and lay the result over the stage: the copy does not depend on what is below."""
    group = secrets.token_hex(12)
    first = stage.steps_done
    name = lowering.name(stage, step, text, platform=stage.platform)
    stage.steps_done = first
    weak = ProgressGroup(group, name, weak=True)
    copied = llb.scratch().file(
        action, constraints=replace(constraints, platform=stage.platform, progress_group=weak)
    )
    lowering.note(stage, step, copied)
    shown = lowering.name(stage, step, f"LINK {text}", platform=stage.platform)
    merged = replace(constraints, name=shown, progress_group=ProgressGroup(group, name))
    stage.state = stage.state.with_output(llb.merge([stage.state, copied], constraints=merged).output)


def _history(command: ast.Copy | ast.Add) -> str:
    words = ["ADD" if isinstance(command, ast.Add) else "COPY"]
    words += ["--parents"] if isinstance(command, ast.Copy) and command.parents else []
    words += [f"--chown={command.chown}"] if command.chown else []
    words += [f"--chmod={command.chmod}"] if command.chmod else []
    words += [*command.sources, *(f"<<{file.name}" for file in command.files), command.dest]
    return " ".join(words) + " # buildkit"


def _note_paths(stage: BuildStage, source: BuildStage | None, command: ast.Copy | ast.Add) -> None:
    """Which paths are used, and of what."""
    for src in command.sources:
        if isinstance(command, ast.Add) and src.startswith(("http://", "https://")):
            continue
        (stage.context_paths if source is None else source.paths).add(join("/", src))
