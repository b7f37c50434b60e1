"""Images judged by tools that were written elsewhere: skopeo, umoci with runc, Docker Engine.

`Accepts` is what tests of exporters and of whole builds ask; each method runs one tool and returns what it
says. A tool that is missing skips the test, with the name of its Debian package.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need


def run(*words: str | Path, stdin: bytes | None = None, timeout: float = 120) -> str:
    """Run a program; its stdout, or a failure with all that it said."""
    asked = [str(word) for word in words]
    done = subprocess.run(asked, input=stdin, capture_output=True, timeout=timeout, start_new_session=True)
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace")
        pytest.fail(f"{' '.join(str(word) for word in words)} ended with {done.returncode}:\n{said}")
    return done.stdout.decode(errors="replace")


class Accepts:
    """Has an image judged. `folder` is for what the tools write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def skopeo(self, source: str) -> dict[str, Any]:
        """What ``skopeo inspect`` says of ``oci-archive:FILE:TAG``, ``docker://HOST/NAME:TAG``..."""
        return dict(
            json.loads(run(need("skopeo"), "inspect", *_insecure(source, "--tls-verify=false"), source))
        )

    def skopeo_config(self, source: str) -> dict[str, Any]:
        """The image's config, as skopeo reads it."""
        words = (*_insecure(source, "--tls-verify=false"), source)
        return dict(json.loads(run(need("skopeo"), "inspect", "--config", *words)))

    def skopeo_copy(self, source: str, tag: str = "copied") -> Path:
        """``skopeo copy`` into an OCI layout; its folder. Every blob is read and checked."""
        layout = self._folder / f"layout-{secrets.token_hex(4)}"
        options = _insecure(source, "--src-tls-verify=false")
        run(need("skopeo"), "--insecure-policy", "copy", *options, source, f"oci:{layout}:{tag}")
        return layout

    def umoci_runc(self, layout: Path, tag: str = "copied") -> str:
        """``umoci unpack`` of a layout, then ``runc run`` of the bundle: what the image's command prints."""
        umoci, runc = need("umoci"), need("runc")
        bundle = self._folder / f"bundle-{secrets.token_hex(4)}"
        run(umoci, "unpack", "--image", f"{layout}:{tag}", bundle)
        config = json.loads((bundle / "config.json").read_text())
        config["process"]["terminal"] = False
        # A container of its own in every way but the network: the test needs none.
        config["linux"]["resources"] = {}
        (bundle / "config.json").write_text(json.dumps(config))
        return run(
            runc, "--root", self._folder / "runc", "run", "--bundle", bundle, f"bknb-{secrets.token_hex(4)}"
        )

    def everything(self, archive: Path, tag: str) -> str:
        """An OCI archive through skopeo, umoci and runc: what the image's command prints."""
        source = f"oci-archive:{archive}:{tag}"
        self.skopeo(source)
        return self.umoci_runc(self.skopeo_copy(source))


class DockerEngine:
    """A Docker Engine of the tests' own, without networks."""

    def __init__(self, place: Path) -> None:
        self._words = (need("docker"), "--host", f"unix://{place}")

    def docker(self, *words: str | Path) -> str:
        """One ``docker`` command; what it prints."""
        return run(*self._words, *words)

    def load(self, archive: Path) -> str:
        """``docker load``; the id or name that it gave."""
        said = self.docker("load", "--input", archive)
        return said.strip().splitlines()[-1].partition(": ")[2]

    def run(self, image: str, *command: str) -> str:
        """``docker run`` of an image without a network; what it prints."""
        return self.docker("run", "--rm", "--network", "none", image, *command)


@contextlib.contextmanager
def docker_engine(folder: Path) -> Iterator[DockerEngine]:
    """Start dockerd in a folder; ended, with everything that it started, afterwards."""
    program, place, log = need("dockerd"), folder / "docker.sock", folder / "log"
    need("docker")
    options = [
        "--data-root", folder / "data", "--exec-root", folder / "exec", "-H", f"unix://{place}",
        "-p", folder / "pid", "--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false",
    ]  # fmt: skip
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.bind(str(folder / "ready"))
    with open(log, "wb") as out:
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig=TERM", program, *map(str, options)],  # should the tests be killed
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True, env={**os.environ, "NOTIFY_SOCKET": str(folder / "ready")},
        )  # fmt: skip
    try:
        # It says READY=1 as to systemd, or it ends.
        ended = os.pidfd_open(daemon.pid)
        with ready:
            able, _, _ = select.select([ready, ended], [], [], 60)
        os.close(ended)
        if ready not in able:
            pytest.fail("dockerd did not start:\n" + log.read_text()[-2000:])
        yield DockerEngine(place)
    finally:
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, 9)
            daemon.wait()
        _unmount(folder)


def _unmount(folder: Path) -> None:
    """dockerd leaves its data root mounted on itself."""
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in sorted(mounted, reverse=True):
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], capture_output=True, start_new_session=True)


def _insecure(source: str, option: str) -> tuple[str, ...]:
    return (option,) if source.startswith("docker://") else ()
