"""What is written down of a build: the texts of its keys are there, and no secret is."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import bknb
from bknb.api import Build, Client
from bknb.builder.local import LocalBuilder
from bknb.cache.listing import Listing
from bknb.cache.store import MAX_PLAINTEXT, SqliteCacheStore
from bknb.events import DecisionEvent, Phase
from bknb.options import parse

TOKEN, SECRET = "tok-4b1d-9a77", "sec-77aa-0f0f"
TEXT = """FROM busybox
ARG API_TOKEN
ENV DERIVED=x${API_TOKEN}y
COPY data /data
COPY <<EOF /written
it is $API_TOKEN
EOF
RUN --mount=type=secret,id=s test -s /run/secrets/s && test -n "$API_TOKEN"
RUN --mount=type=secret,id=s,env=S test -n "$S"
"""


def build(client: Client, context: Path, token: str = TOKEN) -> Build:
    """Build with a secret, and with an argument that should be one."""
    (context / "secret").write_text(SECRET)
    (context / ".dockerignore").write_text("secret\n")
    words = ["--secret", f"id=s,src={context}/secret", "--build-arg", f"API_TOKEN={token}", str(context)]
    return client.build(parse(words, cell=False), dockerfile=TEXT)


def texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Everything in the tables of a state folder, decompressed; base64 in JSON too."""
    for path in sorted(folder.rglob("*.db")):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
                for row in db.execute(f"SELECT * FROM {table}"):
                    for value in row:
                        yield from unpacked(f"{path.name} {table}", value)


def unpacked(place: str, value: object, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """A value as bytes, and what is packed in it."""
    data = value if isinstance(value, bytes) else str(value).encode()
    yield place, data
    if data[:1] == b"x":
        with suppress(zlib.error):
            yield from unpacked(place, zlib.decompress(data), depth)
    for word in re.findall(rb'"([A-Za-z0-9+/]{16,}={0,2})"', data) if depth < 4 else ():
        if len(word) % 4 == 0:
            yield from unpacked(place, base64.b64decode(word), depth + 1)


def places(folder: Path, *wanted: str) -> set[str]:
    """Where any of some texts is found."""
    return {place for place, data in texts(folder) if any(text.encode() in data for text in wanted)}


def test_no_secret_is_in_any_table_or_saved_build(client: Client, context: Path, tmp_path: Path) -> None:
    """Neither the content of a secret nor an argument that looks like one; what is not secret is there."""
    (context / "data").write_text("public")
    made = build(client, context)
    made.save(tmp_path / "x.bknb")
    client.close()
    state = tmp_path / "state"
    assert places(state, TOKEN, SECRET) == set()
    assert {"cache.db plaintexts", "history.db text"} <= places(state, "DERIVED=x")
    with zipfile.ZipFile(tmp_path / "x.bknb") as archive:
        for name in archive.namelist():
            found = b"".join(data for _, data in unpacked(name, archive.read(name)))
            assert TOKEN.encode() not in found and SECRET.encode() not in found, name
    assert [step.outcome for step in bknb.open(tmp_path / "x.bknb").steps] == [s.outcome for s in made.steps]


def test_the_search_would_find_it(tmp_path: Path) -> None:
    """The one above can fail: a text that was noted without care is found, packed or not."""
    store = SqliteCacheStore(tmp_path / "cache.db")
    store.note("sha256:a", json.dumps({"Actions": [base64.b64encode(TOKEN.encode()).decode()]}))
    store.note_later("sha256:b", lambda: f"packed {SECRET}")
    store.close()
    assert places(tmp_path, TOKEN) == places(tmp_path, SECRET) == {"cache.db plaintexts"}


def test_another_value_is_a_cause_and_the_same_is_none(client: Client, context: Path) -> None:
    """It is compared by its stand-in: a step that ran for another reason does not blame the argument."""
    (context / "data").write_text("1")
    build(client, context)
    (context / "data").write_text("2")
    again = build(client, context)
    assert [(cause.kind.value, cause.subject) for cause in again.why().causes] == [("file-content", "data")]
    other = build(client, context, "tok-another-one")
    found = [(cause.kind.value, cause.subject, cause.before) for cause in other.why().causes]
    assert ("arg", "API_TOKEN", "…") in found and "tok-" not in repr(other.why())


def test_the_text_of_every_key_is_kept(client: Client, context: Path) -> None:
    """Of each step the JSON of its op, of what it read the list of files, of an image the digest; all of it bounded."""
    (context / "data").write_text("public")
    (context / "data").chmod(0o640)
    made = build(client, context)
    keyed = [
        (event.phase, event.causes[-1] if event.outcome == "keyed" else event.causes[0])
        for event in made.events
        if isinstance(event, DecisionEvent) and event.outcome in ("keyed", "miss")
    ]

    async def look(builder: LocalBuilder) -> list[tuple[Phase, str | None]]:
        return [
            (phase, builder.parts.store.plaintext(digest)) for phase, digest in keyed if digest[:7] == "sha256:"
        ]

    found = client.call(look)
    assert len(found) > 6 and all(text is not None and 0 < len(text) <= MAX_PLAINTEXT for _, text in found)
    listings = [Listing.parse(text or "") for _, text in found]
    file = next(file for one in listings if one is not None for file in one.files if file.path == "/data")
    assert (file.kind, file.mode & 0o777, file.uid, file.size, len(file.digest)) == ("file", 0o640, 0, 6, 12)
    assert any(re.match(r"docker-image://\S+ is sha256:[0-9a-f]{64}$", text or "") for _, text in found)
    kinds = {json.loads(text or "")["Type"] for _, text in found if text and text.startswith('{"Type"')}
    assert kinds == {"buildkit.exec.v0", "buildkit.file.v0"}
