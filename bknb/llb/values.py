"""What a `State` says of the commands to come: environment, folder, user, limits."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bknb.llb.ops import HostIP, NetMode, SecurityMode, Ulimit
from bknb.platforms import Platform


class Env:
    """An environment; immutable, and each change costs the same however long it is.

    The order is that of the last assignment: a variable that is set again moves to the end, as in
    ``client/llb/meta.go``.

    >>> Env().set("A", "1").set("B", "2").set("A", "3").entries()
    ('B=2', 'A=3')
    """

    __slots__ = ("_entries", "_key", "_parent", "_value", "_whole")

    def __init__(self) -> None:
        self._parent: Env | None = None
        self._key = ""
        self._value: str | None = None
        self._whole: dict[str, str] | None = {}
        self._entries: tuple[str, ...] | None = None

    @classmethod
    def of(cls, mapping: Mapping[str, str]) -> Env:
        """The variables of a mapping, in its order."""
        env = cls()
        env._whole = dict(mapping)
        return env

    def set(self, key: str, value: str | None) -> Env:
        """With one variable set; None removes it."""
        changed = Env()
        changed._parent, changed._key, changed._value, changed._whole = self, key, value, None
        return changed

    def get(self, key: str) -> str | None:
        """The value of a variable, or None."""
        return self.mapping().get(key)

    def entries(self) -> tuple[str, ...]:
        """``KEY=value``, in order."""
        if self._entries is None:
            self._entries = tuple([f"{key}={value}" for key, value in self.mapping().items()])
        return self._entries

    def mapping(self) -> Mapping[str, str]:
        """As a mapping, in order; not to be changed."""
        if self._whole is None:
            changes: list[Env] = []
            known: Env = self
            while known._whole is None and known._parent is not None:
                changes.append(known)
                known = known._parent
            whole = dict(known._whole or {})
            for change in reversed(changes):
                whole.pop(change._key, None)
                if change._value is not None:
                    whole[change._key] = change._value
            self._whole = whole
        return self._whole


@dataclass(frozen=True, slots=True)
class Values:
    """The settings of a state, in the words of pb.Meta. `args` None is not set."""

    env: Env = Env()  # noqa: RUF009 - immutable
    dir: str = ""
    user: str = ""
    args: tuple[str, ...] | None = None
    hostname: str = ""
    extra_hosts: tuple[HostIP, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    valid_exit_codes: tuple[int, ...] | None = None
    network: NetMode = NetMode.UNSET
    security: SecurityMode = SecurityMode.SANDBOX
    platform: Platform | None = None

    def with_dir(self, path: str) -> Values:
        """With another working folder; a relative one is joined to the present one."""
        if not path.startswith("/"):
            path = clean(join(self.dir or "/", path))
        return replace(self, dir=path)


def clean(path: str) -> str:
    """Go's path.Clean.

    >>> clean("//a/../b/"), clean(""), clean("../a/..")
    ('/b', '.', '..')
    """
    path = posixpath.normpath(path)
    # POSIX lets two leading slashes stand; Go does not.
    return path[1:] if path.startswith("//") else path


def join(*parts: str) -> str:
    """Go's path.Join: empty parts are left out, the rest is cleaned; nothing gives "".

    >>> join("", "a", "/b"), join("/", "..")
    ('a/b', '/')
    """
    used = [part for part in parts if part]
    return clean("/".join(used)) if used else ""
