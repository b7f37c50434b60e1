r"""What people hold: a client, a running build, a finished build, its steps and their files.

::

    import bknb
    build = bknb.build(".", dockerfile="FROM busybox\nRUN echo hello > /greeting")
    build.files.text("/greeting")
    build.table                      # a DataFrame: one row for each step
    build.steps[-1].files.diff()     # what did this step change?
    build.run("ls -l /")
    build.why()                      # what changed since the last build, and what ran because of it
    bknb.plan(".", "--touch", "a.py")  # what a build would do, and for how long; nothing is run
    bknb.replay(".", "-n", "200")    # what builds of the last commits would have found in the cache
    bknb.cache().uses                # a DataFrame: what builds took from the cache, and the seconds that saved

Everything here is synchronous and may be called from any thread but the solver's; a running build can be awaited.

- `client`: `Client`, a builder and its thread             - `running`: `RunningBuild`
- `build`: `Build` and `Step`                              - `files`: `Files`, the files of a result
- `image`: `Image`, the image that a build made            - `recorded`: builds from files, and what any build tells
- `request`: options to what a builder is asked            - `store`: what the store holds, as tables
- `planned`: what a build would do                   - `replayed`: what builds of the last commits would have done
- `explained`: why a build did what it did           - `tables`: the cache as DataFrames, its mounts as tars
"""

from bknb.api.build import Build, Step
from bknb.api.client import Client, Preferences, build, default_client, plan, replay
from bknb.api.files import Files
from bknb.api.image import Image
from bknb.api.recorded import OpenedBuild, RecordedBuild, failure_text
from bknb.api.recorded import open_file as open
from bknb.api.running import RunningBuild
from bknb.api.store import disk_usage, history, images, prune
from bknb.api.tables import CacheTables, cache, load_mount, mounts, save_mount

__all__ = [
    "Build", "CacheTables", "Client", "Files", "Image", "Preferences", "RunningBuild", "Step", "build", "cache", "default_client", "disk_usage",
    "failure_text", "history", "images", "load_mount", "mounts", "open", "OpenedBuild", "plan", "prune", "RecordedBuild", "replay", "save_mount",
]  # fmt: skip
