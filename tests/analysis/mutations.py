"""Every way in which a build may change, made at random: each says what `why` has to answer, to the last value.

A `Walk` is one machine with one project, whose state is changed step by step. A mutation changes something, builds,
and gives the two builds to compare with the cause that was made. The names of mutations are those of `Kind`, so
that a kind without a mutation is seen.
"""

from __future__ import annotations

import random
import stat
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from bknb.analysis import Cause, Explanation, Kind
from bknb.cache.tombstones import Tombstone
from bknb.digest import Digest
from bknb.record import StepRecord
from tests.analysis.light import AMD64, FOLDER, LightFile, World
from tests.analysis.machine import LightBuild, LightBuilder, LightRemote
from tests.analysis.project import FILE_ADDRESS, REPOSITORY, Project, Tweaked

Mutation = Callable[["Walk"], Awaitable[Cause]]


@dataclass
class Trial:
    """The causes that were put between two builds, what was answered, and the second of the builds."""

    causes: list[Cause]
    told: Explanation
    after: LightBuild


class Walk:
    """A machine and a project, changed again and again.

    Attributes:
        last: the newest build: what the next one is compared with.
        other: another machine, for the build that is asked about.
    """

    def __init__(self, builder: LightBuilder, world: World, folder: Path, rng: random.Random) -> None:
        self.builder, self.world, self.folder, self.rng = builder, world, folder, rng
        self.project = Project(order=rng.sample(range(7), 7))
        self.count = 0
        self.touched: set[str] = set()
        self.other: LightBuilder | None = None
        builder.frontend = Tweaked()
        for place in ("conf", "src", "tools"):
            for number in range(3):
                name = f"/{place}/{rng.choice(('', 'sub/', 'deep/er/'))}{number}"
                world.context[name] = LightFile(data=self.bytes())
            world.context[f"/{place}/link"] = LightFile(stat.S_IFLNK | 0o777, link="0")
            world.context[f"/{place}"] = FOLDER
        world.commits[REPOSITORY] = self.commit()
        world.bodies[FILE_ADDRESS] = self.bytes()
        world.modified[FILE_ADDRESS] = 1e9

    def bytes(self) -> bytes:
        """Some bytes that were never there before."""
        self.count += 1
        return b"%d " % self.count + self.rng.randbytes(self.rng.randrange(20))

    def commit(self) -> str:
        """A commit that nobody has seen."""
        return f"{self.rng.getrandbits(160):040x}"

    async def build(self) -> LightBuild:
        """Build the project as it is."""
        self.last: LightBuild = await self.builder.build(self.project.text(), self.project.options())
        return self.last

    async def settle(self) -> None:
        """A baseline whose runs were never made before, so that no state to come can be one that the cache knows."""
        self.count += 1
        for name in self.project.runs:
            self.project.runs[name] = self.count
        built = await self.build()
        assert built.result.error is None, built.result.error

    async def trial(self, *mutations: Mutation) -> Trial:
        """Change something after a baseline, build again, and take back what holds for one build only."""
        await self.settle()
        self.touched.clear()
        self.other = None
        causes = [await mutation(self) for mutation in mutations]
        before = self.last
        async with self.other or nullcontext(self.builder) as machine:
            self.last = after = await machine.build(self.project.text(), self.project.options())
            told = machine.explain(before, after)
        for name in ("no-cache", "target"):
            self.project.opts.pop(name, None)
        return Trial(causes, told, after)

    def machine(self, remote: LightRemote) -> LightBuilder:
        """A machine that has nothing but a cache to import from."""
        self.count += 1
        made = LightBuilder(self.world, self.folder / f"other{self.count}", remote=remote)
        made.frontend, made.frontend_version = self.builder.frontend, self.builder.frontend_version
        return made

    def bumped(self, name: str) -> tuple[str, str]:
        """Edit a command; the instruction before and after."""
        old = self.project.run(name)
        self.count += 1
        self.project.runs[name] = self.count
        return old, self.project.run(name)

    def file(self, *, link: bool = False, removable: bool = False) -> str:
        """The path of a file of the context that this trial has not touched; of one that is not alone where it shall go."""
        path = self.rng.choice([
            path for path, file in sorted(self.world.context.items())
            if path not in self.touched and not stat.S_ISDIR(file.mode) and stat.S_ISLNK(file.mode) == link
            and (not removable or sum(other.startswith(path[:4]) for other in self.world.context) > 3)
        ])  # fmt: skip
        self.touched.add(path)
        return path


def what(file: LightFile) -> str:
    """As a cause tells a file."""
    if stat.S_ISLNK(file.mode):
        return f"link {file.link}"
    return f"{len(file.data)} bytes {file.entry().digest.partition(':')[2][:12]}"


# --- files ----------------------------------------------------------------------------------------------------


async def _add(walk: Walk) -> Cause:
    place = walk.rng.choice(("conf", "src", "tools", "src/new/er"))
    path, file = f"/{place}/{walk.count}", LightFile(data=walk.bytes())
    walk.world.context[path] = file
    walk.touched.add(path)
    return Cause(Kind.FILE_ADDED, path[1:], "", what(file))


async def _remove(walk: Walk) -> Cause:
    path = walk.file(removable=True)
    file = walk.world.context.pop(path)
    return Cause(Kind.FILE_REMOVED, path[1:], what(file), "")


async def _change(walk: Walk, kind: Kind, path: str, file: LightFile, before: str, after: str) -> Cause:
    walk.world.context[path] = file
    return Cause(kind, path[1:], before, after)


async def _content(walk: Walk) -> Cause:
    path = walk.file()
    old = walk.world.context[path]
    size = len(old.data)
    data = walk.rng.choice((walk.bytes(), walk.bytes().ljust(size, b"~")[-size:]))
    new = replace(old, data=data if data != old.data else data + b"!")
    return await _change(walk, Kind.FILE_CONTENT, path, new, what(old), what(new))


async def _mode(walk: Walk) -> Cause:
    path = walk.rng.choice((walk.file(), "/conf", "/src", "/tools"))
    old = walk.world.context[path]
    new = replace(old, mode=old.mode ^ (1 << walk.rng.randrange(12)))
    return await _change(walk, Kind.FILE_MODE, path, new, *(f"{f.mode & 0o7777:04o}" for f in (old, new)))


async def _owner(walk: Walk) -> Cause:
    path = walk.file()
    old = walk.world.context[path]
    field_ = walk.rng.choice(("uid", "gid"))
    new = replace(old, **{field_: getattr(old, field_) + walk.rng.randrange(1, 5)})
    return await _change(walk, Kind.FILE_OWNER, path, new, f"{old.uid}:{old.gid}", f"{new.uid}:{new.gid}")


async def _link(walk: Walk) -> Cause:
    path = walk.file(link=True)
    old = walk.world.context[path]
    new = replace(old, link=f"to{walk.count}{walk.rng.random()}")
    return await _change(walk, Kind.FILE_LINK, path, new, old.link, new.link)


async def _xattr(walk: Walk) -> Cause:
    path = walk.file()
    old = walk.world.context[path]
    name = walk.rng.choice(("user.a", "user.b", "security.capability"))
    new = replace(old, xattrs=(*(pair for pair in old.xattrs if pair[0] != name), (name, walk.bytes())))
    return await _change(walk, Kind.FILE_XATTR, path, new, name if name in dict(old.xattrs) else "", name)


# --- text and options -----------------------------------------------------------------------------------------


async def _instruction(walk: Walk) -> Cause:
    if walk.rng.random() < 0.2:
        old, walk.project.workdir = walk.project.workdir, f"/app{walk.count}{walk.rng.randrange(9)}"
        walk.count += 1
        texts = f"WORKDIR {old}", f"WORKDIR {walk.project.workdir}"
    else:
        texts = walk.bumped(walk.rng.choice(list(walk.project.runs)))
    return Cause(Kind.INSTRUCTION, texts[1], *texts)


async def _new(walk: Walk) -> Cause:
    walk.count += 1
    step = f"RUN {walk.rng.choice(('lint', 'test', 'docs'))} {walk.count}"
    walk.project.extra.append(step)
    return Cause(Kind.NEW, step)


async def _removed(walk: Walk) -> Cause:
    walk.count += 1
    step = f"RUN optional {walk.count}"
    walk.project.extra.append(step)
    await walk.settle()
    walk.project.extra.remove(step)
    return Cause(Kind.REMOVED, step)


async def _argument(walk: Walk) -> Cause:
    project = walk.project
    old = project.given or project.value
    walk.count += 1
    if not project.given and walk.rng.random() < 0.5:
        project.value = new = f"d{walk.count}"
    else:
        project.given = new = f"g{walk.count}"
    return Cause(Kind.ARG, "V", old, new)


async def _environment(walk: Walk) -> Cause:
    walk.project.env += 1
    return Cause(Kind.ENV, "E", str(walk.project.env - 1), str(walk.project.env))


async def _field(walk: Walk) -> Cause:
    if walk.rng.random() < 0.5:
        old, walk.project.user = walk.project.user, f"user{walk.count}{walk.rng.randrange(9)}"
        return Cause(Kind.FIELD, "USER", old, walk.project.user)
    walk.count += 1
    old, walk.builder.frontend.hostname = walk.builder.frontend.hostname, f"host{walk.count}"
    return Cause(Kind.FIELD, "host name", old, walk.builder.frontend.hostname)


async def _frontend(walk: Walk) -> Cause:
    old = f"built-in {walk.builder.frontend_version}"
    walk.count += 1
    walk.builder.frontend_version = f"dockerfile/2.{walk.count}"
    walk.builder.frontend.hostname = f"host{walk.count}"
    return Cause(Kind.FRONTEND, "", old, f"built-in {walk.builder.frontend_version}")


async def _platform(walk: Walk) -> Cause:
    old = walk.project.opts.get("platform", "linux/amd64")
    walk.project.opts["platform"] = new = "linux/arm64" if old == "linux/amd64" else "linux/amd64"
    return Cause(Kind.PLATFORM, "", old, new)


async def _no_cache(walk: Walk) -> Cause:
    walk.project.opts["no-cache"] = walk.rng.choice(("", "build", "final"))
    return Cause(Kind.NO_CACHE, walk.project.opts["no-cache"])


# --- sources --------------------------------------------------------------------------------------------------


async def _image(walk: Walk) -> Cause:
    walk.count += 1
    old, walk.project.base = walk.project.base, f"base{walk.count}"
    return Cause(Kind.IMAGE, f"{walk.project.base}:latest", f"{old}:latest", f"{walk.project.base}:latest")


async def _moved(walk: Walk) -> Cause:
    name = f"{walk.rng.choice((walk.project.base, 'runtime'))}:latest"
    old = walk.world.image(name, AMD64)[0]
    walk.world.images[name] = walk.world.images.get(name, 0) + 1
    return Cause(Kind.IMAGE_MOVED, name, old, walk.world.image(name, AMD64)[0])


async def _git(walk: Walk) -> Cause:
    old, walk.world.commits[REPOSITORY] = walk.world.commits[REPOSITORY], walk.commit()
    return Cause(Kind.GIT_COMMIT, f"{REPOSITORY}#main", old, walk.world.commits[REPOSITORY])


async def _http(walk: Walk) -> Cause:
    address = walk.project.file
    if walk.rng.random() < 0.3:
        old_time = walk.world.modified[address]
        walk.world.modified[address] += 60
        times = (f"modified {moment:.0f}" for moment in (old_time, old_time + 60))
        return Cause(Kind.FIELD, address, *times)
    old, walk.world.bodies[address] = walk.world.bodies[address], walk.bytes()
    return Cause(Kind.HTTP_BODY, address, Digest.of(old), Digest.of(walk.world.bodies[address]))


async def _address(walk: Walk) -> Cause:
    walk.count += 1
    old = walk.project.file
    walk.project.file = new = f"https://files.example/{walk.count}/data.bin"
    walk.world.bodies[new], walk.world.modified[new] = walk.bytes(), 1e9
    return Cause(Kind.SOURCE, new, old, new)


# --- the cache ------------------------------------------------------------------------------------------------


async def _lose(walk: Walk, kind: Kind) -> Cause:
    """The results of a step and of all that stands on it go, so that the next build has to make them again."""
    builder, steps = (
        walk.builder,
        [step for step in walk.last.seen.steps if step.kind not in ("local", "internal")],
    )
    chosen = walk.rng.choice(steps)
    stones: list[Tombstone] = []
    now = time.time()
    for result in _results(builder, [chosen, *_above(chosen, steps)]):
        builder.worker.results.pop(result, None)
        if kind is Kind.EVICTED:
            keys = builder.store.keys_of(result)
            stones.append(Tombstone(result, now, "rule 2", "regular", "", 1, keys))
        if kind is not Kind.BLOB_MISSING:
            builder.store.forget(result)
    builder.tombstones.add(stones)
    return Cause(kind, chosen.command or chosen.name, after=str(stones[0]) if stones else "")


def _above(below: StepRecord, steps: Iterable[StepRecord]) -> list[StepRecord]:
    """The steps that stand on one."""
    reached = {below.digest}
    for step in steps:
        if reached & set(step.inputs):
            reached.add(step.digest)
    return [step for step in steps if step.digest in reached - {below.digest}]


def _results(builder: LightBuilder, steps: Iterable[StepRecord]) -> list[str]:
    """Every result that some steps could be taken from."""
    keys = {key for step in steps for result in step.results for key in builder.store.keys_of(result)}
    return sorted({record.result for key in keys for record in builder.store.records(key)})


async def _evicted(walk: Walk) -> Cause:
    return await _lose(walk, Kind.EVICTED)


async def _missing(walk: Walk) -> Cause:
    return await _lose(walk, Kind.BLOB_MISSING)


async def _gone(walk: Walk) -> Cause:
    return await _lose(walk, Kind.GONE)


async def _unfinished(walk: Walk) -> Cause:
    """The baseline is a build that failed; then the command works."""
    _, text = walk.bumped(walk.rng.choice(list(walk.project.runs)))
    command = text.split(" ", 1)[1].removeprefix("--mount=type=bind,source=tools,target=/tools ")
    walk.world.broken.add(command)
    failed = await walk.build()
    assert failed.result.error is not None
    walk.world.broken.clear()
    return Cause(Kind.UNFINISHED, text, "failed")


async def _never_built(walk: Walk) -> Cause:
    """The baseline stopped at the stage before."""
    _, text = walk.bumped("check")
    walk.project.opts["target"] = "build"
    await walk.build()
    del walk.project.opts["target"]
    return Cause(Kind.NEVER_BUILT, text, "skipped")


async def _unreachable(walk: Walk) -> Cause:
    """The baseline imported everything; then the cache could not be asked, on a machine that has nothing."""
    remote = LightRemote(walk.builder)
    async with walk.machine(remote) as importer:
        walk.last = await importer.build(walk.project.text(), walk.project.options())
    assert "remote" in walk.last.outcomes().values()
    remote.down = f"registry.example: connection {walk.rng.choice(('refused', 'reset by peer'))}"
    walk.other = walk.machine(remote)
    return Cause(Kind.REMOTE_UNREACHABLE, remote.name, "", remote.down)


async def _never_exported(walk: Walk) -> Cause:
    """The baseline exported its last step only; a machine that has nothing wants the stage before."""
    remote = LightRemote(walk.builder)
    walk.last = await walk.builder.build(walk.project.text(), walk.project.options(), export=remote)
    walk.project.opts["target"] = "build"
    walk.other = walk.machine(remote)
    return Cause(Kind.NEVER_EXPORTED, remote.name, "", "mode=min")


ALONE: Mapping[Kind, Mutation] = {
    Kind.REMOVED: _removed, Kind.FRONTEND: _frontend, Kind.PLATFORM: _platform, Kind.NO_CACHE: _no_cache,
    Kind.EVICTED: _evicted, Kind.BLOB_MISSING: _missing, Kind.GONE: _gone, Kind.UNFINISHED: _unfinished,
    Kind.NEVER_BUILT: _never_built, Kind.IMAGE: _image, Kind.FIELD: _field, Kind.NEW: _new, Kind.SOURCE: _address,
    Kind.REMOTE_UNREACHABLE: _unreachable, Kind.NEVER_EXPORTED: _never_exported,
}  # fmt: skip
"""Mutations that hide others, or need a baseline of their own."""

TOGETHER: Mapping[Kind, Mutation] = {
    Kind.FILE_ADDED: _add, Kind.FILE_REMOVED: _remove, Kind.FILE_CONTENT: _content, Kind.FILE_MODE: _mode,
    Kind.FILE_OWNER: _owner, Kind.FILE_LINK: _link, Kind.FILE_XATTR: _xattr, Kind.INSTRUCTION: _instruction,
    Kind.ARG: _argument, Kind.ENV: _environment, Kind.IMAGE_MOVED: _moved, Kind.GIT_COMMIT: _git,
    Kind.HTTP_BODY: _http,
}  # fmt: skip
"""Mutations that can be made at the same time as another of them."""

MUTATIONS: Mapping[Kind, Mutation] = {**ALONE, **TOGETHER}
