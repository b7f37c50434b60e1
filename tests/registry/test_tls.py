"""Certificates and logins, with a registry that wants them."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from bknb.content import DiskContentStore
from bknb.digest import Digest
from bknb.errors import RegistryError
from bknb.oci.types import OCI_MANIFEST
from bknb.protocols import Credentials
from bknb.reference import Reference
from bknb.registry.client import RegistryClient
from bknb.settings import HostSettings
from tests.conftest import need, real_registry
from tests.images import make_image

MANIFEST = b'{"schemaVersion":2,"config":{"digest":"%s","size":2}}' % Digest.of(b"{}").encode()
# "secret", of bcrypt; the only form that docker-registry reads.
HTPASSWD = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


@dataclass(frozen=True)
class Certificates:
    """A CA of the test's own, and what it signed."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Keys and certificates, made anew."""
    openssl, folder = need("openssl"), tmp_path_factory.mktemp("tls")

    def make(name: str, *words: str) -> tuple[Path, Path]:
        key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
        subprocess.run(
            [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", f"/CN=bknb test {name}", "-keyout", key, "-out", certificate, *words],
            check=True, capture_output=True, start_new_session=True,
        )  # fmt: skip
        return key, certificate

    ca = make("ca")
    signed = ("-CA", str(ca[1]), "-CAkey", str(ca[0]))
    names = "subjectAltName=IP:127.0.0.1"
    plain = ("-addext", "basicConstraints=critical,CA:FALSE")
    return Certificates(
        ca[1], make("server", *signed, *plain, "-addext", names), make("client", *signed, *plain)
    )


@pytest.fixture
def store(tmp_path: Path) -> DiskContentStore:
    """The client's content store, empty."""
    return DiskContentStore(tmp_path / "content")


@asynccontextmanager
async def serving(certificates: Certificates, client: ssl.VerifyMode) -> AsyncIterator[str]:
    """A registry of one manifest behind TLS."""

    async def handler(request: web.Request) -> web.Response:
        headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": Digest.of(MANIFEST)}
        return web.Response(body=MANIFEST, headers=headers)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.ca))
    context.load_cert_chain(certificates.server[1], certificates.server[0])
    context.verify_mode = client
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the CA is as plain as private ones are
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield "{}:{}".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


async def asked(host: str, store: DiskContentStore, settings: HostSettings) -> Digest:
    """What a client with these settings is told."""
    async with RegistryClient(store, {host: settings}, backoff=()) as client:
        return (await client.resolve(Reference.parse(f"{host}/x"))).descriptor.digest


async def test_ca(certificates: Certificates, store: DiskContentStore) -> None:
    """A registry with a certificate of an unknown CA is one line; with `ca` or `insecure` it is fine."""
    async with serving(certificates, ssl.CERT_NONE) as host:
        with pytest.raises(RegistryError, match=r"is not trusted .*: set ca or insecure for this host"):
            await asked(host, store, HostSettings(http=False))
        trusted = HostSettings(http=False, ca=(str(certificates.ca),))
        for settings in (trusted, HostSettings(http=False, insecure=True), HostSettings(insecure=True)):
            assert await asked(host, store, settings) == Digest.of(MANIFEST)


async def test_client_certificate(certificates: Certificates, store: DiskContentStore) -> None:
    """A registry that wants to know the client is shown `keypair`; without it the answer is one line."""
    key, certificate = certificates.client
    ca = (str(certificates.ca),)
    async with serving(certificates, ssl.CERT_REQUIRED) as host:
        shown = HostSettings(http=False, ca=ca, keypairs=((str(key), str(certificate)),))
        assert await asked(host, store, shown) == Digest.of(MANIFEST)
        with pytest.raises(RegistryError) as caught:
            await asked(host, store, HostSettings(http=False, ca=ca))
        assert "\n" not in str(caught.value)
        wrong = HostSettings(http=False, ca=ca, keypairs=((str(certificate), str(key)),))
        with pytest.raises(RegistryError, match="cannot use the key"):
            await asked(host, store, wrong)


async def test_http_where_tls_is(certificates: Certificates, store: DiskContentStore) -> None:
    """Plain HTTP to a TLS port is one line."""
    async with serving(certificates, ssl.CERT_NONE) as host:
        with pytest.raises(RegistryError) as caught:
            await asked(host, store, HostSettings(http=True))
        assert "\n" not in str(caught.value)


async def test_login_at_the_real_registry(store: DiskContentStore, tmp_path: Path) -> None:
    """Debian's registry with a password file takes pushes of who knows the password, and of nobody else."""
    passwords = tmp_path / "htpasswd"
    passwords.write_text(HTPASSWD)
    image = make_image(store, {"a": b"1"})
    settings = f"auth: {{htpasswd: {{realm: x, path: {passwords}}}}}\n"
    with real_registry(tmp_path / "registry", settings) as registry:
        name = Reference.parse(f"{registry.host}/x:1")

        async def right(host: str) -> Credentials | None:
            assert host == registry.host
            return Credentials("me", "secret")

        async def wrong(host: str) -> Credentials | None:
            return Credentials("me", "guess")

        async with RegistryClient(store, backoff=()) as client:
            for ask in (None, wrong):
                with pytest.raises(RegistryError, match="log in"):
                    await client.push(name, image, ask=ask)
            await client.push(name, image, ask=right)
            assert (await client.resolve(name, right)).descriptor.digest == image.digest
            with pytest.raises(RegistryError, match="log in"):
                await client.resolve(name)
