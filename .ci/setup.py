"""Makes everything that bknb's commands need: the virtual environment and the Debian packages.

    python3 .ci/setup.py demo      what `make demo` and `make lab` need
    python3 .ci/setup.py test      the same, and all that tests and gates need
    python3 .ci/setup.py oldest    .venv-oldest, with the lowest versions that pyproject.toml allows

Standard library only: it runs before anything is installed. Run again it costs a few milliseconds: each part
leaves a stamp, the hash of what it was made from. A run that was killed half-way leaves the mark `installing`
instead, and the next run starts that environment anew. Two runs at once wait for each other.

As root, Debian packages that are missing are installed with apt-get, their services kept from starting. As an
ordinary user those that work from any folder are downloaded and unpacked below `.venv`, with a wrapper in
`.venv/bin`; the others are named, once, with the command that installs them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
import venv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {"demo": ["requirements.lock"], "test": [".ci/dev.lock"]}
ADMIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APT_TRIES = 5


@dataclass(frozen=True)
class Package:
    """A Debian package, the file that shows it is there, its programs that also work when only unpacked."""

    name: str
    shown_by: str
    programs: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


SKOPEO_LIBRARIES = ("libgpgme11", "libassuan0", "libdevmapper1.02.1")
DEMO = (
    Package("busybox-static", "/usr/share/doc/busybox-static", ("bin/busybox",)),
    Package("crun", "/usr/bin/crun", ("usr/bin/crun",), ("libyajl2",)),
)
PROOT = Package("proot", "/usr/bin/proot", ("usr/bin/proot",), ("libtalloc2", "libarchive13"))
TEST = (
    *DEMO,
    Package("runc", "/usr/sbin/runc", ("usr/sbin/runc",)),
    Package("skopeo", "/usr/bin/skopeo", ("usr/bin/skopeo",), SKOPEO_LIBRARIES),
    Package("umoci", "/usr/bin/umoci", ("usr/bin/umoci",)),
    Package("openssl", "/usr/bin/openssl", ("usr/bin/openssl",)),
    Package("docker-registry", "/usr/bin/docker-registry", ("usr/bin/docker-registry",)),
    PROOT,
    Package("graphviz", "/usr/bin/dot"),
    Package("chromium", "/usr/bin/chromium"),
    Package("fonts-dejavu-core", "/usr/share/doc/fonts-dejavu-core"),
    Package("docker.io", "/usr/sbin/dockerd"),
    Package("uidmap", "/usr/bin/newuidmap"),
    Package("nginx", "/usr/sbin/nginx"),
    Package("containernetworking-plugins", "/usr/lib/cni/bridge"),
    Package("iproute2", "/sbin/ip"),
    Package("git", "/usr/bin/git"),
)


def say(text: str) -> None:
    """Prints one line of progress."""
    print(f"setup: {text}", flush=True)


def attempt(*command: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> tuple[int, str]:
    """Runs a command to its end; returns its exit code and what it printed."""
    done = subprocess.run(
        command, cwd=cwd, env=env, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
    """Runs a command to its end; if it fails, shows what it printed and stops with one line."""
    code, printed = attempt(*command, env=env, cwd=cwd)
    if code:
        print(printed[-4000:], file=sys.stderr)
        raise SystemExit(f"setup: failed ({code}): {' '.join(map(str, command))[:200]}")


def digest_of(paths: Iterable[Path], *words: str) -> str:
    """Hashes files, and folders with all below, by name and content, together with some words."""
    total = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                total.update(f"\0{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return total.hexdigest()


@contextmanager
def alone() -> Iterator[None]:
    """Holds this checkout's set-up lock; it ends with the process, however that ends."""
    handle = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Environment:
    """One virtual environment, its stamps in `bknb-setup`; it keeps its Python until `make clean`."""

    def __init__(self, folder: str) -> None:
        self.folder = ROOT / folder
        self.bin = self.folder / "bin"
        self.stamps = self.folder / "bknb-setup"

    def sound(self) -> bool:
        """Whether the environment was made wholly and its interpreter still runs."""
        if not (self.stamps / "venv").is_file() or (self.stamps / "installing").exists():
            return False
        try:
            asked = subprocess.run([self.bin / "python", "-c", ""], capture_output=True)
        except OSError:
            return False
        return asked.returncode == 0

    def make(self) -> None:
        """Makes the environment if it is not there, anew if an earlier run left it half made."""
        if self.sound():
            return
        say(f"making {self.folder.name} with Python {sys.version.split()[0]}")
        if self.folder.exists():
            shutil.rmtree(self.folder)
        venv.EnvBuilder(with_pip=True, symlinks=True).create(self.folder)
        self.stamps.mkdir()
        (self.stamps / "venv").write_text(sys.version)

    def stamped(self, part: str, value: str) -> bool:
        """Whether a part was last made from what it would be made from now."""
        stamp = self.stamps / part
        return stamp.is_file() and stamp.read_text() == value

    @contextmanager
    def stamping(self, part: str, value: str) -> Iterator[None]:
        """Marks the environment as being worked on, and stamps the part at the end."""
        mark = self.stamps / "installing"
        mark.write_text(part)
        yield
        (self.stamps / part).write_text(value)
        mark.unlink()

    def pip(self, *words: str | Path) -> None:
        """Runs pip, quietly."""
        run(self.bin / "python", "-m", "pip", "--disable-pip-version-check", "install", "-q", *words)

    def install(self, part: str, locks: list[str]) -> None:
        """Installs what the locks pin, by hash, and bknb itself in place."""
        value = digest_of([ROOT / name for name in locks])
        if not self.stamped(part, value):
            began = time.monotonic()
            with self.stamping(part, value):
                for lock in locks:
                    self.pip("--no-compile", "--no-deps", "--require-hashes", "-r", lock)
            say(f"installed {' '.join(locks)} in {time.monotonic() - began:.0f} s")
        self.install_bknb()

    def install_bknb(self) -> None:
        """Installs bknb in place; again when its metadata or its JupyterLab extension changed."""
        value = digest_of([ROOT / "pyproject.toml", ROOT / "kernel_ext" / "labextension"])
        if not self.stamped("bknb", value):
            with self.stamping("bknb", value):
                self.pip("--no-deps", "--no-build-isolation", "-e", ".")


def oldest_constraints() -> str:
    """Turns each minimum of pyproject.toml's dependencies and tests into an equality."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return "\n".join(requirement.replace(">=", "==", 1) for requirement in wanted) + "\n"


def make_oldest() -> None:
    """Makes .venv-oldest; its transitive dependencies are whatever pip finds for those minimums."""
    environment = Environment(".venv-oldest")
    environment.make()
    pins = oldest_constraints()
    value = digest_of([], pins)
    if not environment.stamped("oldest", value):
        with environment.stamping("oldest", value):
            (environment.stamps / "minimums.txt").write_text(pins)
            environment.pip(
                "--no-compile", "-r", environment.stamps / "minimums.txt", "hatchling", "editables"
            )
    environment.install_bknb()


def missing(packages: Iterable[Package]) -> list[Package]:
    """The packages of which this machine shows no trace."""
    return [package for package in packages if not Path(package.shown_by).exists()]


def apt_update(env: dict[str, str], *options: str) -> None:
    """Renews the lists; one source of several that does not answer is no reason to stop here."""
    attempt("apt-get", *options, "update", "-qq", env=env)


def apt_install(names: list[str]) -> None:
    """Installs Debian packages as root without starting their services."""
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": ADMIN_PATH}
    say(f"apt-get install {' '.join(names)}")
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        for attempt in range(1, APT_TRIES + 1):
            try:
                if attempt > 1 or not list(Path("/var/lib/apt/lists").glob("*_Packages*")):
                    apt_update(env)
                run("apt-get", "install", "-y", "-qq", "--no-install-recommends",
                    "-o", "DPkg::Lock::Timeout=300", *names, env=env)  # fmt: skip
                return
            except SystemExit:
                if attempt == APT_TRIES:
                    raise
                time.sleep(5 * attempt)
    finally:
        if ours:
            policy.unlink(missing_ok=True)


def apt_unpack(environment: Environment, packages: list[Package]) -> None:
    """Downloads and unpacks packages below the environment, with a wrapper for each program in its bin."""
    deb = environment.folder / "deb"
    state = deb / "apt"
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    options = ["-o", f"Dir::State::Lists={state / 'lists'}", "-o", f"Dir::Cache={state}", "-qq"]
    names = [name for package in packages for name in (package.name, *package.libraries)]
    say(f"unpacking {' '.join(names)} into {deb.relative_to(ROOT)}")
    env = {**os.environ, "PATH": ADMIN_PATH}
    apt_update(env, *options)
    run("apt-get", *options, "download", *names, env=env, cwd=state)
    for archive in sorted(state.glob("*.deb")):
        run("dpkg-deb", "-x", archive, deb)
    shutil.rmtree(state)
    found = [str(path) for path in (deb / "usr/lib", deb / "lib") if path.is_dir()]
    libraries = ":".join(str(path) for base in found for path in sorted(Path(base).glob("*-linux-gnu*")))
    for package in packages:
        for program in package.programs:
            wrapper = environment.bin / Path(program).name
            wrapper.unlink(missing_ok=True)
            if not package.libraries:
                wrapper.symlink_to(deb / program)
                continue
            wrapper.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{deb / program}" "$@"\n')
            wrapper.chmod(0o755)


def provide(environment: Environment, packages: tuple[Package, ...]) -> None:
    """Sees to the Debian packages as far as this user may."""
    absent = [
        package for package in missing(packages)
        if not (package.programs and all((environment.bin / Path(p).name).exists() for p in package.programs))
    ]  # fmt: skip
    if not absent:
        return
    if not shutil.which("apt-get", path=ADMIN_PATH):
        say(f"no apt-get here; install what gives {' '.join(package.name for package in absent)}")
    elif os.geteuid() == 0:
        apt_install([package.name for package in absent])
    else:
        loose = [package for package in absent if package.programs]
        bound = [package.name for package in absent if not package.programs]
        if loose:
            apt_unpack(environment, loose)
        if bound:
            say(f"not here, and only root can install it: apt-get install {' '.join(bound)}")


def demo_packages() -> tuple[Package, ...]:
    """What the demo needs here: where no namespaces are to be had, as in most containers, steps run in proot."""
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    code, _ = attempt("unshare", *user, "--mount", "--pid", "--fork", "--mount-proc", "true")
    return (*DEMO, PROOT) if code else DEMO


def link_busybox(environment: Environment) -> None:
    """Puts the static busybox on the environment's PATH, whatever other busybox the machine has."""
    link = environment.bin / "busybox"
    if Path("/usr/share/doc/busybox-static").exists() and not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to("/bin/busybox")


def main(words: list[str]) -> None:
    """Does one of the set-ups that the module's docstring lists."""
    if words not in (["demo"], ["test"], ["oldest"]):
        raise SystemExit("setup: say one of demo, test, oldest")
    kind = words[0]
    with alone():
        environment = Environment(".venv")
        environment.make()
        provide(environment, demo_packages() if kind == "demo" else TEST)
        link_busybox(environment)
        if kind == "oldest":
            make_oldest()
        else:
            environment.install(kind, LOCKS[kind])


if __name__ == "__main__":
    main(sys.argv[1:])
