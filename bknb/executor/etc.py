"""The two files of /etc that every container gets: hosts and resolv.conf."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bknb.executor.runc import HOSTNAME
from bknb.llb.ops import HostIP, NetMode

RESOLV_CONF = Path("/etc/resolv.conf")
SYSTEMD_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")
STUB_RESOLVER = "127.0.0.53"
PUBLIC = ("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844")
"""What BuildKit falls back on where the host names no server (util/resolvconf)."""


def hosts(hostname: str, extra: Sequence[HostIP]) -> str:
    """The text of /etc/hosts (executor/oci/hosts.go)."""
    lines = [f"127.0.0.1\tlocalhost {hostname or HOSTNAME}", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{entry.ip}\t{entry.host}" for entry in extra]
    return "\n".join(lines) + "\n"


def resolv_conf(network: NetMode, path: Path = RESOLV_CONF) -> str:
    """The text of /etc/resolv.conf, made from the host's (executor/oci/resolvconf.go).

    A container shares the host's network, so that a resolver on a loopback address serves it too; without a
    network nobody reads the file.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError:
        text = ""
    servers = [
        line.split()[1]
        for line in text.splitlines()
        if line.startswith("nameserver") and len(line.split()) > 1
    ]
    if network is NetMode.NONE and servers == [STUB_RESOLVER] and SYSTEMD_RESOLV_CONF.exists():
        return SYSTEMD_RESOLV_CONF.read_text(errors="replace")
    if not servers:
        text = "".join(
            [text, "\n" if text and not text.endswith("\n") else "", *(f"nameserver {ip}\n" for ip in PUBLIC)]
        )
    return text
