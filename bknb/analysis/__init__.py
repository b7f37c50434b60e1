"""Questions about builds that are over, and about builds to come.

- `causes`: what can make a step run, as a closed set, and what an answer is made of.
- `seen`: a build as it was recorded.      - `changes`: how two ops differ, in what their keys are made of.
- `files`: how two lists of files differ.  - `why`: compares two builds, from root causes to what followed.
- `words`: the answer in words, and hints.

Those are functions of two recorded builds and of the texts that keys were taken of: nothing is run, and nothing is
asked of the solver. So the answer is the same on another machine, and can be had later.

- `predict`: what a build would do, told by the solver over a `shadow` of the cache; `doubt`: what may turn out otherwise.
- `plan`: that in the terms of a build, with `plan_time`; `plan_facts`: what the outside says to it.
- `replay`: the same for the commits of a repository.
"""

from bknb.analysis.causes import Cause, Explanation, Kind, StepReason
from bknb.analysis.seen import Seen
from bknb.analysis.why import explain

__all__ = ["Cause", "Explanation", "Kind", "Seen", "StepReason", "explain"]
