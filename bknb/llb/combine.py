"""Ops over whole states: merge, diff, nested builds, passthrough."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bknb.errors import DefinitionError
from bknb.llb.graph import Constraints, Defaults, Edges, Output, Pending
from bknb.llb.ops import BuildOp, DiffOp, MergeOp, PassthroughOp
from bknb.llb.vertex import Vertex

_DEFINITION: Final = "buildkit.llb.definition"


class PendingMerge(Pending):
    """Outputs laid over each other."""

    __slots__ = ("inputs", "output")

    def __init__(self, inputs: tuple[Output, ...], constraints: Constraints) -> None:
        super().__init__(constraints)
        self.inputs = inputs
        self.output = Output(self)

    def sources(self) -> Iterable[Output]:
        return self.inputs

    def make(self, edges: Edges, defaults: Defaults) -> Vertex:
        inputs = [edges.of(output) for output in self.inputs]
        return self.finish(MergeOp(tuple(range(len(inputs)))), inputs, edges, defaults, ("mergeop",))


class PendingDiff(Pending):
    """What one output has over another; None is scratch."""

    __slots__ = ("lower", "output", "upper")

    def __init__(self, lower: Output | None, upper: Output | None, constraints: Constraints) -> None:
        super().__init__(constraints)
        self.lower = lower
        self.upper = upper
        self.output = Output(self)

    def sources(self) -> Iterable[Output]:
        return [output for output in (self.lower, self.upper) if output is not None]

    def make(self, edges: Edges, defaults: Defaults) -> Vertex:
        inputs = [edges.of(output) for output in self.sources()]
        lower = -1 if self.lower is None else 0
        upper = -1 if self.upper is None else lower + 1
        return self.finish(DiffOp(lower, upper), inputs, edges, defaults, ("diffop",))


class PendingBuild(Pending):
    """A build of the definition that lies in an output's files."""

    __slots__ = ("filename", "output", "source")

    def __init__(self, source: Output, filename: str, constraints: Constraints) -> None:
        super().__init__(constraints)
        self.source = source
        self.filename = filename
        self.output = Output(self)

    def sources(self) -> Iterable[Output]:
        return (self.source,)

    def make(self, edges: Edges, defaults: Defaults) -> Vertex:
        attrs = {"llbbuild.filename": self.filename} if self.filename else {}
        op = BuildOp(-1, {_DEFINITION: 0}, None, attrs)
        platform = self.constraints.platform or defaults.platform
        return self.finish(
            op, [edges.of(self.source)], edges, defaults, ("source.buildop.llbfilename",), platform
        )


class PendingPassthrough(Pending):
    """Outputs handed on as they are, once all of them are there."""

    __slots__ = ("id", "inputs", "outputs", "shown")

    def __init__(self, id: str, inputs: tuple[tuple[Output, bool], ...], constraints: Constraints) -> None:
        super().__init__(constraints)
        self.id = id
        self.inputs = tuple(output for output, _ in inputs)
        self.shown = tuple(index for index, (_, is_output) in enumerate(inputs) if is_output)
        self.outputs = tuple(Output(self, index) for index in range(len(self.shown)))

    def sources(self) -> Iterable[Output]:
        return self.inputs

    def make(self, edges: Edges, defaults: Defaults) -> Vertex:
        if not self.inputs:
            raise DefinitionError("passthrough must have at least one input")
        if not self.id:
            raise DefinitionError("passthrough requires an id")
        if not self.shown:
            raise DefinitionError("passthrough must have at least one output")
        inputs = [edges.of(output) for output in self.inputs]
        return self.finish(PassthroughOp(self.id, self.shown), inputs, edges, defaults, ("passthroughop",))
