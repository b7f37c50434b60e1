"""Ops on trees: layer directories made and measured, and trees read, archived and unpacked.

Layer directories (`layer` is a host path; stacks are lists of them, bottom first; `marks` names a spelling of
whiteouts, see `marks.py`):

- ``make(path, like, work)``: a folder PATH with ``fs`` and ``work`` in it; its "/" is like that of the layer `like`
- ``make_each(folders)``: the same of several, as (path, like, work)
- ``seal(path, lower, marks)``: PATH/fs was written over the stack `lower`: make it immutable
- ``seal_each(layers, marks)``: the same of several, as (path, lower) pairs; a list
- ``flatten(layers, below, path, marks, copying)``: PATH/fs does to `below` what the stack `layers` does
- ``difference(lower, upper, path, marks)``: PATH/fs is what the stack `upper` has over `lower`
- ``copy(layers, path, marks)``, ``distill(path, lower, marks)``: `make` and `seal` without overlayfs:
  PATH/fs starts as a copy of the whole stack, and is cut down to what was changed
- ``measure(path, marks)``: a layer directory itself
- ``remove(paths)``: remove folders, whatever is in them; the paths that are left
- ``layer_tar(layer, lower, marks, epoch)``: the archive of a layer, to the descriptor handed over

Trees (given as mounts):

- ``tar(mounts, epoch)``: the archive of all of it, to the descriptor handed over
- ``apply(mounts)``: unpack the archive that comes from the descriptor handed over; the number of entries

Those that make a layer, and ``measure``, answer ``{bytes, inodes, marks, plain}``.
"""

from __future__ import annotations

import contextlib
import marshal
import os
from collections.abc import Sequence
from typing import Any

from bknb import beneath
from bknb.shim import farm, grafting
from bknb.shim.marks import marks_of
from bknb.shim.mounts import Mounts, open_tree
from bknb.shim.same import copy_metadata
from bknb.shim.server import Context, Failure
from bknb.shim.stack import DIRECTORY, Roots
from bknb.shim.tarread import TarError
from bknb.shim.tarwrite import LayerTar, Writer
from bknb.shim.unpack import Unpacker


def make(context: Context, fds: list[int], *, path: str, like: str = "", work: bool = True) -> None:
    """A new, empty layer directory for writing."""
    os.mkdir(path, 0o711)
    os.mkdir(f"{path}/fs", 0o755)
    if work:
        os.mkdir(f"{path}/work", 0o700)
    if like:
        with Roots([like], [f"{path}/fs"]) as ((source,), (target,)):
            copy_metadata(source, target, os.fstat(source))


def make_each(context: Context, fds: list[int], *, folders: Sequence[tuple[str, str, bool]]) -> None:
    """`make` of several, as (path, like, work)."""
    for path, like, work in folders:
        context.check()
        make(context, fds, path=path, like=like, work=work)


def seal(context: Context, fds: list[int], *, path: str, lower: Sequence[str], marks: str) -> dict[str, Any]:
    """A written layer directory becomes immutable, and fit to be stacked on anything.

    An opaque directory hides all that is below, wherever it is merged to; what its step did was to delete
    what was there. So it becomes a whiteout for each of those.
    """
    _remove(f"{path}/work")
    spelling = marks_of(marks)
    linked = grafting.noted(path)
    with Roots([f"{path}/fs"]) as ((layer,),):
        made = farm.measure(layer, spelling, context.check, linked)
        if made.opaque:
            with Roots(lower) as (stack,):
                for opaque in made.opaque:
                    farm.expand(layer, stack, opaque, spelling)
            made = farm.measure(layer, spelling, context.check, linked)
    grafting.settled(path)
    return made.to_dict()


def seal_each(
    context: Context, fds: list[int], *, layers: Sequence[tuple[str, Sequence[str]]], marks: str
) -> list[dict[str, Any]]:
    """`seal` of several, as (path, lower) pairs."""
    return [seal(context, fds, path=path, lower=lower, marks=marks) for path, lower in layers]


def flatten(
    context: Context,
    fds: list[int],
    *,
    layers: Sequence[str],
    below: Sequence[str],
    path: str,
    marks: str,
    copying: bool = False,
) -> dict[str, Any]:
    """One layer directory out of several; see `farm.Farm.flatten`."""
    make(context, fds, path=path)
    with Roots([f"{path}/fs"], layers, below) as ((target,), stack, under):
        made = farm.Farm(target, marks_of(marks), context.check, copying=copying)
        made.flatten(stack, under)
        made.finish()
        return farm.measure(target, marks_of(marks), context.check).to_dict()


def difference(
    context: Context, fds: list[int], *, lower: Sequence[str], upper: Sequence[str], path: str, marks: str
) -> dict[str, Any]:
    """The layer directory that leads from one stack to another; see `farm.Farm.difference`."""
    make(context, fds, path=path)
    with Roots([f"{path}/fs"], lower, upper) as ((target,), below, above):
        made = farm.Farm(target, marks_of(marks), context.check)
        made.difference(below, above)
        made.finish()
        if above:
            copy_metadata(above[0], target, os.fstat(above[0]))
        return farm.measure(target, marks_of(marks), context.check).to_dict()


def copy(context: Context, fds: list[int], *, layers: Sequence[str], path: str, marks: str) -> None:
    """A tree of its own that starts as a stack shows it."""
    if not layers:
        make(context, fds, path=path)
        return
    flatten(context, fds, layers=layers, below=[], path=path, marks=marks, copying=True)
    with Roots([f"{path}/fs"]) as ((tree,),), open(f"{path}/copied", "xb") as file:
        marshal.dump(farm.taken_down(tree, context.check), file)


def distill(
    context: Context, fds: list[int], *, path: str, lower: Sequence[str], marks: str
) -> dict[str, Any]:
    """Cut a tree of `copy` down to the layer that was written to it."""
    if not lower:
        return seal(context, fds, path=path, lower=lower, marks=marks)
    os.rename(f"{path}/fs", f"{path}/tree")
    os.mkdir(f"{path}/fs", 0o755)
    with open(f"{path}/copied", "rb") as file:
        known: farm.Known = marshal.load(file)
    with Roots([f"{path}/fs"], lower, [f"{path}/tree"]) as ((target,), below, tree):
        made = farm.Farm(target, marks_of(marks), context.check, known=known)
        made.difference(below, tree)
        made.finish()
        copy_metadata(tree[0], target, os.fstat(tree[0]))
    for name in ("tree", "work", "copied"):
        _remove(f"{path}/{name}")
    return measure(context, fds, path=f"{path}/fs", marks=marks)


def measure(context: Context, fds: list[int], *, path: str, marks: str) -> dict[str, Any]:
    """What a layer directory holds."""
    with Roots([path]) as ((layer,),):
        return farm.measure(layer, marks_of(marks), context.check).to_dict()


def remove(context: Context, fds: list[int], *, paths: Sequence[str]) -> list[str]:
    """Remove folders; one that is not there is fine, since another kernel may do the same.

    Returns:
        Those that could not be removed.
    """
    left = []
    for path in paths:
        context.check()
        try:
            _remove(path)
        except OSError:
            left.append(path)
    return left


def _remove(path: str) -> None:
    directory, _, name = path.rpartition("/")
    with contextlib.suppress(FileNotFoundError):
        fd = beneath.open_root(directory)
        try:
            beneath.remove_child(fd, name)
        finally:
            os.close(fd)


def layer_tar(
    context: Context,
    fds: list[int],
    *,
    layer: str,
    lower: Sequence[str],
    marks: str,
    epoch: int | None = None,
) -> None:
    """The archive of a layer directory; `epoch` is the latest time that is written, in seconds."""
    with Roots([layer], lower) as ((root,), below):
        writer = Writer(fds[0], epoch)
        LayerTar(writer, root, below, marks_of(marks), context.server.owners, context.check).write()


def tar(context: Context, fds: list[int], *, mounts: Mounts, epoch: int | None = None) -> None:
    """The archive of a whole tree."""
    with open_tree(context, mounts) as tree:
        root = beneath.open(tree.fd, "", DIRECTORY)
        try:
            writer = Writer(fds[0], epoch)
            LayerTar(writer, root, [], marks_of("trusted"), context.server.owners, context.check).write()
        finally:
            os.close(root)


def apply(context: Context, fds: list[int], *, mounts: Mounts) -> int:
    """Unpack an archive.

    Raises:
        Failure: ContentError, the archive is damaged or not one of a layer.
    """
    with open_tree(context, mounts) as tree:
        unpacker = Unpacker(tree.fd, context.server.owners, context.check)
        try:
            unpacker.run(fds[0])
        except TarError as error:
            raise Failure("ContentError", f"a layer cannot be unpacked: {error}") from None
        return unpacker.files


OPS: dict[str, Any] = {
    "make": make,
    "make_each": make_each,
    "seal": seal,
    "seal_each": seal_each,
    "flatten": flatten,
    "difference": difference,
    "copy": copy,
    "distill": distill,
    "measure": measure,
    "remove": remove,
    "layer_tar": layer_tar,
    "tar": tar,
    "apply": apply,
}
