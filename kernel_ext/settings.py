"""What a notebook may set: ``%config Bknb`` lists it."""

from __future__ import annotations

from traitlets import Bool, CaselessStrEnum, Int, Unicode
from traitlets.config import Configurable

from bknb.api import Preferences
from bknb.options import PROGRESS


class Bknb(Configurable):
    """The settings; the class has the name that people type."""

    root = Unicode(
        "", help="Folder of the state: images, cache, records. Empty for the platform's data folder."
    ).tag(config=True)
    offline = Bool(
        False,
        help="Reach no registry: docker.io is served by this kernel's own registry, and by nothing else.",
    ).tag(config=True)
    progress = CaselessStrEnum(PROGRESS, "auto", help="How a running build is shown.").tag(config=True)
    max_parallelism = Int(0, min=0, help="Steps that may run at once; 0 for no limit.").tag(config=True)
    runtime = CaselessStrEnum(
        ["auto", "crun", "runc", "bubblewrap", "proot", "none"],
        "auto",
        help="What runs the containers; none only compiles.",
    ).tag(config=True)
    snapshotter = CaselessStrEnum(
        ["auto", "overlayfs", "native"], "auto", help="How file systems are kept: overlayfs, or plain copies."
    ).tag(config=True)
    gc = Bool(
        True, help="Remove by itself, after builds, what the rules take (%bknb prune --gc --explain tells)."
    ).tag(config=True)
    gc_reserved_space = Unicode(
        "", help="Never go below this: 10GB, 20%; empty: by the size of the disk."
    ).tag(config=True)
    gc_max_used_space = Unicode("", help="Go down to this: 50GB, 60%; empty: by the size of the disk.").tag(
        config=True
    )
    gc_min_free_space = Unicode("", help="Go on until so much of the disk is free; empty: by its size.").tag(
        config=True
    )
    withhold = Bool(
        True,
        help="Keep the open notebook and .ipynb_checkpoints out of contexts, so that saving it does not change them.",
    ).tag(config=True)
    short_errors = Bool(True, help="Show what went wrong without the Python traceback (%tb shows that).").tag(
        config=True
    )

    def preferences(self) -> Preferences:
        """The part that a builder is made from."""
        return Preferences(
            root=self.root,
            offline=self.offline,
            max_parallelism=self.max_parallelism,
            runtime=self.runtime,
            snapshotter=self.snapshotter,
            gc=self.gc,
            gc_reserved_space=self.gc_reserved_space,
            gc_max_used_space=self.gc_max_used_space,
            gc_min_free_space=self.gc_min_free_space,
        )
