"""`python -m tests.conformance [GROUP or case id]...`: one line for each group, and what differs."""

from __future__ import annotations

import sys

from tests.conformance.runner import GROUPS, cases, failure, present


def main(wanted: list[str]) -> int:
    """Runs what was asked for, all if nothing was; 1 if anything failed."""
    bad = 0
    for group in GROUPS:
        chosen = [
            case
            for case in cases(group)
            if not wanted or group in wanted or any(case.id.startswith(word) for word in wanted)
        ]
        if not chosen:
            continue
        if not present(group):
            print(f"{group:12} {len(chosen):4} cases, not answered yet")
            continue
        failures = [(case.id, found) for case in chosen if (found := failure(group, case))]
        bad += len(failures)
        print(f"{group:12} {len(chosen) - len(failures):4} passed  {len(failures):4} failed", flush=True)
        for name, found in failures:
            print(f"    {name}: {found}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
