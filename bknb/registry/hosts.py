"""Which addresses serve an image name, in which order, and how they are reached.

BuildKit's rules (util/resolver/resolver.go): the mirrors of a host in their order, then the host itself; a
mirror is only read from; docker.io lives at registry-1.docker.io; loopback hosts speak plain HTTP unless told
otherwise; ``insecure`` means TLS without checking certificates, and with ``http`` plain HTTP where there is no TLS.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bknb.errors import RegistryError
from bknb.settings import HostSettings

_ORIGINS: Final = {"docker.io": "registry-1.docker.io"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a registry.

    Attributes:
        host: ``name[:port]``.
        path: before ``/<repository>/...``, such as ``/v2``; a mirror may have more of it.
        schemes: tried in this order.
        mirror: what it is a mirror of, "" for the registry itself.
        settings: certificates and keys.
    """

    host: str
    path: str
    schemes: tuple[str, ...]
    mirror: str
    settings: HostSettings

    @property
    def note(self) -> str:
        """For people, where it is worth saying who served."""
        return f"mirror {self.host}" if self.mirror else ""


def is_loopback(host: str) -> bool:
    """Whether a ``name[:port]`` is this machine.

    >>> is_loopback("127.0.0.1:5000"), is_loopback("[::1]"), is_loopback("example.com")
    (True, True, False)
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def endpoints(
    domain: str, registries: Mapping[str, HostSettings], *, push: bool = False
) -> tuple[Endpoint, ...]:
    """The addresses of an image name's domain, in the order in which they are asked.

    Raises:
        RegistryError: only mirrors may be asked, and there is none that serves.
    """
    own = registries.get(domain, HostSettings())
    found = []
    if not push:
        for mirror in own.mirrors:
            host, _, path = (
                mirror.partition("://")[2].partition("/") if "://" in mirror else mirror.partition("/")
            )
            settings = registries.get(host, HostSettings())
            prefix = "/v2/" + path.strip("/") if path.strip("/") else "/v2"
            found.append(Endpoint(host, prefix, _schemes(host, settings), domain, settings))
    if not own.exclusive:
        host = _ORIGINS.get(domain, domain)
        found.append(Endpoint(host, "/v2", _schemes(host, own), "", own))
    if not found:
        what = "is not pushed to" if push else "has no mirror"
        raise RegistryError(f"offline: {domain} {what}, and only mirrors may be asked", host=domain)
    return tuple(found)


def _schemes(host: str, settings: HostSettings) -> tuple[str, ...]:
    plain = is_loopback(host) if settings.http is None else settings.http
    if settings.insecure:
        return ("https", "http") if plain else ("https",)
    return ("http",) if plain else ("https",)


def tls(settings: HostSettings, host: str) -> ssl.SSLContext:
    """How a host's certificate is checked, and what it is shown.

    Raises:
        RegistryError: a file that cannot be used; the message names it.
    """
    context = ssl.create_default_context()
    # Python 3.13 turns this on: it refuses CAs without a key usage, as many private ones are. Go, and so BuildKit, does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if settings.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for path in settings.ca:
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise RegistryError(f"cannot use the CA file {path} of {host}: {error}", host=host) from None
    for key, certificate in settings.keypairs:
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise RegistryError(f"cannot use the key {key} of {host}: {error}", host=host) from None
    return context
