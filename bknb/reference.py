"""Image names.

The grammar is that of distribution's ``reference`` package: ``[domain[:port]/]path[:tag][@digest]``. Names
that people write ("familiar" ones) get docker.io, ``library/`` and ``latest`` filled in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from bknb.digest import Digest
from bknb.errors import InvalidReference

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN_NAME = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*"
_DOMAIN = rf"(?:{_DOMAIN_NAME}|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_REFERENCE = re.compile(
    rf"(?:({_DOMAIN})/)?({_COMPONENT}(?:/{_COMPONENT})*)(?::([\w][\w.-]{{0,127}}))?(?:@([A-Za-z0-9+._-]+:[0-9a-fA-F]{{32,}}))?\Z",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Reference:
    """One image name, whole.

    >>> r = Reference.parse("busybox")
    >>> str(r), r.familiar
    ('docker.io/library/busybox:latest', 'busybox:latest')
    """

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a name as people write it; ``latest`` is added when there is neither tag nor digest.

        Raises:
            InvalidReference: not an image name; the message says what is wrong with it.
        """
        if re.fullmatch("[a-f0-9]{64}", text):
            raise InvalidReference(
                f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )
        domain, path = _split_domain(text)
        if path.lower() != path and ":" not in path and "@" not in path:
            raise InvalidReference(f"invalid reference format: repository name ({path}) must be lowercase")
        found = _REFERENCE.match(f"{domain}/{path}")
        if found is None or not found[1]:
            if re.search("[A-Z]", re.split("[:@]", path)[0]):
                name = re.split("[:@]", path)[0]
                raise InvalidReference(
                    f"invalid reference format: repository name ({name}) must be lowercase"
                )
            raise InvalidReference("invalid reference format")
        digest = None
        if found[4]:
            try:
                digest = Digest.parse(found[4])
            except ValueError:
                raise InvalidReference("invalid reference format") from None
        if len(found[2]) > 255:
            raise InvalidReference("repository name must not be more than 255 characters")
        tag = found[3] or ("" if digest else "latest")
        return cls(found[1], found[2], tag, digest)

    @property
    def name(self) -> str:
        """Domain and path, without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """As people write it: without docker.io and ``library/``."""
        text = str(self)
        return (
            text.removeprefix("docker.io/").removeprefix("library/") if self.domain == "docker.io" else text
        )

    @property
    def object(self) -> str:
        """What a registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag or "latest"

    def with_digest(self, digest: Digest) -> Reference:
        """The same name, pinned."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def split_reference(text: str) -> tuple[str, str, str]:
    """Name, tag and digest of a reference as it is written: nothing is filled in.

    Raises:
        InvalidReference: it is none.

    >>> split_reference("store:tag")
    ('store', 'tag', '')
    """
    found = _REFERENCE.match(text)
    if found is None:
        if not text:
            raise InvalidReference("repository name must have at least one component")
        if _REFERENCE.match(text.lower()):
            raise InvalidReference("repository name must be lowercase")
        raise InvalidReference("invalid reference format")
    domain, path, tag, digest = found.groups(default="")
    if len(path) > 255:
        raise InvalidReference("repository name must not be more than 255 characters")
    return (f"{domain}/{path}" if domain else path), tag, digest


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not (set(".:") & set(first) or first == "localhost" or first.lower() != first):
        domain, path = "docker.io", text
    else:
        domain, path = first, rest
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in path:
        path = "library/" + path
    return domain, path
