"""When a commit was made, from the object that git keeps of it (util/gitutil/gitobject/parse.go)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.gotext import decode, trim_space

_SIGNATURES: Final = ("gpgsig ", "gpgsig-sha256 ")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_NO_TIME: Final = (
    "failed to marshal image config: json: error calling MarshalJSON for type *time.Time: Time.MarshalJSON: "
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, and the zone that it is shown in.

    Attributes:
        seconds: since 1970.
        zone: seconds east of Greenwich.
    """

    seconds: int
    zone: int = 0

    @property
    def nanoseconds(self) -> int:
        """Since 1970, in 64 bits: from the year 2262 on it goes round, as in Go.

        >>> Moment(2).nanoseconds, Moment(1 << 34).nanoseconds
        (2000000000, -1266874889709551616)
        """
        return (self.seconds * 10**9 + (1 << 63)) % (1 << 64) - (1 << 63)

    def text(self) -> str:
        """As an image config has it.

        Raises:
            ValueError: it cannot.

        >>> Moment(0).text(), Moment(0, -5400).text()
        ('1970-01-01T00:00:00Z', '1969-12-31T22:30:00-01:30')
        """
        if abs(self.zone) >= 24 * 3600:
            raise ValueError(f"{_NO_TIME}timezone hour outside of range [0,23]")
        try:
            zone = timezone(timedelta(seconds=self.zone))
            time = datetime.fromtimestamp(self.seconds, UTC).astimezone(zone)
        except (OverflowError, ValueError, OSError):
            raise ValueError(f"{_NO_TIME}year outside of range [0,9999]") from None
        return time.isoformat().removesuffix("+00:00") + ("" if self.zone else "Z")

    def told(self) -> str:
        """As `text`; "" where it cannot be told, which is an error only once all else is right."""
        try:
            return self.text()
        except ValueError:
            return ""


def committed(raw: bytes) -> Moment | None:
    r"""When a commit was made; None if its committer has no time.

    Raises:
        DockerfileError: it is no commit.

    >>> committed(b"tree 1\nauthor a\ncommitter A <a@b> 60 +0100\n\ntext")
    Moment(seconds=60, zone=3600)
    """
    kind = "commit"
    wanted: tuple[str, ...] = ("tree", "author", "committer")
    if raw.startswith(b"object "):
        kind, wanted = "tag", ("object", "type", "tag", "tagger")
    headers = _headers(decode(raw), signed=kind == "commit")
    for name in wanted:
        if name not in headers:
            raise DockerfileError(f"invalid {kind} object: missing {name} header")
    if kind == "tag":
        raise DockerfileError("not a commit object")
    return _time(trim_space(headers["committer"]))


def _headers(text: str, *, signed: bool) -> dict[str, str]:
    """The first of each header, signatures left out."""
    found: dict[str, str] = {}
    in_signature = False
    for line in text.partition("\n\n")[0].split("\n"):
        if signed and line.startswith(_SIGNATURES):
            in_signature = True
        elif not (in_signature and line.startswith(" ")):
            in_signature = False
            name, space, value = line.partition(" ")
            if space:
                found.setdefault(name, value)
    return found


def _time(actor: str) -> Moment | None:
    """What stands behind the address."""
    start, end = actor.rfind("<"), actor.rfind(">")
    parts = actor[end + 1 :].split() if 0 <= start < end else []
    if len(parts) < 2 or not _NUMBER.fullmatch(parts[0]):
        return None
    zone = parts[1]
    if len(zone) != 5 or zone[0] not in "+-":
        return None
    east = _atoi(zone[1:3]) * 3600 + _atoi(zone[3:5]) * 60
    return Moment(int(parts[0]), -east if zone[0] == "-" else east)


def _atoi(text: str) -> int:
    return int(text) if _NUMBER.fullmatch(text) else 0
