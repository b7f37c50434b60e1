"""The magics in a real kernel."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kernel_ext.kernel import Kernel, Reply

HELLO = "%%dockerfile --out build\nFROM busybox\nRUN echo hello > /greeting && cat /greeting\n"
STARTED = re.compile(r"#\d+ \d+\.\d+ started")
LONG = "%%dockerfile\nFROM busybox\nRUN echo first > /a\nRUN echo started && sleep 600\n"


def traces(state: Path, group: str = "") -> set[str]:
    """What a builder of a state folder could leave: processes, mounts, cgroups, network namespaces."""
    found = {f"netns {name}" for name in os.listdir("/run/netns")} if os.path.isdir("/run/netns") else set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            mounts = Path(f"/proc/{pid}/mountinfo").read_text()
        except OSError:
            continue
        if str(state) in words or str(state) in mounts:
            found.add(f"process {pid}: {words[:80]!r}")
    if group:
        found |= {
            f"cgroup {directory}"
            for directory, _, _ in os.walk("/sys/fs/cgroup")
            if os.path.basename(directory) == group
        }
    return found


def group_of(kernel: Kernel) -> str:
    """The name of the cgroup that a kernel's containers are in."""
    code = "async def _group(builder): return builder.parts.shim.hello['group']\nprint(get_ipython()._bknb_magics.client.call(_group))"
    return kernel.run(code).stdout.strip()


def wait_until_gone(state: Path, group: str, before: set[str], seconds: float = 2.0) -> set[str]:
    """What is left after at most some seconds."""
    deadline = time.monotonic() + seconds
    while (left := traces(state, group) - before) and time.monotonic() < deadline:
        os.sched_yield()
    return left


def containers(state: Path) -> set[str]:
    """Processes in containers of a state folder: the sleeping step, as seen from outside."""
    return {trace for trace in traces(state) if "sleep" in trace}


def run_until_started(kernel: Kernel, act: Callable[[], None]) -> Reply:
    """Run LONG; do something once when its last step has begun to speak."""
    done: list[bool] = []

    def look(message: dict[str, Any]) -> None:
        if not done and message["msg_type"] == "stream" and STARTED.search(str(message["content"])):
            done.append(True)
            act()

    return kernel.run(LONG.replace("%%dockerfile", "%%dockerfile --progress=plain"), on_output=look)


def test_a_cell_builds_and_leaves_a_picture(shared: Kernel) -> None:
    """The picture that stays needs no widget and no script; the result object is in the variable."""
    reply = shared.run(HELLO)
    assert reply.status == "ok", reply.error
    html = [entry["text/html"] for entry in reply.displays if "text/html" in entry]
    assert len(html) == 1 and "RUN" in html[0] and "<script" not in html[0] and "<style" not in html[0]
    assert not any("application/vnd.jupyter.widget-view+json" in entry for entry in reply.displays)
    assert reply.result is None
    assert shared.run("print(build.files.text('/greeting'))").stdout == "hello\n\n"


def test_the_result_shows_itself_again(shared: Kernel) -> None:
    """Named in a later cell, the build shows its picture."""
    shared.run(HELLO)
    reply = shared.run("build")
    assert any("text/html" in entry for entry in reply.displays)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%dockerfile --tga x\nFROM busybox", "unknown option --tga (did you mean --tag?)"),
        ("%%dockerfile --build-arg V={nope}\nFROM busybox", "name 'nope' is not defined"),
        ("%%dockerfile --cache-to x\nFROM busybox", "exporting cache is not there yet"),
        ("%bknb docter", "did you mean doctor?"),
        ("%%llb\nx = 1", "the last line of %%llb has to be the graph"),
    ],
)
def test_wrong_words_are_one_line(shared: Kernel, cell: str, message: str) -> None:
    """A wrong word is one line on stderr, and the cell counts as failed."""
    reply = shared.run(cell)
    assert reply.status == "error"
    assert message in reply.stderr + "".join(reply.error)
    assert len((reply.stderr + "\n".join(reply.error)).strip().splitlines()) == 1


def test_a_failing_step_shows_its_place_and_its_log(shared: Kernel) -> None:
    """The error has the excerpt with the marker, the log's last lines and the exit code, and no Python."""
    reply = shared.run("%%dockerfile\nFROM busybox\nRUN echo trouble && exit 7\n")
    text = "\n".join(reply.error)
    assert reply.status == "error"
    assert ">>> RUN echo trouble && exit 7" in text and "trouble" in text and "exit code: 7" in text
    assert "Traceback" not in text and ".py" not in text


def test_a_failed_build_can_be_looked_into(shared: Kernel) -> None:
    """--out names a failed build too, with the files that its step left."""
    shared.run("%%dockerfile --out broken\nFROM busybox\nRUN echo left > /left && exit 1\n")
    assert shared.run("print(broken.failed_step.run('cat /left'))").stdout == "left\n"


def test_a_wrong_dockerfile_shows_the_line(shared: Kernel) -> None:
    """An unknown instruction is shown in its place, with the nearest one."""
    reply = shared.run("%%dockerfile\nFROM busybox\nRNU true\n")
    text = "\n".join(reply.error)
    assert ">>> RNU true" in text and "did you mean RUN?" in text


def test_loading_again_adds_nothing(shared: Kernel) -> None:
    """%reload_ext leaves one matcher and one configurable."""
    count = "print(sum(type(c).__name__ == 'Bknb' for c in get_ipython().configurables), len(get_ipython().Completer.custom_matchers))"
    before = shared.run(count).stdout
    shared.run("%reload_ext bknb\n%reload_ext bknb")
    assert shared.run(count).stdout == before
    assert shared.run(HELLO).status == "ok"


def test_the_settings_are_listed(shared: Kernel) -> None:
    """%config Bknb says what can be set, and takes only what fits."""
    text = shared.run("%config Bknb").stdout
    assert all(
        name in text for name in ("Bknb.offline", "Bknb.root", "Bknb.progress", "Bknb.max_parallelism")
    )
    reply = shared.run("%config Bknb.progress = 'loud'")
    assert "loud" in reply.stderr + "".join(reply.error)


def test_the_cache_is_data(kernel: Kernel) -> None:
    """%bknb cache and bknb.cache() are the same store's DataFrames; what is wrong is one line."""
    kernel.run("%%dockerfile\nFROM busybox\nRUN --mount=type=cache,id=keep,target=/k echo 1 > /k/one")
    assert "1 cache mount" in str(kernel.run("%bknb cache").result)
    assert "keep" in str(kernel.run("%bknb mounts").result)
    reply = kernel.run("import bknb\nprint(*bknb.cache().records.description)")
    assert "echo 1 > /k/one" in reply.stdout, reply.error
    said = kernel.run("%bknb mounts sav keep x.tar")
    assert "did you mean save" in said.stderr + "".join(said.error)


def test_help_is_where_one_looks(shared: Kernel) -> None:
    """? and --help explain, with examples."""
    assert "Examples" in shared.inspect("%%dockerfile") or "docker buildx build" in shared.inspect(
        "%%dockerfile"
    )
    assert "--max-parallelism" in shared.run("%%dockerfile --help\nFROM x").stdout
    assert "doctor" in shared.run("%bknb help").stdout


def test_tab_completes_inside_of_a_cell(shared: Kernel) -> None:
    """Instructions, flags, mount types and stage names."""
    assert shared.complete("%%dockerfile\nFROM busybox AS build\nRU") == ["RUN"]
    assert "--mount=type=cache" in shared.complete("%%dockerfile\nFROM busybox\nRUN --mount=type=ca")
    assert shared.complete("%%dockerfile\nFROM busybox AS build\nFROM busybox\nCOPY --from=bu") == [
        "--from=build"
    ]
    assert "--target" in shared.complete("%%dockerfile --tar")


def test_python_values_reach_a_build(shared: Kernel) -> None:
    """--build-arg takes expressions and variables; the cell's text is never touched."""
    shared.run("x = 20")
    shared.run(
        "%%dockerfile --build-arg A={x+1} --build-arg x --out b\nFROM busybox\nARG A x\nRUN echo \"$A $x ${A}\" '{x}' > /out\n"
    )
    assert shared.run("print(b.files.text('/out'))").stdout == "21 20 21 {x}\n\n"


def test_a_semicolon_silences(shared: Kernel) -> None:
    """The result is not shown a second time, whether by ; or not."""
    assert shared.run("%%dockerfile -t quiet;\nFROM busybox\n").result is None


def test_a_build_in_the_background(shared: Kernel) -> None:
    """--bg returns a handle at once, which can be awaited, also by asyncio.run in a cell."""
    shared.run("%%dockerfile --bg --out handle\nFROM busybox\nRUN sleep 1 && echo late > /late\n")
    assert "running" in shared.run("handle").result["text/plain"]  # type: ignore[index]
    assert shared.run("build = await handle\nprint(build.files.text('/late'))").stdout == "late\n\n"
    again = shared.run(
        "import asyncio, nest_asyncio2\nnest_asyncio2.apply()\nprint(asyncio.run(handle.aresult()) is build)"
    )
    assert again.stdout == "True\n", again.error


def test_llb_from_python(shared: Kernel) -> None:
    """The last expression of %%llb is built; the notebook's own names are there."""
    shared.run("word = 'made'")
    reply = shared.run(
        "%%llb --out made\nbase = llb.image('busybox')\nbase.run(['sh', '-c', f'echo {word} > /x'])"
    )
    assert reply.status == "ok", reply.error
    assert shared.run("print(made.files.text('/x'))").stdout == "made\n\n"


def test_questions_are_answered(shared: Kernel) -> None:
    """%bknb's verbs answer."""
    shared.run("%%dockerfile -t kept\nFROM busybox\nRUN echo 1 > /one\n")
    assert "crun" in shared.run("%bknb doctor").stdout or "runc" in shared.run("%bknb doctor").stdout
    assert "kept:latest" in shared.run("%bknb images").result["text/plain"]  # type: ignore[index]
    assert "regular" in shared.run("%bknb du").result["text/plain"]  # type: ignore[index]
    assert "kept" in shared.run("%bknb history").result["text/plain"]  # type: ignore[index]
    assert "image/svg+xml" in shared.run("%bknb graph").result  # type: ignore[operator]
    assert "usage: %bknb prune" in shared.run("%bknb prune --help").stdout
    assert "removed" in shared.run("%bknb prune").stdout


def test_the_open_notebook_is_withheld(kernel: Kernel, tmp_path: Path) -> None:
    """COPY . . does not see the notebook, saving it changes nothing, and the table says so."""
    (tmp_path / "work" / "open.ipynb").write_text("{}")
    (tmp_path / "work" / "a.txt").write_text("a")
    cell = "%%dockerfile --out b\nFROM scratch\nCOPY . .\n"
    first = kernel.run(cell)
    assert kernel.run("print([f.path for f in b.files.ls('/')])").stdout == "['/a.txt']\n"
    assert "open.ipynb" in first.displays[-1]["text/html"]
    (tmp_path / "work" / "open.ipynb").write_text('{"saved": "again"}')
    kernel.run(cell)
    assert kernel.run("print(b.steps[-1].outcome)").stdout == "content\n"


def test_everything_is_cached_after_a_restart(kernel: Kernel) -> None:
    """A new kernel finds what the old one built."""
    kernel.run(HELLO)
    kernel.restart()
    kernel.run("%load_ext bknb\n%config Bknb.offline = True")
    assert kernel.run(HELLO).status == "ok"
    assert (
        kernel.run("print([s.outcome for s in build.steps if s.command.startswith('RUN')])").stdout
        == "['definition']\n"
    )


def test_the_stop_button_ends_a_build(kernel: Kernel, tmp_path: Path) -> None:
    """An interrupt: one line, within two seconds, nothing left, and what had finished is kept."""
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        assert containers(tmp_path / "state")
        kernel.interrupt()

    reply = run_until_started(kernel, press)
    assert reply.status == "error"
    assert reply.error == ["Build cancelled."]
    assert time.monotonic() - pressed[0] < 2
    assert not containers(tmp_path / "state")
    again = kernel.run(LONG.replace("sleep 600", "true").replace("%%dockerfile", "%%dockerfile --out b"))
    assert again.status == "ok"
    assert (
        kernel.run("print([s.outcome for s in b.steps if 'first' in s.command])").stdout == "['definition']\n"
    )


def test_a_killed_kernel_leaves_nothing(kernel: Kernel, tmp_path: Path) -> None:
    """kill -9 in the middle of a step: within two seconds no process, mount, cgroup or network namespace is left."""
    state = tmp_path / "state"
    before = {trace for trace in traces(state) if trace.startswith("netns")}
    group = group_of(kernel)
    kernel.client.execute(LONG)
    deadline = time.monotonic() + 30
    while not containers(state) and time.monotonic() < deadline:
        os.sched_yield()
    assert traces(state, group) - before
    os.kill(kernel.pid, signal.SIGKILL)
    assert not wait_until_gone(state, group, before, 2.0)
