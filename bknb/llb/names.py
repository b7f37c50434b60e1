"""What an op is called where nobody gave it a name."""

from __future__ import annotations

from typing import Final

from bknb.llb.ops import (
    Action,
    BuildOp,
    CopyAction,
    DiffOp,
    ExecOp,
    FileOp,
    MergeOp,
    MkDirAction,
    MkFileAction,
    Op,
    PassthroughOp,
    RmAction,
    SourceOp,
    SymlinkAction,
)

ACTION_NAMES: Final = {
    CopyAction: "copy",
    MkFileAction: "mkfile",
    MkDirAction: "mkdir",
    RmAction: "rm",
    SymlinkAction: "symlink",
}
_KINDS: Final = {
    ExecOp: "exec", FileOp: "file", MergeOp: "merge", DiffOp: "diff", BuildOp: "build", PassthroughOp: "passthrough",
}  # fmt: skip
_SCHEMES: Final = {"docker-image": "image", "oci-layout": "image", "https": "http"}


def kind_of(op: Op) -> str:
    """What sort of step it is: ``exec``, ``file``, ``merge``..., of a source its scheme."""
    if isinstance(op, SourceOp):
        scheme = op.identifier.partition("://")[0]
        return _SCHEMES.get(scheme, scheme)
    return _KINDS[type(op)]


def name_of(op: Op) -> str:
    """A name for a vertex to which nobody gave one (solver/llbsolver/vertex.go, "llbOpName")."""
    match op:
        case SourceOp():
            return op.identifier
        case ExecOp(meta=meta) if meta is not None:
            return " ".join(meta.args)
        case FileOp(actions):
            named = (
                f"{ACTION_NAMES[type(a.action)]} {_path(a.action)}" for a in actions if a.action is not None
            )
            return ", ".join(named) or "file"
        case _:
            return kind_of(op)


def _path(action: Action) -> str:
    match action:
        case CopyAction(src, dest):
            return f"{src} {dest}"
        case SymlinkAction(old, new):
            return f"{new} -> {old}"
        case _:
            return action.path
