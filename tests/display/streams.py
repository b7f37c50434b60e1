"""Streams of events as builders send them: small, failed, running, wide, cached, hostile.

Each function returns the events of one build in order; times begin at `T0`. What tests and screenshots draw
comes from here, so that both look at the same builds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bknb.digest import Digest
from bknb.errors import Range
from bknb.events import (
    BuildEvent,
    DecisionEvent,
    Event,
    LogEvent,
    Outcome,
    Phase,
    StatusEvent,
    VertexEvent,
    WarningEvent,
)

T0 = 1_760_000_000.0
D, C, RAN, SKIP = Outcome.DEFINITION, Outcome.CONTENT, Outcome.RAN, Outcome.SKIPPED


@dataclass
class Step:
    """A step of a stream; `begin` and `end` are seconds from the build's start."""

    id: str
    name: str
    inputs: tuple[str, ...] = ()
    kind: str = "exec"
    stage: str = ""
    line: int = 0
    begin: float | None = None
    end: float | None = None
    outcome: Outcome | None = None
    error: str = ""
    size: int | None = None
    log: Sequence[str] = ()
    note: str = ""
    extra: list[Event] = field(default_factory=list)

    @property
    def digest(self) -> Digest:
        return Digest.of_text(self.id)

    def event(self, *, begin: bool = False, end: bool = False) -> VertexEvent:
        """The state as of now."""
        return VertexEvent(
            self.digest,
            self.name,
            tuple(Digest.of_text(i) for i in self.inputs),
            self.kind,
            self.stage,
            (Range(self.line),) if self.line else (),
            T0 + self.begin if self.begin is not None and (begin or end) else None,
            T0 + self.end if self.end is not None and end else None,
            self.outcome if end else None,
            self.error if end else "",
            self.size if end else None,
            str(Digest.of_text("content " + self.id)) if end and self.outcome is not SKIP else "",
            note=self.note if end else "",
        )


def play(
    steps: Sequence[Step], *, title: str, dockerfile: str = "", until: float = 1e9, error: str = ""
) -> list[Event]:
    """The stream of some steps: all are announced, then begin, log and end as their times say."""
    begun = BuildEvent("b1", T0, False, title, dockerfile, "Dockerfile", "built-in dockerfile/1.26")
    timed: list[tuple[float, int, Event]] = []
    sequence = 0
    for step in steps:
        end = step.end if step.end is not None else 0.0
        if step.outcome is not None and step.outcome is not SKIP:
            sequence += 1
            hit = "hit" if step.outcome.cached else "miss"
            key = str(Digest.of_text("key " + step.id))
            at = T0 + (step.begin or 0.0)
            timed.append(
                (step.begin or 0.0, 0, DecisionEvent(sequence, step.digest, Phase.KEY, hit, (key,), at))
            )
        if step.begin is not None:
            timed.append((step.begin, 1, step.event(begin=True)))
            for i, line in enumerate(step.log):
                at = step.begin + (end - step.begin) * (i + 1) / (len(step.log) + 1)
                timed.append((at, 2, LogEvent(step.digest, 1 + i % 2, line.encode() + b"\n", T0 + at)))
        timed.extend((event.time - T0 if hasattr(event, "time") else end, 2, event) for event in step.extra)
        if step.outcome is not None:
            timed.append((end, 3, step.event(end=True)))
    last = max((at for at, _, _ in timed), default=0.0)
    events: list[Event] = [begun, *(step.event() for step in steps)]
    events += [event for at, _, event in sorted(timed, key=lambda t: t[:2]) if at <= until]
    if last <= until:
        events.append(
            BuildEvent(
                "b1", T0 + last + 0.04, True, error=error, result="" if error else str(Digest.of_text(title))
            )
        )
    return events


DOCKERFILE = """\
FROM python:3.12-slim AS build
WORKDIR /app
COPY requirements.txt .
RUN pip install -r requirements.txt
COPY src/ src/
RUN python -m build

FROM build AS docs
RUN mkdocs build

FROM gcr.io/distroless/python3
COPY --from=build /app/dist /app
"""


def _demo() -> list[Step]:
    return [
        Step("ctx", "[internal] load build context", kind="local"),
        Step("base", "[build 1/6] FROM python:3.12-slim", kind="image", stage="build", line=1, size=48_000_000),
        Step("wd", "[build 2/6] WORKDIR /app", ("base",), "file", "build", 2, size=0),
        Step("req", "[build 3/6] COPY requirements.txt .", ("wd", "ctx"), "file", "build", 3, size=212),
        Step("pip", "[build 4/6] RUN pip install -r requirements.txt", ("req",), "exec", "build", 4, size=61_000_000),
        Step("src", "[build 5/6] COPY src/ src/", ("pip", "ctx"), "file", "build", 5, size=18_300),
        Step("mk", "[build 6/6] RUN python -m build", ("src",), "exec", "build", 6, size=212_000),
        Step("docs", "[docs 2/2] RUN mkdocs build", ("mk",), "exec", "docs", 9),
        Step("dless", "[stage-2 1/2] FROM gcr.io/distroless/python3", (), "image", "stage-2", 11, size=22_000_000),
        Step("cp", "[stage-2 2/2] COPY --from=build /app/dist /app", ("dless", "mk"), "file", "stage-2", 12, size=212_000),
    ]  # fmt: skip


def _set(steps: Sequence[Step], times: dict[str, tuple[float, float, Outcome]]) -> list[Step]:
    for step in steps:
        if step.id in times:
            step.begin, step.end, step.outcome = times[step.id]
        else:
            step.outcome = SKIP
    return list(steps)


BUILD_LOG = (
    "* Creating isolated environment: venv+pip...",
    "* Installing packages in isolated environment:",
    "  - setuptools >= 77",
    "* Getting build dependencies for sdist...",
    "\x1b[32mrunning egg_info\x1b[0m",
    "* Building wheel from sdist",
    "\x1b[1;32mSuccessfully built\x1b[0m \x1b[4mdemo-0.1.tar.gz\x1b[0m and demo-0.1-py3-none-any.whl",
)


def _pulls(vertex: Digest, name: str, begin: float, end: float, size: int) -> list[Event]:
    found: list[Event] = []
    for k in range(3):
        id_, total = f"sha256:{Digest.of_text(f'{name}{k}').hex}", size // (k + 2)
        for part in range(11):
            at = T0 + begin + (end - begin) * part / 10
            done = at if part == 10 else None
            found.append(
                StatusEvent(vertex, id_, total * part // 10, total, at, "downloading", T0 + begin, done)
            )
    return found


def first(until: float = 1e9) -> list[Event]:
    """The first build of a small project: everything runs, one stage is not needed."""
    steps = _set(_demo(), {
        "ctx": (0.0, 0.1, RAN), "base": (0.0, 0.9, RAN), "wd": (0.9, 0.93, RAN), "req": (0.93, 0.98, RAN),
        "pip": (0.98, 4.4, RAN), "src": (4.4, 4.46, RAN), "mk": (4.46, 6.8, RAN), "dless": (0.0, 1.4, RAN),
        "cp": (6.8, 6.86, RAN),
    })  # fmt: skip
    by = {step.id: step for step in steps}
    by["base"].extra = _pulls(by["base"].digest, "base", 0.0, 0.9, 48_000_000)
    by["dless"].extra = _pulls(by["dless"].digest, "dless", 0.1, 1.4, 22_000_000)
    by["pip"].log = [f"Collecting package-{i} (from -r requirements.txt (line {i}))" for i in range(1, 30)]
    by["mk"].log = BUILD_LOG
    by["base"].note = "mirror 127.0.0.1:5000"
    by["ctx"].extra = [
        DecisionEvent(
            90, by["ctx"].digest, Phase.FILTER, "withheld", ("demo.ipynb", ".ipynb_checkpoints"), T0
        ),
        StatusEvent(by["ctx"].digest, "transferring context", 412_000, 0, T0 + 0.1, "", T0, T0 + 0.1),
    ]
    waited = by["src"].digest
    by["src"].extra = [
        DecisionEvent(91, waited, Phase.WAIT, "begin", ("content-hash",), T0 + 4.1),
        DecisionEvent(92, waited, Phase.WAIT, "end", ("content-hash",), T0 + 4.4),
        WarningEvent(waited, 1, "JSONArgsRecommended: JSON arguments recommended for CMD", rule="JSONArgsRecommended",
                     url="https://docs.docker.com/go/dockerfile/rule/json-args-recommended/", ranges=(Range(6),)),
    ]  # fmt: skip
    return play(steps, title="demo:latest", dockerfile=DOCKERFILE, until=until)


def edited() -> list[Event]:
    """The same after one source file was edited: what stands after its COPY runs."""
    steps = _set(_demo(), {
        "ctx": (0.0, 0.05, RAN), "base": (0.0, 0.0, D), "wd": (0.0, 0.0, D), "req": (0.05, 0.06, C),
        "pip": (0.06, 0.06, D), "src": (0.06, 0.12, RAN), "mk": (0.12, 2.44, RAN), "dless": (0.0, 0.0, D),
        "cp": (2.44, 2.5, RAN),
    })  # fmt: skip
    {step.id: step for step in steps}["mk"].log = BUILD_LOG
    return play(steps, title="demo:latest", dockerfile=DOCKERFILE)


def cached() -> list[Event]:
    """The same with nothing changed."""
    times = dict.fromkeys("base wd req pip src mk dless cp".split(), (0.0, 0.0, D))
    return play(_set(_demo(), {"ctx": (0.0, 0.02, RAN), **times}), title="demo:latest", dockerfile=DOCKERFILE)


def failed() -> list[Event]:
    """A RUN that ends with 1 while another stage still runs."""
    steps = _demo()
    for step in steps:
        step.outcome = Outcome.CANCELLED
    _set([s for s in steps if s.id in "ctx base wd req pip src dless".split()], {
        "ctx": (0.0, 0.1, RAN), "base": (0.0, 0.0, D), "wd": (0.0, 0.0, D), "req": (0.1, 0.1, C),
        "pip": (0.1, 0.1, D), "src": (0.1, 0.16, RAN), "dless": (0.0, 0.9, RAN),
    })  # fmt: skip
    by = {step.id: step for step in steps}
    by["docs"].outcome = SKIP
    make = by["mk"]
    make.begin, make.end, make.outcome = 0.16, 1.9, Outcome.FAILED
    make.error = 'process "/bin/sh -c python -m build" did not complete successfully: exit code: 1'
    make.log = (*BUILD_LOG[:5], "Traceback (most recent call last):", '  File "setup.py", line 3, in <module>',
                "    import versioning", "\x1b[31mModuleNotFoundError: No module named 'versioning'\x1b[0m",
                "ERROR Backend subprocess exited when trying to invoke get_requires_for_build_wheel")  # fmt: skip
    return play(
        steps,
        title="demo:latest",
        dockerfile=DOCKERFILE,
        error=f"[build 6/6] RUN python -m build: {make.error}",
    )


def running() -> list[Event]:
    """The first build, seen in its middle."""
    return first(until=3.1)


def pulling() -> list[Event]:
    """The first build, while its images are pulled."""
    return first(until=0.55)


def fresh() -> list[Event]:
    """300 steps, none of them cached, seen in the middle."""
    events = large(300, fresh=300)
    return [e for e in events if getattr(e, "time", 0.0) < T0 + 2.0 and (getattr(e, "started", None) or 0.0) < T0 + 2.0
            and (getattr(e, "completed", None) or 0.0) < T0 + 2.0]  # fmt: skip


def forty() -> list[Event]:
    """Six stages, forty steps, some of them beside each other."""
    stages = {"base": 6, "deps": 8, "assets": 7, "compile": 9, "test": 5, "release": 5}
    commands = (
        "RUN apt-get update && apt-get install -y --no-install-recommends build-essential curl git",
        "WORKDIR /srv/application", "COPY package.json package-lock.json ./", "RUN npm ci --omit=dev",
        "COPY config/ config/", "RUN make -j8 all", "ENV NODE_ENV=production", "RUN ./configure --prefix=/usr/local",
    )  # fmt: skip
    steps = [Step("ctx", "[internal] load build context", kind="local", begin=0.0, end=0.4, outcome=RAN)]
    ends: dict[str, float] = {}
    previous: dict[str, str] = {}
    line = 0
    for row, (stage, length) in enumerate(stages.items()):
        after = {"deps": "base", "assets": "base", "compile": "deps", "test": "compile"}.get(stage)
        at = ends.get(after, 0.0) if after else 0.0
        for n in range(1, length + 1):
            line += 1
            id_ = f"{stage}{n}"
            inputs: tuple[str, ...] = (f"{stage}{n - 1}",) if n > 1 else ((previous[after],) if after else ())
            command, kind = commands[(n + row) % len(commands)], "exec"
            if n == 1 and not after:
                command, kind = f"FROM docker.io/library/debian:bookworm-{stage}", "image"
            if command.startswith("COPY"):
                inputs, kind = (*inputs, "ctx"), "file"
            if stage == "release" and n in (2, 3, 4):
                origin = ("assets", "compile", "test")[n - 2]
                command, inputs, kind = (
                    f"COPY --from={origin} /srv/out/{origin} /srv/",
                    (*inputs, previous[origin]),
                    "file",
                )
                at = max(at, ends[origin])
            spent = 0.02 if kind == "file" else 0.3 + 0.23 * ((n * 7 + row * 3) % 9)
            fresh = (stage in ("compile", "test") and n > 3) or (stage == "release" and n > 2)
            if not fresh:
                spent = 0.0
            steps.append(Step(id_, f"[{stage} {n}/{length}] {command}", inputs, kind, stage, line, at, at + spent,
                              RAN if fresh else (C if command.startswith("COPY") else D), size=n * 1_234_567))  # fmt: skip
            at += spent
        ends[stage], previous[stage] = at, f"{stage}{length}"
    return play(steps, title="registry.example.com/platform/application:2026.11", dockerfile="\n".join(
        step.name.partition("] ")[2] for step in steps if step.line))  # fmt: skip


def large(steps: int = 300, *, fresh: int = 12) -> list[Event]:
    """Ten stages of many steps; the last `fresh` of one stage, and the end, run."""
    found: list[Step] = []
    per = steps // 10
    at = 0.0
    for s in range(10):
        stage = f"stage{s}"
        for n in range(1, per + 1):
            id_ = f"{stage}.{n}"
            inputs = (f"{stage}.{n - 1}",) if n > 1 else ()
            if s == 9 and 1 < n <= 10:
                inputs = (*inputs, f"stage{n - 2}.{per}")
            runs = (n > per - fresh and (s == 4 or fresh >= steps)) or (s == 9 and n >= 6)
            kind = "image" if n == 1 else "exec"
            command = (
                f"FROM base:{s}" if n == 1 else f"RUN step --number={n} --of=stage{s} && make target-{n}"
            )
            found.append(Step(id_, f"[{stage} {n}/{per}] {command}", inputs, kind, stage, len(found) + 1, at,
                              at + (0.2 if runs else 0.0), RAN if runs else D, size=1000 * n,
                              log=[f"line {i} of {id_}" for i in range(5)] if runs else ()))  # fmt: skip
            at += 0.2 if runs else 0.0
    source = "\n".join(step.name.partition("] ")[2] for step in found)
    return play(found, title=f"large:{steps}", dockerfile=source)


def hostile() -> list[Event]:
    """Names, logs and notes that try to leave their place."""
    bad = "</text></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x1b]0;t\x07\u202e"
    log = (
        "\x1b[2J\x1b[H<b>bold?</b>",
        "\x00\x07\x08 50%\r100%",
        bad,
        "x" * 5000,
        "\udcff\ud800".encode("utf-8", "replace").decode(),
    )
    steps = [
        Step("a", f"[{'s' * 200} 1/2] FROM {bad}", kind="image", stage=bad, line=1, begin=0.0, end=0.5, outcome=RAN),
        Step("b", f"[x 2/2] RUN {bad * 50}", ("a", "nowhere"), stage=bad, line=2, begin=0.5, end=1.0,
             outcome=Outcome.FAILED, error=bad, log=log, note=bad),
        Step("loop1", "RUN loop", ("loop2",), outcome=SKIP),
        Step("loop2", "RUN loop", ("loop1",), outcome=SKIP),
    ]  # fmt: skip
    return play(steps, title=bad, dockerfile=f"FROM {bad}\nRUN {bad}\n", error=bad)


def llb() -> list[Event]:
    """A graph without stages: a diamond of merges, as `%%llb` makes them."""
    steps = [
        Step(
            "img",
            "docker-image://docker.io/library/busybox:latest",
            kind="image",
            begin=0.0,
            end=0.1,
            outcome=RAN,
        )
    ]
    steps += [
        Step(f"r{k}", f"sh -c 'echo {k} > /out/{k}'", ("img",), begin=0.1, end=0.4 + 0.2 * k, outcome=RAN)
        for k in range(4)
    ]
    steps.append(Step("m", "merge", ("r0", "r1", "r2", "r3"), "merge", begin=1.0, end=1.05, outcome=RAN))
    return play(steps, title="%%llb")
