"""The plan of what goes, against BuildKit's rules told once more in the plainest way."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bknb.cache.filters import from_words, parse_filters
from bknb.cache.gc import Disk, Fact, Plan, Why, amount, default_policies, floor, in_use, plan
from bknb.errors import UsageError
from bknb.settings import DiskSpace, GCPolicy, Settings

NOW = 1_000_000_000.0
HOUR = 3600.0


AMPLE = Disk(10**12, 10**12)


def decide(*facts: Fact, policies: tuple[GCPolicy, ...] = (GCPolicy(),), disk: Disk = AMPLE) -> Plan:
    """A plan for now."""
    return plan(facts, policies, now=NOW, disk=disk)


def gone(result: Plan) -> list[str]:
    """Ids of what is removed, in order."""
    return [verdict.fact.id for verdict in result.removed]


def reasons(result: Plan) -> dict[str, str]:
    """Why the others stay."""
    return {verdict.fact.id: str(verdict) for verdict in result.kept}


def test_children_go_before_parents() -> None:
    """A chain goes from its end, and a held record keeps all that it stands on."""
    chain = [Fact("a"), Fact("b", parents=("a",)), Fact("c", parents=("b",))]
    assert gone(decide(*chain)) == ["c", "b", "a"]
    held = [Fact("a"), Fact("b", parents=("a",), held=True), Fact("c", parents=("b",))]
    assert gone(decide(*held)) == ["c"]
    assert reasons(decide(*held)) == {"a": "pinned by b", "b": "in use"}
    assert in_use(held) == {"a", "b"}


def test_reasons_to_stay() -> None:
    """Names, types, ages and filters each have their reason; `all` takes what is named or internal."""
    facts = [Fact("n", image="app:latest"), Fact("i", type="internal"), Fact("y", used=NOW - 60)]
    old = GCPolicy(keep_duration=2 * HOUR, filters=("type!=internal",))
    assert reasons(decide(*facts, policies=(old,))) == {
        "n": "named image: app:latest", "i": "type: internal records go only with all", "y": "too young: used 60 s ago"
    }  # fmt: skip
    roomy = GCPolicy(max_used_space=DiskSpace(99), all=True)
    assert [str(verdict.why) for verdict in decide(*facts, policies=(old, roomy)).kept] == [
        "named image", "type", "under the floor"
    ]  # fmt: skip
    assert set(gone(decide(*facts, policies=(GCPolicy(all=True),)))) == {"n", "i", "y"}
    assert gone(decide(Fact("n", image="app"), policies=(GCPolicy(filters=("type==regular",), all=True),))) == ["n"]
    assert reasons(decide(Fact("x"), policies=(GCPolicy(filters=("type==internal",), all=True),)))["x"].startswith("filter")


def test_the_floor_is_kept() -> None:
    """Records go until what is left is below the limit, and never below what is reserved."""
    facts = [Fact(f"r{i}", size=10, used=float(i), uses=1) for i in range(10)]
    assert gone(decide(*facts, policies=(GCPolicy(max_used_space=DiskSpace(35)),))) == [f"r{i}" for i in range(7)]
    tight = GCPolicy(reserved_space=DiskSpace(75), max_used_space=DiskSpace(35))
    assert gone(decide(*facts, policies=(tight,))) == ["r0", "r1", "r2"]
    kept = decide(*facts, policies=(tight,)).kept
    assert {verdict.why for verdict in kept} == {Why.FLOOR}
    assert str(kept[0]) == "under the floor: rule 0 goes down to 75 B, and 70 B are left"
    free = GCPolicy(min_free_space=DiskSpace(40))
    assert len(gone(decide(*facts, policies=(free,), disk=Disk(1000, 15)))) == 3
    assert gone(decide(*facts, policies=(free,), disk=Disk(1000, 50))) == ["r0"]  # BuildKit: below the floor, not at it


def test_seldom_and_long_unused_first() -> None:
    """The ranks by last use and by number of uses are added."""
    facts = [
        Fact("old often", size=1, used=1.0, uses=9), Fact("old rare", size=1, used=1.0, uses=1),
        Fact("new often", size=1, used=9.0, uses=9), Fact("new rare", size=1, used=9.0, uses=1),
    ]  # fmt: skip
    order = gone(decide(*facts, policies=(GCPolicy(max_used_space=DiskSpace(1)),)))
    assert order[0] == "old rare" and order[-1] == "new often"


def test_default_rules() -> None:
    """The four rules and their amounts are BuildKit's, on a large disk and on a small one."""
    rules = default_policies(Settings("/x"), 10**12)
    assert [rule.keep_duration for rule in rules] == [48 * HOUR, 60 * 24 * HOUR, 0, 0]
    assert [rule.all for rule in rules] == [False, False, False, True]
    assert rules[0].max_used_space.bytes == 512_000_000 and len(rules[0].filters) == 3
    assert rules[1].reserved_space.bytes == 10**10 and rules[1].max_used_space.bytes == 10**11
    small = default_policies(Settings("/x"), 50 * 2**30)
    assert [amount(x, 50 * 2**30) for x in (small[1].reserved_space, small[1].max_used_space, small[1].min_free_space)] == [
        6 * 10**9, 41 * 10**9, 11 * 10**9
    ]  # fmt: skip
    own = default_policies(Settings("/x", gc_max_used_space=DiskSpace(7)), 10**12)
    assert own[2] == GCPolicy(max_used_space=DiskSpace(7))


@pytest.mark.parametrize(
    ("most", "least", "free", "used", "disk_free", "keep"),
    [
        (0, 0, 0, 500, 0, None), (100, 0, 0, 500, 0, 100), (0, 100, 0, 500, 0, 100), (100, 200, 0, 500, 0, 200),
        (0, 0, 50, 500, 20, 470), (400, 0, 50, 500, 20, 400), (480, 0, 50, 500, 20, 470), (0, 0, 50, 500, 60, 500),
        (0, 490, 50, 500, 20, 490),
    ],
)  # fmt: skip
def test_floors(most: int, least: int, free: int, used: int, disk_free: int, keep: int | None) -> None:
    """What a policy leaves, as BuildKit's calculateKeepBytes has it."""
    policy = GCPolicy(DiskSpace(least), DiskSpace(most), DiskSpace(free))
    assert floor(policy, used, Disk(1000, disk_free)) == keep


def test_filters() -> None:
    """Conditions of one filter all hold, of several filters one does."""
    record = Fact("abc", description='RUN echo "a, b"', parents=("p",), mutable=True).fields()
    for good in ("id==abc", "id~=b", "mutable", "private,parents", 'description~="a, b"', "type==regular"):
        assert parse_filters([good])(record), good
    for bad in ("immutable", "shared", "inuse", "id!=abc", "type==x", "mutable,type==x"):
        assert not parse_filters([bad])(record), bad
    assert parse_filters(["type==x", "mutable"])(record)
    for wrong in ("tipe==x", "id=abc", "id~=(", "=", "id==a b", 'id=="a'):
        with pytest.raises(UsageError):
            parse_filters([wrong])


def test_filters_as_words() -> None:
    """The command line's words are buildx's."""
    assert from_words(["until=48h", "type=regular", "inuse"]) == (('type=="regular",inuse',), 48 * HOUR)
    assert from_words(["id=ab"])[0] == ('id~="ab"',)
    assert from_words(["shared=false", "description~=apt", 'parents!=x"y']) == (
        ('private,description~="apt",parents!="x\\"y"',), 0.0
    )  # fmt: skip
    assert from_words([]) == ((), 0.0)
    for wrong in ("until=x", "inuse=perhaps", "size=3", "id~=("):
        with pytest.raises(UsageError):
            from_words([wrong])


# --- properties -------------------------------------------------------------------------------------------


@st.composite
def stores(draw: st.DrawFn) -> tuple[list[Fact], list[GCPolicy]]:
    """A few records on top of each other, and policies."""
    kinds = ("regular", "internal", "frontend", "source.local", "exec.cachemount")
    facts: list[Fact] = []
    for number in range(draw(st.integers(0, 14))):
        parents = draw(st.sets(st.sampled_from([fact.id for fact in facts]), max_size=2)) if facts else set()
        facts.append(
            Fact(
                f"r{number}", draw(st.sampled_from(kinds)), draw(st.integers(0, 50)), 0.0,
                NOW - draw(st.integers(0, 5)) * HOUR, draw(st.integers(0, 3)), "", tuple(sorted(parents)),
                held=draw(st.integers(0, 5)) == 0, image=draw(st.sampled_from(["", "", "app"])),
            )
        )  # fmt: skip
    space = st.sampled_from([0, 0, 10, 60, 150]).map(DiskSpace)
    policy = st.builds(
        GCPolicy, space, space, space, st.sampled_from([0.0, 2 * HOUR]),
        st.sampled_from([(), ("type==source.local", "type==exec.cachemount")]), st.booleans(),
    )  # fmt: skip
    return facts, draw(st.lists(policy, max_size=4))


def as_buildkit(facts: list[Fact], policies: list[GCPolicy], disk: Disk) -> list[tuple[str, int]]:
    """BuildKit's loop, told plainly: sort everything again before each removal."""
    left, order = {fact.id: fact for fact in facts}, []
    for number, policy in enumerate(policies):
        used = sum(fact.size for fact in left.values() if not fact.image)
        keep = floor(policy, used, disk)
        wanted = parse_filters(policy.filters)
        while keep is None or used >= keep:
            ready = [
                fact
                for fact in left.values()
                if not fact.held
                and not any(fact.id in other.parents for other in left.values())
                and (policy.all or fact.type not in ("internal", "frontend"))
                and (policy.all or not fact.image)
                and not (policy.keep_duration and fact.used > NOW - policy.keep_duration)
                and wanted(fact.fields())
            ]
            if not ready:
                break
            times = sorted({fact.used for fact in ready})
            counts = sorted({fact.uses for fact in ready} - {0})
            scores = {
                fact.id: (times.index(fact.used) + 2) / (len(times) + 1)
                + (1 + (counts.index(fact.uses) + 1 if fact.uses else 0)) / (len(counts) + 1)
                for fact in ready
            }
            first = min(ready, key=lambda fact: (scores[fact.id], fact.used, fact.id))
            order.append((first.id, number))
            del left[first.id]
            used -= first.size
            disk = Disk(disk.total, disk.free + first.size)
    return order


@settings(deadline=None, max_examples=150)
@given(stores(), st.sampled_from([0, 30, 1000]))
def test_any_plan(store: tuple[list[Fact], list[GCPolicy]], free: int) -> None:
    """Every plan is BuildKit's; it takes nothing that is used or stood on, and says why everything else stays."""
    facts, policies = store
    result = plan(facts, policies, now=NOW, disk=Disk(2000, free))
    assert [(verdict.fact.id, verdict.rule) for verdict in result.removed] == as_buildkit(facts, policies, Disk(2000, free))
    left = {verdict.fact.id for verdict in result.kept}
    assert left | set(gone(result)) == {fact.id for fact in facts} and not left & set(gone(result))
    assert in_use(facts) <= left
    assert all(parent in left for verdict in result.kept for parent in verdict.fact.parents)
    if not any(policy.all for policy in policies):
        assert all(fact.id in left for fact in facts if fact.image or fact.type in ("internal", "frontend"))
    assert all(verdict.why is not None for verdict in result.kept)
    again = plan([verdict.fact for verdict in result.kept], policies[-1:], now=NOW, disk=Disk(2000, free + result.freed))
    if policies and policies[-1].min_free_space == DiskSpace() and not any(fact.image for fact in facts):
        assert not again.removed, "a plan leaves nothing for the same rule to do"


def test_many_records() -> None:
    """A plan of many records does not take the square of their number."""
    chance = random.Random(3)
    facts = [
        Fact(f"r{i}", size=1, used=chance.random(), uses=chance.randrange(9), parents=(f"r{i - 7}",) if i % 5 else ())
        for i in range(7, 20_000)
    ]
    facts += [Fact(f"r{i}", size=1) for i in range(7)]
    result = plan(facts, [GCPolicy(max_used_space=DiskSpace(5))], now=NOW, disk=Disk())
    assert len(result.kept) == 4
