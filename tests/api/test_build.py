"""Whole builds: text in, image out, on real containers."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bknb.api import Build, Client, Preferences
from bknb.errors import BuildCancelled, BuildError, DockerfileError, SourceError, UsageError
from bknb.events import LogEvent, VertexEvent
from bknb.options import parse

APP = """
FROM busybox AS deps
WORKDIR /app
COPY requirements.txt .
RUN cp requirements.txt installed.txt

FROM busybox AS unused
RUN echo never > /never

FROM deps AS build
COPY src src
RUN cat src/*.txt installed.txt > app.txt

FROM busybox
COPY --from=build /app/app.txt /app.txt
CMD ["cat", "/app.txt"]
"""


def build(client: Client, dockerfile: str, context: Path | str = "-", words: Sequence[str] = ()) -> Build:
    """Build a text."""
    return client.build(parse([*words, str(context)], cell=False), dockerfile=dockerfile)


def outcomes(build: Build) -> dict[str, str]:
    """Outcome by instruction, of what is no source."""
    return {step.command: step.outcome for step in build.steps if step.command and step.view.kind != "local"}


@pytest.fixture
def app(context: Path) -> Path:
    """The sources of APP."""
    (context / "requirements.txt").write_text("one\n")
    (context / "src").mkdir()
    (context / "src" / "a.txt").write_text("alpha\n")
    return context


def test_a_build_runs_and_leaves_files(client: Client, app: Path) -> None:
    """Every needed step runs, the stage that nobody needs does not, and the result holds what was written."""
    done = build(client, APP, app)
    found = outcomes(done)
    assert {found[command] for command in found if "unused" not in command and "/never" not in command} <= {
        "ran"
    }
    assert found["RUN echo never > /never"] == "skipped"
    assert done.files.text("/app.txt") == "alpha\none\n"
    assert done.run("cat /app.txt").stdout == "alpha\none\n"


def test_the_second_build_starts_no_container(client: Client, app: Path) -> None:
    """Nothing changed: every step is cached, and nothing is executed."""
    build(client, APP, app)
    again = build(client, APP, app)
    assert {
        outcome
        for command, outcome in outcomes(again).items()
        if "/never" not in command and "AS unused" not in command
    } <= {"definition", "content"}
    assert not [event for event in again.events if isinstance(event, LogEvent)]


def test_an_edit_runs_the_steps_after_its_copy(client: Client, app: Path) -> None:
    """One source file is edited: its COPY and what stands on it run, the rest stays cached."""
    build(client, APP, app)
    (app / "src" / "a.txt").write_text("beta\n")
    again = outcomes(build(client, APP, app))
    ran = {command for command, outcome in again.items() if outcome == "ran"}
    assert ran == {
        "COPY src src",
        "RUN cat src/*.txt installed.txt > app.txt",
        "COPY --from=build /app/app.txt /app.txt",
    }


def test_an_edit_that_leads_to_the_same_files_stops_there(client: Client, app: Path) -> None:
    """A step that makes the same bytes again cuts the rebuild off: what copies them is cached by content."""
    build(client, APP, app)
    (app / "requirements.txt").write_text("one\n")
    (app / "src" / "a.txt").write_text("alpha\n")
    again = outcomes(build(client, APP, app))
    assert "ran" not in again.values()
    dockerfile = APP.replace(
        "cat src/*.txt installed.txt > app.txt", "cat src/*.txt  installed.txt > app.txt"
    )
    changed = outcomes(build(client, dockerfile, app))
    assert changed["RUN cat src/*.txt  installed.txt > app.txt"] == "ran"
    assert changed["COPY --from=build /app/app.txt /app.txt"] == "content"


def test_everything_is_cached_after_a_restart(tmp_path: Path, app: Path, client: Client) -> None:
    """Another builder on the same folder finds all that the first one did."""
    build(client, APP, app)
    client.close()
    second = Client(Preferences(root=str(tmp_path / "state"), offline=True))
    try:
        assert "ran" not in outcomes(build(second, APP, app)).values()
    finally:
        second.close()


def test_independent_steps_run_side_by_side(client: Client) -> None:
    """Eight stages wait for each other's files in a shared cache mount: one after the other they would never end."""
    stages = "\n".join(
        f"FROM busybox AS s{i}\nRUN --mount=type=cache,target=/c touch /c/{i}; "
        f"n=0; while [ $(ls /c | wc -l) -lt 8 ] && [ $n -lt 400 ]; do n=$((n+1)); sleep 0.05; done; [ $n -lt 400 ] && echo {i} > /out"
        for i in range(8)
    )
    joined = "\n".join(f"COPY --from=s{i} /out /out{i}" for i in range(8))
    done = build(client, f"{stages}\nFROM scratch\n{joined}\n")
    assert [done.files.text(f"/out{i}") for i in range(8)] == [f"{i}\n" for i in range(8)]


def test_max_parallelism_is_kept(client: Client) -> None:
    """With a limit of one no two steps run at the same time."""
    stages = "\n".join(f"FROM busybox AS s{i}\nRUN echo {i} > /out" for i in range(4))
    joined = "\n".join(f"COPY --from=s{i} /out /out{i}" for i in range(4))
    done = build(client, f"{stages}\nFROM scratch\n{joined}\n", words=["--max-parallelism", "1"])
    spans = sorted((s.view.started, s.view.completed) for s in done.steps if s.command.startswith("RUN"))
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


def test_run_takes_its_mounts_and_settings(client: Client, app: Path, tmp_path: Path) -> None:
    """Bind, cache, tmpfs and secret mounts, USER, ENV, ARG, WORKDIR and heredocs take effect."""
    (tmp_path / "key").write_text("hunter2")
    done = build(
        client,
        """
FROM busybox
ARG WHO=world
ENV GREETING="hello $WHO"
RUN echo me:x:1234:1234::/:/bin/sh >> /etc/passwd && mkdir -m 777 /out
USER me
WORKDIR /out
RUN --mount=type=bind,source=src,target=/in \\
    --mount=type=secret,id=key,mode=0444 \\
    --mount=type=tmpfs,target=/scratch \\
    --mount=type=cache,target=/cache,mode=0777 <<EOF
echo "$GREETING" > greeting
id -u > uid
cat /in/a.txt > bound
cat /run/secrets/key | wc -c > secret
touch /scratch/x /cache/y && ls /scratch /cache > mounts
EOF
RUN ["/bin/sh", "-c", "echo exec > exec"]
""",
        app,
        ["--secret", f"id=key,src={tmp_path / 'key'}", "--build-arg", "WHO=there"],
    )
    read = {
        name: done.files.text(f"/out/{name}").strip()
        for name in ("greeting", "uid", "bound", "secret", "exec")
    }
    assert read == {"greeting": "hello there", "uid": "1234", "bound": "alpha", "secret": "7", "exec": "exec"}
    assert not done.files.exists("/run/secrets/key")
    assert not done.files.exists("/scratch")
    assert "hunter2" not in str(done.events)


def test_network_none_has_no_network(client: Client) -> None:
    """--network=none leaves only loopback."""
    done = build(client, "FROM busybox\nRUN --network=none ls /sys/class/net > /nets\n")
    assert done.files.text("/nets").split() == ["lo"]


def test_a_failing_step_can_be_looked_into(client: Client) -> None:
    """The error names the step; its files are as they were when it failed, its log is whole, a command runs in it."""
    with pytest.raises(BuildError, match="exit code: 3") as caught:
        build(client, "FROM busybox\nRUN echo before > /left && echo said && exit 3\nRUN echo after\n")
    step = caught.value.step
    assert step.outcome == "failed" and step.log == "said\n"
    assert step.files.text("/left") == "before\n"
    assert step.run("cat /left").stdout == "before\n"
    assert outcomes(caught.value.result)["RUN echo after"] not in ("ran", "failed")


def test_what_finished_before_a_failure_is_kept(client: Client) -> None:
    """The step before the failing one is cached in the next build."""
    with pytest.raises(BuildError):
        build(client, "FROM busybox\nRUN echo slow > /a\nRUN exit 1\n")
    again = outcomes(build(client, "FROM busybox\nRUN echo slow > /a\nRUN true\n"))
    assert again == {
        "FROM busybox": again["FROM busybox"],
        "RUN echo slow > /a": "definition",
        "RUN true": "ran",
    }


def test_a_stopped_build_ends_and_keeps_what_it_did(client: Client) -> None:
    """Cancelling ends the running step at once; the step before it stays cached."""
    dockerfile = "FROM busybox\nRUN echo done > /a\nRUN echo running && sleep 600\n"
    running = client.start(parse(["-"], cell=False), dockerfile=dockerfile)
    seen = threading.Event()

    def look() -> None:
        if any(isinstance(event, LogEvent) and b"running" in event.data for event in running.new_events()):
            seen.set()
            running.cancel()

    began = time.monotonic()
    with pytest.raises(BuildCancelled):
        running.wait(look)
    assert seen.is_set() and time.monotonic() - began < 60
    again = outcomes(build(client, dockerfile.replace("sleep 600", "true")))
    assert again["RUN echo done > /a"] == "definition"


def test_the_image_stays_in_the_store(client: Client) -> None:
    """-t keeps the image; FROM finds it, and the step says where it came from."""
    first = build(client, "FROM busybox\nRUN echo 1 > /one\nLABEL a=b\n", words=["-t", "mine"])
    assert first.image.config["config"]["Labels"] == {"a": "b"}
    assert len(first.image.layers) == 2
    second = build(client, "FROM mine\nRUN cat /one /one > /two\n")
    assert second.files.text("/two") == "1\n1\n"
    assert any("from this store" in event.note for event in second.events if isinstance(event, VertexEvent))


def test_offline_says_which_mirror_served(client: Client) -> None:
    """An image of docker.io that came from this kernel's registry says so."""
    done = build(client, "FROM busybox\nRUN true\n")
    notes = {event.note for event in done.events if isinstance(event, VertexEvent) and event.note}
    assert any("127.0.0.1" in note for note in notes), notes


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ("FROM busybox\nRNU true\n", "did you mean RUN?"),
        ("FROM busybox\nCOPY --form=x a b\n", "unknown flag"),
        ("FROM busybox AS build\nFROM busybox\nCOPY --from=biuld /a /b\n", "biuld"),
        ("", "empty"),
    ],
)
def test_a_wrong_dockerfile_is_told_with_its_line(client: Client, dockerfile: str, message: str) -> None:
    """An unknown instruction, flag or stage names what was probably meant."""
    with pytest.raises(BuildError) as caught:
        build(client, dockerfile)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(client: Client, context: Path) -> None:
    """COPY of what is not there names it."""
    with pytest.raises(BuildError, match=r"nope.*not found"):
        build(client, "FROM busybox\nCOPY nope /\n", context)


def test_a_missing_context_is_one_line(client: Client) -> None:
    """A context that is no folder is told before anything runs."""
    with pytest.raises(SourceError, match="is not a folder"):
        build(client, "FROM busybox\n", "/nowhere")


def test_another_frontend_is_one_line(client: Client) -> None:
    """# syntax= of an image that is not docker/dockerfile is refused with the reason."""
    with pytest.raises(BuildError, match="frontends as images are not run yet"):
        build(client, "# syntax=example/other:1\nFROM busybox\n")
    assert build(client, "# syntax=docker/dockerfile:1.7\nFROM busybox\nRUN true\n").steps


def test_steps_are_found_by_what_they_say(client: Client) -> None:
    """A step is found by a part of its text; a wrong one offers the nearest."""
    done = build(client, "FROM busybox\nRUN echo a > /a\nRUN echo b > /b\n")
    assert [(c.kind, c.path) for c in done["echo b"].files.diff()] == [("added", "/b")]
    with pytest.raises(UsageError, match="no step"):
        done["RUN nothing"]
    with pytest.raises(UsageError, match="could be"):
        done["RUN"]


def test_the_table_has_a_row_for_each_step(client: Client) -> None:
    """The table is a DataFrame with one row for each step."""
    table = build(client, "FROM busybox\nRUN echo a > /a\n").table
    assert list(table["cache"])[-1] == "ran"


def test_two_builds_at_once_share_a_step(client: Client) -> None:
    """The same step of two builds runs once."""
    dockerfile = "FROM busybox\nRUN sleep 1 && cat /proc/sys/kernel/random/uuid > /id\n"
    both = [client.start(parse(["-"], cell=False), dockerfile=dockerfile) for _ in range(2)]
    ids = {running.wait().files.text("/id") for running in both}
    assert len(ids) == 1


def test_a_dockerfile_error_is_the_cause(client: Client) -> None:
    """The error of the frontend is kept, with its place."""
    with pytest.raises(BuildError) as caught:
        build(client, "FROM busybox\nRUN true\nBAD\n")
    assert isinstance(caught.value.__cause__, DockerfileError)
    assert caught.value.__cause__.ranges[0].start_line == 3


def test_options_reach_the_container(client: Client) -> None:
    """Hosts, limits and the size of /dev/shm take effect; the host's network needs leave."""
    done = build(
        client,
        "FROM busybox\nRUN grep forge /etc/hosts > /hosts; ulimit -n > /files; df -k /dev/shm | tail -n 1 > /shm\n",
        words=["--add-host", "forge:10.1.2.3", "--ulimit", "nofile=333:444", "--shm-size", "8m"],
    )
    assert done.files.text("/hosts").split() == ["10.1.2.3", "forge"]
    assert done.files.text("/files") == "333\n"
    assert done.files.text("/shm").split()[1] == "8192"
    host = "FROM busybox\nRUN --network=host ls /sys/class/net > /nets\n"
    with pytest.raises(BuildError, match=r"--allow network\.host"):
        build(client, host)
    assert "lo" in build(client, host, words=["--allow", "network.host"]).files.text("/nets")


def test_links_are_merged_without_their_base(client: Client, app: Path) -> None:
    """COPY --link lies over any base: when the base changes, its layer is the same."""
    first = build(client, "FROM busybox\nRUN echo 1 > /one\nCOPY --link src /src\n", app, ["-t", "first"])
    second = build(client, "FROM busybox\nRUN echo 2 > /two\nCOPY --link src /src\n", app, ["-t", "second"])
    assert second.files.text("/src/a.txt") == "alpha\n" and second.files.text("/two") == "2\n"
    assert first.image.layers[-1]["digest"] == second.image.layers[-1]["digest"]


def test_the_choice_of_another_folder_is_said(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the state folder is not the one that was wanted, the first build says why."""
    from bknb.api import client as module
    from bknb.config.root import StateFolder

    chosen = StateFolder(str(tmp_path / "local"), "/home is on a network file system (nfs4): the state is kept elsewhere")
    monkeypatch.setattr(module, "state_folder", lambda wanted: chosen)
    other = Client(Preferences(offline=True))
    try:
        said = [build(other, "FROM busybox\n").view.warnings for _ in range(2)]
    finally:
        other.close()
    assert [w.short for w in said[0]] == [chosen.note] and not said[1]


def test_a_copied_link_gives_its_own_name(client: Client, context: Path) -> None:
    """COPY follows a link, and what it leads to gets the link's name, with and without wildcards."""
    (context / "src").mkdir()
    (context / "src" / "a.txt").write_text("a\n")
    (context / "list.txt").symlink_to("src/a.txt")
    done = build(client, "FROM scratch\nCOPY list.txt /one/\nCOPY li*.txt /two/\nCOPY list.txt /three\n", context)
    assert [f.path for f in done.files.walk() if not f.is_dir] == ["/one/list.txt", "/three", "/two/list.txt"]
    assert done.files.text("/one/list.txt") == "a\n"
