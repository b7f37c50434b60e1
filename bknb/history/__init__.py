"""Builds as they were: recorded when they end, kept in the state folder, saved to files that answer anywhere.

- `History` keeps records, what they refer to, and the table of uses;
- `Recorder` makes a record of what a build said and did;
- `save_build` and `open_build` write and read one build as a file (``.bknb``).
"""

from __future__ import annotations

from bknb.history.file import SavedBuild, open_build, save_build
from bknb.history.recorder import Recorder
from bknb.history.store import History
from bknb.record import new_id

__all__ = ["History", "Recorder", "SavedBuild", "new_id", "open_build", "save_build"]
