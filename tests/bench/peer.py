"""BuildKit, where ``buildctl`` and ``buildkitd`` are on PATH: a daemon of our own, in a folder of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Peer:
    """A running daemon. `build` is what its client does for one build."""

    address: str
    root: Path
    pid: int = 0

    def build(self, folder: Path, *words: str, dockerfile: Path | None = None) -> None:
        """Build the Dockerfile of a folder; no output unless `words` say one."""
        where = dockerfile or folder
        subprocess.run(
            ["buildctl", "--addr", self.address, "build", "--progress=quiet", "--frontend", "dockerfile.v0",
             "--local", f"context={folder}", "--local", f"dockerfile={where}", *words],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def solve(self, definition: bytes) -> None:
        """Build a definition."""
        subprocess.run(
            ["buildctl", "--addr", self.address, "build", "--progress=quiet"],
            input=definition, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def prune(self) -> None:
        """Forget everything."""
        subprocess.run(
            ["buildctl", "--addr", self.address, "prune", "--all"], check=True, stdout=subprocess.DEVNULL
        )


def is_there() -> bool:
    """Whether both programs are on PATH."""
    return shutil.which("buildctl") is not None and shutil.which("buildkitd") is not None


@contextmanager
def peer(mirror: str, place: Path | None = None) -> Iterator[Peer | None]:
    """A daemon that takes docker.io from a mirror on this machine; None where there is no BuildKit.

    What it keeps is below `place`, or where temporary files are.
    """
    if not is_there():
        yield None
        return
    root = Path(tempfile.mkdtemp(prefix="peer-", dir=place))
    config = root / "buildkitd.toml"
    config.write_text(f'[registry."docker.io"]\nmirrors = ["{mirror}"]\n[registry."{mirror}"]\nhttp = true\n')
    address = f"unix://{root}/sock"
    log = (root / "log").open("wb")
    daemon = subprocess.Popen(
        ["buildkitd", "--config", str(config), "--root", str(root / "state"), "--addr", address, "--otel-socket-path",
         str(root / "otel"), "--oci-worker=true", "--containerd-worker=false", "--oci-worker-snapshotter", "overlayfs",
         "--oci-worker-gc=false", "--oci-worker-net", "host", "--oci-worker-binary", "runc"],
        stdout=log, stderr=log, start_new_session=True, env={**os.environ, "XDG_RUNTIME_DIR": str(root)},
    )  # fmt: skip
    try:
        found = Peer(address, root, daemon.pid)
        _wait(found, daemon)
        yield found
    finally:
        daemon.terminate()
        try:
            daemon.wait(15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        log.close()
        shutil.rmtree(root, ignore_errors=True)


def _wait(found: Peer, daemon: subprocess.Popen[bytes]) -> None:
    words: Sequence[str] = [
        "buildctl",
        "--addr",
        found.address,
        "--wait",
        "--timeout",
        "30",
        "debug",
        "workers",
    ]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode or daemon.poll() is not None:
        raise RuntimeError(f"buildkitd did not start: {(found.root / 'log').read_text()[-2000:]}")
