"""An image made of Debian's busybox-static, for builds on a machine that reaches no registry.

The same binary gives the same bytes everywhere: owners, times and order are fixed, and the compressed
layer is written with a fixed level and no time.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path

from bknb.digest import Digest
from bknb.errors import UnsupportedError
from bknb.oci import canonical
from bknb.oci.mutate import manifest_for
from bknb.oci.types import OCI_LAYER, OCI_MANIFEST, Descriptor
from bknb.platforms import Platform
from bknb.protocols import ContentStore
from bknb.registry.repositories import Repository

_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "nobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nusers:x:100:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:::::::\ndaemon:*:::::::\nnobody:*:::::::\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_FOLDERS = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o555, "root": 0o700, "run": 0o755,
    "sys": 0o555, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "var": 0o755,
    "var/tmp": 0o1777,
}  # fmt: skip


def find_busybox() -> Path:
    """Debian's static busybox.

    Raises:
        UnsupportedError: it is not installed, or needs shared libraries.
    """
    path = shutil.which("busybox", path=os.pathsep.join([os.environ.get("PATH", ""), "/bin", "/usr/bin"]))
    if path is None:
        raise UnsupportedError("no busybox to make an image of: apt-get install busybox-static")
    data = Path(path).read_bytes()
    if b"/ld-linux" in data[:4096] or b"/ld-musl" in data[:4096]:
        raise UnsupportedError(f"{path} needs shared libraries: apt-get install busybox-static")
    return Path(path)


def applets(busybox: Path) -> tuple[str, ...]:
    """Names of the commands that a busybox binary has, sorted.

    Raises:
        UnsupportedError: it does not run.
    """
    try:
        done = subprocess.run(
            [busybox, "--list"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
            start_new_session=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UnsupportedError(f"{busybox} does not run: {error}") from None
    return tuple(sorted({name for name in done.stdout.split() if "/" not in name and name != "busybox"}))


def layer_tar(busybox: bytes, names: tuple[str, ...]) -> bytes:
    """The root file system as a tar: the binary, a link for each applet, accounts and empty folders."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entries: dict[str, tuple[bytes, int, int, str]] = {
            name: (tarfile.DIRTYPE, mode, 0, "") for name, mode in _FOLDERS.items()
        }
        contents = {"bin/busybox": busybox} | {name: text.encode() for name, text in _ACCOUNTS.items()}
        for name, data in contents.items():
            mode = 0o755 if name == "bin/busybox" else 0o640 if name == "etc/shadow" else 0o644
            entries[name] = (tarfile.REGTYPE, mode, len(data), "")
        entries |= {f"bin/{name}": (tarfile.SYMTYPE, 0o777, 0, "busybox") for name in names}
        for name in sorted(entries):
            info = tarfile.TarInfo(name + "/" if entries[name][0] == tarfile.DIRTYPE else name)
            info.type, info.mode, info.size, info.linkname = entries[name]
            tar.addfile(info, io.BytesIO(contents[name]) if name in contents else None)
    return buffer.getvalue()


def seed(
    store: ContentStore,
    repository: Repository,
    *,
    tag: str = "latest",
    busybox: Path | None = None,
    platform: Platform | None = None,
) -> Descriptor:
    """Put the image into a repository of a registry, and name it.

    Args:
        store: the registry's content store.
        repository: such as ``server.repositories.repository("library/busybox")``.
        tag: its name there.
        busybox: the binary; Debian's where not given.
        platform: what it runs on; this machine where not given.

    Raises:
        UnsupportedError: there is no busybox.
    """
    binary = busybox or find_busybox()
    data = binary.read_bytes()
    tar = layer_tar(data, applets(binary))
    # zlib's own header: gzip without a file name and without a time.
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    packed = packer.compress(tar) + packer.flush()
    host = platform or Platform.host()
    config = canonical.dumps(_config(host, Digest.of(tar)))
    layer = Descriptor(OCI_LAYER + "+gzip", Digest.of(packed), len(packed))
    manifest = manifest_for(config, [layer], oci=True)
    for blob in (packed, config):
        repository.add_blob(store.put(blob))
    raw = manifest.encode()
    digest = store.put(raw)
    repository.add_manifest(digest, manifest, len(raw))
    repository.set_tag(tag, digest)
    return Descriptor(OCI_MANIFEST, digest, len(raw), platform=host)


def _config(platform: Platform, diff_id: Digest) -> dict[str, object]:
    values: dict[str, object] = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        values["variant"] = platform.variant
    created = "1970-01-01T00:00:00Z"
    values |= {
        "created": created,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["sh"],
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "created_by": "Debian's busybox-static", "comment": "bknb"}],
    }
    return values
