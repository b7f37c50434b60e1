"""Which records go and which stay, decided without touching anything.

The rules are BuildKit's (cache/manager.go, Prune; cmd/buildkitd/config/gcpolicy.go). Policies are applied one
after another. Each may take records that nobody uses and that no other record stands on; where it has a floor, it
takes them one by one until what is left is below it, those first that are long unused and seldom used. What a
record stood on can go once the record is gone.

A plan names for every record the rule that takes it, or the reason why it stays. Taking 10,000 records is planned
in a quarter of a second: candidates wait in one heap for each number of uses, because within a heap their order
never changes, and only the heads are compared.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bknb.cache.filters import Fields, Filter, parse_filters
from bknb.settings import DiskSpace, GCPolicy, Settings

GB: Final = 10**9
HOUR: Final = 3600.0
PROTECTED: Final = ("internal", "frontend")
"""Types that only a policy with `all` takes."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a plan has to know of a record.

    Attributes:
        id: the record's.
        type: as in BuildKit (client/diskusage.go).
        size: bytes that are free once it is gone: its files and its blobs.
        created: unix seconds, as is `used`.
        used: when it was last used.
        uses: how often.
        description: what it is of.
        parents: ids of the records that it stands on.
        mutable: a cache mount.
        held: somebody uses it now.
        image: the name of an image that has it as a layer, or "".
    """

    id: str
    type: str = "regular"
    size: int = 0
    created: float = 0.0
    used: float = 0.0
    uses: int = 0
    description: str = ""
    parents: tuple[str, ...] = ()
    mutable: bool = False
    held: bool = False
    image: str = ""

    def fields(self, *, in_use: bool = False) -> Fields:
        """What a filter sees."""
        found = {
            "id": self.id, "type": self.type, "description": self.description,
            "parents": ";".join(self.parents), "inuse": "true" if in_use else "",
            "mutable": "true" if self.mutable else "", "immutable": "" if self.mutable else "true",
            "shared": "true" if self.image else "", "private": "" if self.image else "true",
        }  # fmt: skip
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of the disk that the store is on."""

    total: int = 0
    free: int = 0


class Why(StrEnum):
    """Why a record stays. Of the reasons that several rules have, the one further down is told."""

    FILTER = "filter"
    YOUNG = "too young"
    FLOOR = "under the floor"
    PINNED = "pinned"
    TYPE = "type"
    NAMED = "named image"
    IN_USE = "in use"


_WEIGHT: Final = {why: number for number, why in enumerate(Why)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one record: `rule` is the number of the policy that takes it, else `why` says why it stays."""

    fact: Fact
    rule: int | None = None
    why: Why | None = None
    detail: str = ""

    def __str__(self) -> str:
        if self.rule is not None:
            return f"removed by rule {self.rule}"
        return f"{self.why}{': ' if self.detail and self.why is not Why.PINNED else ' ' if self.detail else ''}{self.detail}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is removed, in this order, and what is kept."""

    removed: tuple[Verdict, ...]
    kept: tuple[Verdict, ...]

    @property
    def freed(self) -> int:
        """Bytes of what is removed."""
        return sum(verdict.fact.size for verdict in self.removed)


def amount(space: DiskSpace, total: int) -> int:
    """Bytes of an amount on a disk of so many bytes (gcpolicy.go, AsBytes: a percentage is rounded up)."""
    if space.bytes or not space.percentage:
        return space.bytes
    if not total:
        return 2 * GB
    return (total * space.percentage // 100 // 2**30 + 1) * GB


def default_policies(settings: Settings, disk_total: int) -> tuple[GCPolicy, ...]:
    """BuildKit's four rules, with the amounts of the settings or those that suit the disk."""
    amounts = (settings.gc_reserved_space, settings.gc_max_used_space, settings.gc_min_free_space)
    if amounts == (DiskSpace(),) * 3:
        amounts = (_at_most(10, 10 * GB, disk_total), _at_most(80, 100 * GB, disk_total), DiskSpace(percentage=20))
    reserved, used, free = amounts
    easily_made = ("type==source.local", "type==exec.cachemount", "type==source.git.checkout")
    return (
        GCPolicy(filters=easily_made, keep_duration=48 * HOUR, max_used_space=DiskSpace(512_000_000)),
        GCPolicy(reserved, used, free, keep_duration=60 * 24 * HOUR),
        GCPolicy(reserved, used, free),
        GCPolicy(reserved, used, free, all=True),
    )


def _at_most(percentage: int, most: int, disk_total: int) -> DiskSpace:
    space = DiskSpace(percentage=percentage)
    return DiskSpace(most) if amount(space, disk_total) > most else space


def policies_of(settings: Settings, disk_total: int) -> tuple[GCPolicy, ...]:
    """The policies that hold for a builder."""
    return default_policies(settings, disk_total) if settings.gc_policies is None else settings.gc_policies


def floor(policy: GCPolicy, used: int, disk: Disk) -> int | None:
    """Bytes that a policy leaves; None where it has no amounts (manager.go, calculateKeepBytes)."""
    most = amount(policy.max_used_space, disk.total)
    least = amount(policy.reserved_space, disk.total)
    free = amount(policy.min_free_space, disk.total)
    if not (most or least or free):
        return None
    keep = most
    if free > disk.free:
        room = used - (free - disk.free)
        keep = min(keep, room) if keep else room
    elif free and not keep:
        keep = used
    return max(keep, least) or None


def in_use(facts: Iterable[Fact]) -> set[str]:
    """Ids of the records that somebody uses, and of those that they stand on."""
    known = {fact.id: fact for fact in facts}
    found: set[str] = set()
    todo = [fact.id for fact in known.values() if fact.held]
    while todo:
        id = todo.pop()
        if id not in found and id in known:
            found.add(id)
            todo += known[id].parents
    return found


def plan(facts: Sequence[Fact], policies: Sequence[GCPolicy], *, now: float, disk: Disk) -> Plan:
    """What the policies make of the records. `now` in unix seconds.

    Raises:
        UsageError: a filter of a policy is not understood.
    """
    run = _Run(facts, now)
    for number, policy in enumerate(policies):
        disk = run.apply(number, policy, disk)
    return run.result()


class _Run:
    def __init__(self, facts: Sequence[Fact], now: float) -> None:
        self._now = now
        self._left = {fact.id: fact for fact in facts}
        self._children: dict[str, dict[str, None]] = {fact.id: {} for fact in facts}
        for fact in facts:
            for parent in fact.parents:
                self._children.setdefault(parent, {})[fact.id] = None
        self._removed: list[Verdict] = []
        self._reasons: dict[str, tuple[Why, str]] = {}

    def apply(self, number: int, policy: GCPolicy, disk: Disk) -> Disk:
        """Remove what one policy takes; the disk as it is then."""
        used = sum(fact.size for fact in self._left.values() if not fact.image)
        keep = floor(policy, used, disk)
        wanted = parse_filters(policy.filters)
        takes = {fact.id for fact in self._left.values() if self._takes(fact, policy, wanted)}
        queue = _Queue(self._left[id] for id in takes if not self._children[id])
        freed = 0
        while queue and (keep is None or used - freed >= keep):
            fact = queue.pop()
            freed += fact.size
            self._removed.append(Verdict(fact, number))
            del self._left[fact.id]
            for parent in set(fact.parents):
                children = self._children[parent]
                children.pop(fact.id, None)
                if not children and parent in takes and parent in self._left:
                    queue.push(self._left[parent])
        for id in takes & self._left.keys():
            child = next(iter(self._children[id]), None)
            if child is not None:
                self._stays(id, Why.PINNED, f"by {child[:12]}")
            else:
                left = f"rule {number} goes down to {_size(keep or 0)}, and {_size(used - freed)} are left"
                self._stays(id, Why.FLOOR, left)
        return Disk(disk.total, disk.free + freed)

    def _takes(self, fact: Fact, policy: GCPolicy, wanted: Filter) -> bool:
        """Whether a policy may take a record, apart from what stands on it."""
        if fact.held:
            self._stays(fact.id, Why.IN_USE, "")
        elif fact.type in PROTECTED and not policy.all:
            self._stays(fact.id, Why.TYPE, f"{fact.type} records go only with all")
        elif fact.image and not policy.all:
            self._stays(fact.id, Why.NAMED, fact.image)
        elif policy.keep_duration and fact.used > self._now - policy.keep_duration:
            self._stays(fact.id, Why.YOUNG, f"used {_ago(self._now - fact.used)} ago")
        elif not wanted(fact.fields()):
            self._stays(fact.id, Why.FILTER, "it does not fit")
        else:
            return True
        return False

    def _stays(self, id: str, why: Why, detail: str) -> None:
        known = self._reasons.get(id)
        if known is None or _WEIGHT[why] > _WEIGHT[known[0]]:
            self._reasons[id] = (why, detail)

    def result(self) -> Plan:
        kept = []
        for fact in self._left.values():
            why, detail = self._reasons.get(fact.id, (Why.FILTER, "there is no rule"))
            kept.append(Verdict(fact, None, why, detail))
        return Plan(tuple(self._removed), tuple(kept))


class _Queue:
    """Candidates in BuildKit's order (manager.go, sortDeleteRecords).

    The score of a candidate is the sum of its ranks by last use and by number of uses, each among the candidates
    of the moment and as a part of the highest rank.
    """

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._heaps: dict[int, list[tuple[float, str, Fact]]] = {}
        self._times: list[float] = []
        self._same_time: Counter[float] = Counter()
        for fact in facts:
            self.push(fact)

    def __bool__(self) -> bool:
        return bool(self._heaps)

    def push(self, fact: Fact) -> None:
        heapq.heappush(self._heaps.setdefault(fact.uses, []), (fact.used, fact.id, fact))
        self._same_time[fact.used] += 1
        if self._same_time[fact.used] == 1:
            insort(self._times, fact.used)

    def pop(self) -> Fact:
        counts = sorted(self._heaps)
        offset = 1 if counts[0] == 0 else 2  # BuildKit counts on from 0 uses, also where nothing has 0
        times = len(self._times) + 1
        best = min(
            (
                (bisect_left(self._times, self._heaps[uses][0][0]) + 2) / times + (rank + offset) / (len(counts) + offset - 1),
                self._heaps[uses][0][:2],
                uses,
            )
            for rank, uses in enumerate(counts)
        )  # fmt: skip
        heap = self._heaps[best[2]]
        used, _, fact = heapq.heappop(heap)
        if not heap:
            del self._heaps[best[2]]
        self._same_time[used] -= 1
        if not self._same_time[used]:
            del self._same_time[used]
            del self._times[bisect_left(self._times, used)]
        return fact


def _size(count: float) -> str:
    for size, word in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {word}"
    return f"{count:.0f} B"


def _ago(seconds: float) -> str:
    for size, word in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{max(seconds, 0):.0f} s"
