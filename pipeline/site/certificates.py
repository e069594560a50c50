"""A certificate authority for one site, for those who have none: a CA, the site, its clients."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages import durable
from stages.errors import FULL, MissingTool, NoSpace, UsageError
from stages.ports import Files, Machine

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

CA_DAYS = 3650
_SLACK = datetime.timedelta(hours=1)  # clocks differ
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MAX_FILE = 1 << 20
_OWN = ("ca", "site")


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate: where it is, what for; ``made`` now, or found. Hex SHA-256 of it."""

    path: str
    what: str
    made: bool
    fingerprint: str


def make(
    ports: Machine,
    folder: str,
    hosts: Sequence[str],
    clients: Sequence[str],
    days: int,
    *,
    renew: bool = False,
) -> list[Made]:
    """Make what is missing (``renew``: all but the CA). Raises ``UsageError``, ``NoSpace``,
    ``MissingTool``."""
    for name in clients:
        if _NAME.fullmatch(name) is None or name.lower() in _OWN:
            raise UsageError(
                "not the name of a client",
                operation="site certificates",
                subject=name,
                hint='at most 63 of A-Z, a-z, 0-9, ".", "_" and "-"; not "ca" or "site"',
            )
    try:
        desk = _Desk(ports, folder, datetime.timedelta(days=days))
        made = [desk.authority()]
        if hosts:
            made.append(desk.issue("site", hosts, f"for {', '.join(hosts)}", renew=renew))
        made += [desk.issue(name, (), f"client {name}", renew=renew) for name in clients]
    except OSError as error:
        kind = NoSpace if error.errno in FULL else UsageError
        raise kind(
            error.strerror or str(error),
            operation="site certificates",
            subject=str(error.filename or folder),
            hint="DIR must be writable by you, and belong to nobody else",
        ) from error
    return made


class _Desk:
    """Signs into one folder."""

    def __init__(self, ports: Machine, folder: str, good: datetime.timedelta):
        try:
            import cryptography  # noqa: F401
        except ImportError:
            raise MissingTool(
                "the package cryptography is not installed",
                operation="site certificates",
                hint="pip install 'backstay[site]'; or make them with openssl or step",
            ) from None
        self._files: Files = ports.files
        self._token: Callable[[int], bytes] = ports.entropy.token
        self._folder = folder.rstrip("/") or "/"
        self._good = good
        self._ca: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None
        durable.make_dirs(self._files, self._folder)

    def authority(self) -> Made:
        """The CA, made if it is missing. ``UsageError`` if it cannot be used, ``OSError``."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        path = f"{self._folder}/ca.crt"
        found = self._files.stat(path) is not None
        if not found:
            key = ec.generate_private_key(ec.SECP256R1())
            good = datetime.timedelta(days=CA_DAYS)
            self._write("ca", key, _sign("Backstay site CA", key, None, (), good))
        try:
            certificate = x509.load_pem_x509_certificate(self._files.read(path, _MAX_FILE))
            secret = self._files.read(f"{self._folder}/ca.key", _MAX_FILE)
            key_found = load_pem_private_key(secret, None)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"the CA cannot be used: {error}", operation="site certificates", subject=path
            ) from None
        if not isinstance(key_found, ec.EllipticCurvePrivateKey):
            raise UsageError(
                "the CA was not made by this command", operation="site certificates", subject=path
            )
        self._ca = certificate, key_found
        return _made(path, "signs the others", certificate, made=not found)

    def issue(self, name: str, hosts: Sequence[str], what: str, *, renew: bool) -> Made:
        """A certificate of this common name; with ``hosts`` one for servers, else for clients."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        path = f"{self._folder}/{name}.crt"
        if self._files.stat(path) is not None and not renew:
            found = x509.load_pem_x509_certificate(self._files.read(path, _MAX_FILE))
            return _made(path, what, found, made=False)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(hosts[0] if hosts else name, key, self._ca, hosts, self._good)
        self._write(name, key, certificate)
        return _made(path, what, certificate, made=True)

    def _write(
        self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
    ) -> None:
        """The key first: a certificate that is there has its key."""
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        shown = certificate.public_bytes(Encoding.PEM)
        for suffix, data in (("key", secret), ("crt", shown)):
            token = self._token(8).hex()
            durable.replace(self._files, f"{self._folder}/{name}.{suffix}", data, token=token)


def _made(path: str, what: str, certificate: x509.Certificate, *, made: bool) -> Made:
    from cryptography.hazmat.primitives import hashes

    return Made(path, what, made, certificate.fingerprint(hashes.SHA256()).hex())


def _sign(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    ca: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    hosts: Sequence[str],
    good: datetime.timedelta,
) -> x509.Certificate:
    """``ca`` None: of the CA itself, by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    issuer, signer = (ca[0].subject, ca[1]) if ca else (subject, key)
    now = datetime.datetime.now(datetime.UTC)
    public = signer.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + good)
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .add_extension(_usage(authority=ca is None), critical=True)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_general(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    if ca is not None:
        for_what = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([for_what]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _usage(*, authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise UsageError(
            "not the name of a host", operation="site certificates", subject=host
        ) from None
