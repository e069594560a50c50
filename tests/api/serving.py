"""A real server for tests, on real sockets with real certificates, and clients of it."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.api.guard import Audit
from pipeline.api.server import serve_api
from pipeline.api.settings import ApiSettings, Limits, Tcp
from pipeline.control.service import Control

TOKENS = {
    "anna": ("viewer", "anna-token-0123456789abcdef"),
    "bert": ("operator", "bert-token-0123456789abcdef"),
    "cleo": ("approver", "cleo-token-0123456789abcdef"),
}


@dataclass
class Authority:
    """Signs certificates into ``place``."""

    place: Path
    name: str = "ca"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        self._write(self.name, self.key, self._sign(self.name, self.key, authority=True))

    def issue(self, name: str) -> tuple[str, str]:
        """A certificate and key for ``name``, as paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._write(name, key, self._sign(name, key, authority=False))

    @property
    def path(self) -> str:
        return str(self.place / f"{self.name}.pem")

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())

    def _write(
        self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
    ) -> tuple[str, str]:
        pem = self.place / f"{name}.pem"
        pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        secret = self.place / f"{name}.key"
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(pem), str(secret)


def access_file(place: Path, *more: str) -> str:
    """Of the tokens above, and further lines."""
    lines = [f"{name} {role} token:{token}" for name, (role, token) in TOKENS.items()]
    path = place / "access"
    path.touch(mode=0o600)
    path.write_text("\n".join(["# who may do what", *lines, *more, ""]))
    return str(path)


@dataclass
class Serving:
    """A server that runs. ``addresses`` as it told them."""

    place: Path
    addresses: list[str]
    stop: Callable[[], None]
    ca: Authority | None = None

    @property
    def unix(self) -> str:
        return self.addresses[0].removeprefix("unix:")

    @property
    def url(self) -> str:
        return self.addresses[-1].replace("127.0.0.1", "localhost")

    def client(self, name: str = "", certificate: str = "") -> httpx.AsyncClient:
        """Through the Unix socket; or over TLS as ``name``, with a token or a certificate."""
        if not name and not certificate:
            transport = httpx.AsyncHTTPTransport(uds=self.unix)
            return httpx.AsyncClient(transport=transport, base_url="http://backstay", timeout=30)
        assert self.ca is not None
        context = ssl.create_default_context(cafile=self.ca.path)
        if certificate:
            context.load_cert_chain(*self.ca.issue(certificate))
        headers = {"Authorization": f"Bearer {TOKENS[name][1]}"} if name in TOKENS else {}
        return httpx.AsyncClient(verify=context, base_url=self.url, headers=headers, timeout=30)


@asynccontextmanager
async def served(
    control: Control,
    audit: Audit,
    place: Path,
    *,
    limits: Limits | None = None,
    tls: bool = False,
    access: tuple[str, ...] = ("console approver cert:console",),
) -> AsyncIterator[Serving]:
    """Serve ``control`` below ``place``; ``tls``: on TCP too."""
    ca, tcp = None, None
    if tls:
        ca = Authority(place)
        certificate, key = ca.issue("localhost")
        path = access_file(place, *access)
        tcp = Tcp("127.0.0.1", 0, certificate, key, path, client_ca=ca.path)
    settings = ApiSettings(str(place / "run/api.sock"), tcp, limits or Limits())
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(partial(serve_api, control, settings, audit))
        yield Serving(place, addresses, nursery.cancel_scope.cancel, ca)
        nursery.cancel_scope.cancel()
