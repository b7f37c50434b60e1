"""What a source's address meant when it was looked up, as the text that is kept beside its key.

Every source that may change under one address (images, git, http) writes its cache map's plaintext so: then it can
be said later from what to what it moved.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]+@")
_TEXT: Final = re.compile(r"(\S+) is (\S+?)(?:, (.*))?", re.DOTALL)


def anonymous(address: str) -> str:
    """An address without the user and password that may be in it.

    >>> anonymous("https://me:pw@h/x"), anonymous("git://me@h/x"), anonymous("git@h:x")
    ('https://h/x', 'git://h/x', 'git@h:x')
    """
    return _USERINFO.sub("", address)


@dataclass(frozen=True, slots=True)
class Resolved:
    """An address, and what it meant.

    Attributes:
        identifier: of the source op, without who asks: a name and password in it are left out.
        value: digest of an image's manifest or of a body, or a commit.
        rest: what else is in the key and may differ ("modified ...").
    """

    identifier: str
    value: str
    rest: str = ""

    def to_text(self) -> str:
        """As it is kept.

        >>> Resolved("https://h/x", "sha256:ab", "modified today").to_text()
        'https://h/x is sha256:ab, modified today'
        """
        return f"{anonymous(self.identifier)} is {self.value}" + (f", {self.rest}" if self.rest else "")

    @classmethod
    def parse(cls, text: str) -> Resolved | None:
        """What `to_text` wrote; None if it is something else.

        >>> Resolved.parse("git://h/r is 0a1b").value
        '0a1b'
        """
        found = _TEXT.fullmatch(text)
        return None if found is None else cls(found[1], found[2], found[3] or "")
