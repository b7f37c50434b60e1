"""The capabilities of LLB (solver/pb/caps.go): what a definition may ask of the solver that gets it.

Each op's metadata lists those that it needs, so that an older solver can refuse it by name.
"""

from __future__ import annotations

from typing import Final

_FAMILIES: Final = {
    "source.image": ". resolvemode layerlimit checksum",
    "source.local": ". unique sessionid includepatterns followpaths excludepatterns sharedkeyhint differ "
    "metadatatransfer",
    "source.git": ". keepgitdir fullurl httpauth knownsshhosts mountsshsock subdir checksum skipsubmodules "
    "signatureverify mtime fetchbycommit bundle checkoutbundle",
    "source.http": ". auth checksum perm header signatureverify",
    "source": "imageblob ocilayout buildop.llbfilename policy policy.session",
    # The typing error is BuildKit's, and part of the wire.
    "soruce.http": "uidgid",
    "exec.meta": "base cgroup.parent network network.proxy proxyenv security security.devices.v1 "
    "setsdefaultpath ulimit cdi removemountstubs.recursive linux.resources",
    "exec.mount": "bind bind.readwrite-nooutput cache cache.sharing cache.content selector tmpfs tmpfs.size "
    "secret ssh",
    "exec": "cgroup secretenv validexitcode",
    "file": "base rm.wildcard rm.nofollowsymlink copy.includeexcludepatterns copy.requiredpaths "
    "copy.alwaysreplaceexistingdestpaths copy.modestring symlink.create",
    "meta": "ignorecache description exportcache",
    "cache": "azblob gha s3",
    "exporter": "image.annotations image.attestations sourcedateepoch multiple session",
    "gc": "freespacefilter",
    "history": "filter",
}

ALL: Final = frozenset(
    family if name == "." else f"{family}.{name}"
    for family, names in _FAMILIES.items()
    for name in names.split()
) | {"constraints", "platform", "mergeop", "diffop", "passthroughop"}
