"""The typed tree of a Dockerfile: one frozen dataclass per instruction.

Two levels, as in BuildKit. A `Node` is one instruction cut into words (module `nodes`; BuildKit's
frontend/dockerfile/parser); it exists for every instruction that could be cut, known or not. An
`Instruction` is what a node means (frontend/dockerfile/instructions); nothing in it is expanded yet, since a
variable's value is known only when stages are walked: `args.expand` makes the expanded copy.

Texts are `str`. Bytes of the file that are not UTF-8 are kept as surrogate escapes (PEP 383), so
``text.encode("utf-8", "surrogateescape")`` gives the file's bytes back. Flag values are the one exception:
BuildKit reads them byte by byte as Latin-1, so that `ü` becomes two characters, and so do we.

Lines count from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bknb.errors import Range
from bknb.frontend.dockerfile.nodes import EmptyContinuation as EmptyContinuation
from bknb.frontend.dockerfile.nodes import Heredoc as Heredoc
from bknb.frontend.dockerfile.nodes import Node as Node
from bknb.frontend.dockerfile.nodes import Problem as Problem
from bknb.frontend.dockerfile.nodes import line_ranges as line_ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What every instruction has.

    Attributes:
        keyword: the instruction word as written.
        text: the instruction as in `Node.original`, trimmed: what names a step and stands in history.
        start_line, end_line: first and last line, heredocs included.
        comments: see `Node.comments`; a `check=` line among them changes the lint rules of this
            instruction only.
    """

    keyword: str
    text: str
    start_line: int
    end_line: int
    comments: tuple[str, ...] = ()

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Every line of it."""
        return line_ranges(self.start_line, self.end_line)


@dataclass(frozen=True, slots=True)
class KeyValue:
    """`key=value`, or the old form `key value` when `legacy`. Quotes are still there."""

    key: str
    value: str
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class ArgDefinition:
    """`key` or `key=default` of an ARG; `doc` is the comment above that begins with the key."""

    key: str
    value: str | None = None
    doc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """`FROM [--platform=P] BASE [AS NAME]`; `name` is in lower case, "" if none."""

    base: str
    name: str = ""
    platform: str = ""
    doc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """`ARG A B=1`."""

    args: tuple[ArgDefinition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    """`ENV A=1 B=2`."""

    pairs: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    """`LABEL a=1 b=2`."""

    pairs: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    """`MAINTAINER NAME`, deprecated."""

    maintainer: str


Network = Literal["default", "none", "host"]
Security = Literal["sandbox", "insecure"]


@dataclass(frozen=True, slots=True)
class MountFlag:
    """A `RUN --mount=` as far as it can be read before its variables are expanded.

    Attributes:
        text: the flag's value.
        fields: its comma-separated fields, quotes resolved.
        from_: the stage or image of `from=`, which takes no variables; "" if none.
    """

    text: str
    fields: tuple[str, ...]
    from_: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """A `RUN --device=`."""

    name: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine(Instruction):
    """What RUN, CMD and ENTRYPOINT have in common.

    Attributes:
        args: JSON form: the array. Shell form: the command as one string, or nothing.
        shell_form: the stage's shell is to be put before it.
        files: the here-documents on the line.
    """

    args: tuple[str, ...]
    shell_form: bool
    files: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(CommandLine):
    """`RUN [flags] COMMAND`; `flags_used` names the flags given, each once, in order."""

    mounts: tuple[MountFlag, ...] = ()
    network: Network = "default"
    security: Security = "sandbox"
    devices: tuple[Device, ...] = ()
    flags_used: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(CommandLine):
    """`CMD COMMAND`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(CommandLine):
    """`ENTRYPOINT COMMAND`."""


@dataclass(frozen=True, slots=True)
class InlineFile:
    """A here-document as a source of COPY or ADD, tabs already removed for `<<-`."""

    name: str
    content: str
    expand: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTransfer(Instruction):
    """What COPY and ADD have in common. `sources` are paths or URLs, `files` the here-documents."""

    sources: tuple[str, ...]
    files: tuple[InlineFile, ...]
    dest: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(FileTransfer):
    """`COPY [flags] SOURCE... DEST`."""

    from_: str = ""
    parents: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(FileTransfer):
    """`ADD [flags] SOURCE... DEST`; None where a flag was not given and its default depends."""

    keep_git_dir: bool | None = None
    checksum: str = ""
    unpack: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    """`WORKDIR PATH`."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    """`USER NAME[:GROUP]`."""

    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    """`EXPOSE PORT...`, the ports sorted bytewise as BuildKit does when parsing."""

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    """`VOLUME PATH...`."""

    volumes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopsignal(Instruction):
    """`STOPSIGNAL SIGNAL`."""

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Instruction):
    """`HEALTHCHECK`; durations in nanoseconds, 0 means not given.

    Attributes:
        test: ("NONE",), ("CMD", ...) or ("CMD-SHELL", command).
    """

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    """`SHELL ["EXECUTABLE", "ARG"...]`."""

    shell: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild(Instruction):
    """`ONBUILD INSTRUCTION`; `expression` is the trigger as it goes into the image's configuration."""

    expression: str


Command = (
    Arg
    | Env
    | Label
    | Maintainer
    | Run
    | Cmd
    | Entrypoint
    | Copy
    | Add
    | Workdir
    | User
    | Expose
    | Volume
    | Stopsignal
    | Healthcheck
    | Shell
    | Onbuild
)


@dataclass(frozen=True, slots=True)
class Stage:
    """A FROM and the commands up to the next one."""

    head: From
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Directive:
    """A parser directive.

    Attributes:
        name: in lower case.
        value: up to the first space (for `syntax`: the frontend image).
        full: the whole value (for `syntax`: the image and its arguments).
        line: where; 0 for the JSON form of `syntax`.
    """

    name: str
    value: str
    full: str
    line: int


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A parsed Dockerfile: what could be read, and why the rest could not.

    Attributes:
        source: the file's bytes.
        escape: the escape character, a backslash or a backtick.
        nodes: every instruction that could be cut into words.
        meta_args: the ARGs before the first FROM.
        stages: in file order.
        syntax: the `syntax` directive, in any of its three forms.
        check_directive: the `check` directive.
        syntax_errors: what could not be cut into instructions.
        instruction_errors: nodes that mean nothing.
        understood: how many nodes come before the first of `instruction_errors`.
        empty_continuations: for the linter.
    """

    source: bytes
    escape: str
    nodes: tuple[Node, ...]
    meta_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    syntax: Directive | None
    check_directive: Directive | None
    syntax_errors: tuple[Problem, ...]
    instruction_errors: tuple[Problem, ...]
    understood: int
    empty_continuations: tuple[EmptyContinuation, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """All of them; the first is the one that BuildKit reports, since it cuts the whole file first."""
        return self.syntax_errors + self.instruction_errors

    def check(self) -> None:
        """Does nothing if the file is right.

        Raises:
            DockerfileError: the first error.
        """
        if self.errors:
            raise self.errors[0].error()

    def dump(self) -> str:
        """All nodes as s-expressions, one a line."""
        return "\n".join(f"({node.dump()})" for node in self.nodes)
