"""Commands that install packages, and all that they read of a project: what may run before the sources are copied.

A RUN is known here only if every part of it is: installs of named packages, installs from manifests, and what goes
along with them (``apt-get update``, ``rm -rf /var/lib/apt/lists/*``). Anything else, be it a pipe, a variable or
an option that names a folder, makes the whole RUN unknown. A manifest is looked into as well: one with install
scripts, local packages or workspaces needs more than itself.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bknb.frontend.dockerfile import ast

Check = Callable[[str], bool]
"""Whether a manifest's text asks for nothing but itself."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A file that an install reads, relative to where it runs; one that is not `required` only where it is there."""

    path: str
    required: bool = True
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class Install:
    """What one RUN installs.

    Attributes:
        names: of the package managers.
        manifests: what is read; () where packages are named.
        makes: folders that it fills: a context that brings them along would be laid over them.
        without: files that must not be there: with them more is read.
    """

    names: tuple[str, ...] = ()
    manifests: tuple[Manifest, ...] = ()
    makes: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __add__(self, other: Install) -> Install:
        def both(mine: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
            return tuple(dict.fromkeys((*mine, *others)))

        manifests = {manifest.path: manifest for manifest in (*self.manifests, *other.manifests)}
        return Install(
            both(self.names, other.names), tuple(manifests.values()), both(self.makes, other.makes),
            both(self.without, other.without),
        )  # fmt: skip


_NOTHING: Final = Install()
_UNSAFE: Final = frozenset("|<>`$(){}*?[]~!;")
_SETTING: Final = re.compile(r"[A-Za-z_]\w*=[\w.,:/=-]*")
_PLAIN: Final = re.compile(r"[\w@.+:=~^<>\[\],-]+(/[\w@.+-]+)?")
"""A package's name, with a version, perhaps of a scope; no path: those begin with a dot or a slash, or end in one."""
_ARCHIVE: Final = re.compile(r"\.(deb|rpm|apk|whl|tgz|zip|gem|tar(\.\w+)?)$")


def read(run: ast.Run) -> Install | None:
    """What a RUN installs; None if it does anything else."""
    if any(mount.fields and "type=bind" in mount.fields for mount in run.mounts) or run.files:
        return None
    if any("type=" not in mount.text for mount in run.mounts):  # bind is the default
        return None
    found = _NOTHING
    for words in _commands(run):
        one = _command(words)
        if one is None:
            return None
        found += one
    return found if found.names else None


def _commands(run: ast.Run) -> Iterator[list[str]]:
    """The simple commands of a RUN; one that cannot be known is ``["?"]``."""
    if not run.shell_form:
        yield list(run.args)
        return
    text = " ".join(run.args).replace("\\\n", " ").replace("\n", " && ")
    for part in text.split("&&"):
        try:
            words = shlex.split(part)
        except ValueError:
            words = ["?"]
        cleaning = bool(words) and words[0] == "rm"
        if "&" in part or any(char in _UNSAFE for char in (part.replace("*", "") if cleaning else part)):
            words = ["?"]
        if words:
            yield words


def _command(words: Sequence[str]) -> Install | None:
    words = list(words)
    while words and _SETTING.fullmatch(words[0]):
        words.pop(0)
    if words[:1] == ["sudo"]:
        words.pop(0)
    if not words:
        return _NOTHING
    if words[:1] == ["set"] or words == ["corepack", "enable"]:
        return _NOTHING
    if words[0] == "rm":
        gone = [word for word in words[1:] if not word.startswith("-")]
        return (
            _NOTHING
            if all(word.startswith(("/var/cache/", "/var/lib/apt/", "/tmp/", "/root/.")) for word in gone)
            else None
        )
    if words[:3] in (["python", "-m", "pip"], ["python3", "-m", "pip"]):
        words = ["pip", *words[3:]]
    reader = _READERS.get(words[0])
    return reader(words[1:]) if reader is not None else None


def _named(words: Sequence[str]) -> bool:
    """Whether all words are options or names of packages."""
    return all(
        (word.startswith("-") and "/" not in word.replace("://", ""))
        or (_PLAIN.fullmatch(word) is not None and word[0] not in "./" and not _ARCHIVE.search(word))
        for word in words
    )


def _system(
    name: str, install: Sequence[str], aside: Sequence[str]
) -> Callable[[Sequence[str]], Install | None]:
    """A package manager of a distribution: it reads nothing of a project."""

    def reader(words: Sequence[str]) -> Install | None:
        verb = next((word for word in words if not word.startswith("-")), "")
        if verb in install and _named(words):
            return Install((name,))
        return _NOTHING if verb in aside and _named(words) else None

    return reader


def _javascript(
    name: str, lock: str, extra: Sequence[str], without: Sequence[str]
) -> Callable[[Sequence[str]], Install | None]:
    """npm, yarn and pnpm: package.json, a lock file and settings."""

    def reader(words: Sequence[str]) -> Install | None:
        verb, rest = (words[0], words[1:]) if words and not words[0].startswith("-") else ("install", words)
        if verb == "cache" or (verb == "config" and words[1:2] == ["set"]):
            return _NOTHING
        if verb == "global" or {"-g", "--global"} & set(rest):
            return Install((name,)) if _named(rest) else None
        options = [word for word in rest if word.startswith("-")]
        if verb not in ("ci", "install", "i") or len(options) != len(rest) or not _named(rest):
            return None
        if any(
            option.startswith(("--prefix", "--cwd", "-C", "--dir", "-w", "--workspace", "--filter"))
            for option in options
        ):
            return None
        check = (
            _package_json
            if "--ignore-scripts" in options
            else lambda text: _package_json(text) and not _scripts(text)
        )
        manifests = (Manifest("package.json", check=check), Manifest(lock, required=verb == "ci"))
        settings = tuple(Manifest(path, required=False) for path in extra)
        return Install((name,), manifests + settings, ("node_modules",), tuple(without))

    return reader


_SCRIPTS: Final = (
    "preinstall",
    "install",
    "postinstall",
    "prepare",
    "prepublish",
    "preprepare",
    "postprepare",
)


def _object(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _scripts(text: str) -> bool:
    scripts = _object(text).get("scripts")
    return isinstance(scripts, dict) and any(name in scripts for name in _SCRIPTS)


def _package_json(text: str) -> bool:
    package = _object(text)
    wanted = [package.get(name) for name in ("dependencies", "devDependencies", "optionalDependencies")]
    versions = [version for group in wanted if isinstance(group, dict) for version in group.values()]
    local = any(
        str(version).startswith(("file:", "link:", ".", "/", "workspace:", "portal:", "patch:"))
        for version in versions
    )
    return bool(package) and not local and "workspaces" not in package


def _pip(words: Sequence[str]) -> Install | None:
    if words[:1] == ["cache"]:
        return _NOTHING
    if words[:1] != ["install"]:
        return None
    manifests, rest, named = [], list(words[1:]), []
    while rest:
        word = rest.pop(0)
        if word in ("-r", "--requirement", "-c", "--constraint") and rest:
            manifests.append(rest.pop(0))
        elif word.startswith(("--requirement=", "--constraint=")):
            manifests.append(word.partition("=")[2])
        elif word in ("-i", "--index-url", "--extra-index-url", "--timeout") and rest:
            rest.pop(0)
        elif word in ("-e", "--editable", "-t", "--target", "--prefix", "--root", "-f", "--find-links"):
            return None
        else:
            named.append(word)
    if not _named(named) or any(path.startswith(("/", "..")) or "://" in path for path in manifests):
        return None
    files = tuple(Manifest(posixpath.normpath(path), check=_requirements) for path in manifests)
    return Install(("pip",), files)


def _requirements(text: str) -> bool:
    lines = (line.strip() for line in text.splitlines())
    return not any(
        line.startswith(
            (
                "-e",
                "--editable",
                "-r",
                "--requirement",
                "-c",
                "--constraint",
                "-f",
                "--find-links",
                ".",
                "/",
                "file:",
            )
        )
        or "@ file:" in line
        for line in lines
    )


def _go(words: Sequence[str]) -> Install | None:
    if list(words) not in (["mod", "download"], ["mod", "download", "-x"], ["mod", "download", "all"]):
        return None
    files = (Manifest("go.mod", check=_go_mod), Manifest("go.sum", required=False))
    return Install(("go",), files, ("vendor",), ("go.work",))


def _go_mod(text: str) -> bool:
    return re.search(r"=>\s*(\.|/)", text) is None


def _bundle(words: Sequence[str]) -> Install | None:
    if words[:1] == ["config"] and not any("/" in word for word in words):
        return _NOTHING
    if words[:1] not in (["install"], []) or not all(
        word.startswith("-") and "/" not in word for word in words[1:]
    ):
        return None
    files = (
        Manifest("Gemfile", check=_gemfile),
        Manifest("Gemfile.lock", required=False),
        Manifest(".ruby-version", False),
    )
    return Install(("bundle",), files, ("vendor",))


def _gemfile(text: str) -> bool:
    return re.search(r"\b(path|gemspec|eval_gemfile|require_relative|File|Dir)\b", text) is None


def _poetry(words: Sequence[str]) -> Install | None:
    if words[:1] == ["config"]:
        return _NOTHING
    if words[:1] != ["install"] or "--no-root" not in words or not _named(words[1:]):
        return None
    return Install(
        ("poetry",),
        (Manifest("pyproject.toml", check=_pyproject), Manifest("poetry.lock", False)),
        (".venv",),
    )


def _uv(words: Sequence[str]) -> Install | None:
    if words[:2] == ["pip", "install"]:
        return _pip(words[1:])
    if words[:1] != ["sync"] or "--no-install-project" not in words or not _named(words[1:]):
        return None
    files = (
        Manifest("pyproject.toml", check=_pyproject),
        Manifest("uv.lock", False),
        Manifest(".python-version", False),
    )
    return Install(("uv",), files, (".venv",))


def _pyproject(text: str) -> bool:
    return re.search(r"\bpath\s*=|workspace|file://", text) is None


def _composer(words: Sequence[str]) -> Install | None:
    if (
        words[:1] != ["install"]
        or not {"--no-scripts", "--no-autoloader"} <= set(words)
        or not _named(words[1:])
    ):
        return None
    files = (Manifest("composer.json", check=_composer_json), Manifest("composer.lock", False))
    return Install(("composer",), files, ("vendor",))


def _composer_json(text: str) -> bool:
    return bool(_object(text)) and '"path"' not in text


def _cargo(words: Sequence[str]) -> Install | None:
    if words[:1] != ["fetch"] or not all(word == "--locked" for word in words[1:]):
        return None
    files = (Manifest("Cargo.toml", check=_cargo_toml), Manifest("Cargo.lock", required=True))
    return Install(
        ("cargo",),
        files,
        (),
        ("rust-toolchain", "rust-toolchain.toml", ".cargo/config", ".cargo/config.toml"),
    )


def _cargo_toml(text: str) -> bool:
    """Without a target that it names itself, cargo looks for src/main.rs before it does anything."""
    named = re.search(r"^\[(lib|\[bin\])\][^\[]*\bpath\s*=", text, re.MULTILINE) is not None
    other = re.sub(r"^\[(lib|\[bin\])\][^\[]*", "", text, flags=re.MULTILINE)
    return named and re.search(r"\bpath\s*=|^\[workspace", other, re.MULTILINE) is None


_READERS: Final[dict[str, Callable[[Sequence[str]], Install | None]]] = {
    "apt-get": _system("apt-get", ("install",), ("update", "clean", "autoremove", "upgrade")),
    "apt": _system("apt", ("install",), ("update", "clean", "autoremove", "upgrade")),
    "apk": _system("apk", ("add",), ("update", "upgrade")),
    "dnf": _system("dnf", ("install",), ("clean", "update", "upgrade", "makecache")),
    "microdnf": _system("microdnf", ("install",), ("clean", "update")),
    "yum": _system("yum", ("install",), ("clean", "update", "makecache")),
    "zypper": _system("zypper", ("install", "in"), ("clean", "refresh")),
    "npm": _javascript("npm", "package-lock.json", (".npmrc",), ("npm-shrinkwrap.json",)),
    "yarn": _javascript("yarn", "yarn.lock", (".npmrc", ".yarnrc", ".yarnrc.yml"), (".yarn",)),
    "pnpm": _javascript("pnpm", "pnpm-lock.yaml", (".npmrc",), ("pnpm-workspace.yaml", ".pnpmfile.cjs", "patches")),
    "pip": _pip, "pip3": _pip, "go": _go, "bundle": _bundle, "poetry": _poetry, "uv": _uv, "composer": _composer,
    "cargo": _cargo,
}  # fmt: skip
"""A reader for each program: what its words install, None where they say more than is known here."""
