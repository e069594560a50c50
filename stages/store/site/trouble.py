"""What went wrong with a site, in the words of a store: network, certificates, answers."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping

import trio

from stages.errors import (
    BackstayError,
    NoSpace,
    ObjectMissing,
    OutcomeUnknown,
    StoreDenied,
    StoreError,
    StoreUnreachable,
    leaves,
)
from stages.store.site.protocol import ERROR_HEADER

_MAX_TEXT = 300
_EXPIRED, _HOSTNAME, _ADDRESS = 10, 62, 64  # X509_V_ERR_… of OpenSSL
# What a site says of a client's certificate, by the words in OpenSSL's name of the alert.
_ALERTS: Mapping[str, tuple[str, str]] = {
    "CERTIFICATE_REQUIRED": (
        "the site wants a certificate and was shown none",
        "give cert and key (BACKSTAY_SITE_CERT, …_KEY): what the site's operator signed",
    ),
    "CERTIFICATE_EXPIRED": (
        "the site refuses the client certificate: it has expired",
        "renew it at the site ('backstay site certificates'), and check both clocks",
    ),
    "CERTIFICATE_REVOKED": (
        "the site refuses the client certificate: it is revoked",
        "get another from the site's operator",
    ),
    "UNKNOWN_CA": (
        "the site does not know who signed the client certificate",
        "it must be signed by the site's client_ca",
    ),
    "BAD_CERTIFICATE": ("the site refuses the client certificate", "is it one for clients?"),
    "CERTIFICATE_UNKNOWN": ("the site refuses the client certificate", "is it one for clients?"),
    "ACCESS_DENIED": ("the site refuses the client certificate", "ask the site's operator"),
}


class NoAnswer(Exception):
    """Nothing, or not all, was heard. ``sent``: of the request, something may have arrived;
    ``begun``: of the answer, something was heard."""

    def __init__(self, cause: BaseException, *, sent: bool, begun: bool = False):
        super().__init__(str(cause))
        self.cause = cause
        self.sent = sent
        self.begun = begun


def unusable(error: OSError, files: tuple[str, ...]) -> StoreDenied:
    """CA, certificate or key are no files that TLS can use."""
    if isinstance(error, ssl.SSLError):
        text = {
            "KEY_VALUES_MISMATCH": "certificate and key do not belong together",
            "NO_CERTIFICATE_OR_CRL_FOUND": "a file holds no certificate",
        }.get(error.reason or "", "is no PEM file of a certificate or key without passphrase")
    else:
        text = f"cannot be read: {error.strerror or error}"
    subject = str(error.filename) if error.filename else ", ".join(filter(None, files))
    return StoreDenied(
        text,
        operation="open the certificates of a site",
        subject=subject,
        hint="ca: who signed the site's certificate; cert and key: what the site knows this "
        "machine by; all PEM",
    )


def of_network(cause: BaseException, url: str, operation: str, *, put: bool) -> BackstayError:
    """What ``cause`` means. ``put``: whether it was stored is not known."""
    found = of_certificates(cause, url, operation)
    if found is not None:
        return found
    reason, hint = _network(cause)
    kind = OutcomeUnknown if put else StoreUnreachable
    return kind(reason, operation=operation, subject=url, hint=hint)


def of_certificates(cause: BaseException, url: str, operation: str) -> BackstayError | None:
    """The refusal behind ``cause``, if one side does not trust the other."""
    error: BaseException | None = cause
    for _ in range(5):
        if isinstance(error, ssl.SSLCertVerificationError):
            return _denied(*_verification(error), url, operation)
        if isinstance(error, ssl.SSLError):
            for name, (text, hint) in _ALERTS.items():
                if f"ALERT_{name}" in (error.reason or ""):
                    return _denied(text, hint, url, operation)
        if error is None:
            break
        error = error.__cause__ or error.__context__
    return None


def _denied(text: str, hint: str, url: str, operation: str) -> StoreDenied:
    return StoreDenied(text, operation=operation, subject=url, hint=hint)


def _verification(error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    if error.verify_code == _EXPIRED:
        return (
            "the site's certificate has expired",
            "renew it at the site, and check the clock of this machine",
        )
    if error.verify_code in (_HOSTNAME, _ADDRESS):
        return (
            f"the site's certificate is for another host: {error.verify_message}",
            "use the name that stands in it, or make it for this one: 'site certificates --host'",
        )
    return (
        f"the site's certificate is not trusted: {error.verify_message}",
        "is ca the certificate of who signed the site's? Then something else answers there",
    )


def _network(cause: BaseException) -> tuple[str, str]:
    chain = [leaf for error in (cause, cause.__cause__) if error for leaf in leaves(error)]
    for error in chain:
        if isinstance(error, ssl.SSLError) and "WRONG_VERSION_NUMBER" in (error.reason or ""):
            return "what answers there speaks no TLS", "is it the port of 'backstay site'?"
    for error in chain:
        if isinstance(error, trio.TooSlowError):
            return "it did not answer in time", "is the way to it open, and is it overloaded?"
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
            return error.strerror, "is 'backstay site' running there, and is the way open?"
    words = str(cause) or type(cause).__name__
    return f"the connection ended: {words}"[:_MAX_TEXT], "it is tried again"


def no_site(status: int, url: str, operation: str) -> BackstayError:
    """An answer that says nothing about a vault, whatever its status: it is not the site's."""
    kind = OutcomeUnknown if operation == "put" and status >= 500 else StoreUnreachable
    return kind(
        f"something that is no Backstay site answers there ({status})",
        operation=operation,
        subject=url,
        hint="check host and port; a proxy in between answers so while the site is away",
    )


def of_answer(
    status: int, headers: Mapping[str, str], body: bytes, operation: str, subject: str
) -> BackstayError | ValueError:
    """What a site's answer that is no success means."""
    put = operation == "put"
    said, hint = _document(body)
    name = headers.get(ERROR_HEADER, "")
    text = f"the site says: {said}" if said else f"the site answers {status}"
    if status == 409:
        return ValueError(said or f"not possible with this key: {subject!r}")
    kind = _kind(status, name, put)
    return kind(text, operation=operation, subject=subject, hint=hint)


def _kind(status: int, name: str, put: bool) -> type[BackstayError]:
    if status == 404 and name == "ObjectMissing":
        return ObjectMissing
    if status == 403:
        return StoreDenied
    if status == 507:
        return NoSpace
    if status in (408, 422, 429) or (status == 503 and name != "OutcomeUnknown"):
        return StoreUnreachable
    if status >= 500:
        return OutcomeUnknown if put else StoreUnreachable
    return StoreError


def _document(body: bytes) -> tuple[str, str]:
    """What an error document says: detail and hint, cut and printable."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(fields, dict):
        return "", ""
    words = (str(fields.get(name) or "")[:_MAX_TEXT] for name in ("detail", "hint"))
    said, hint = ("".join(char for char in word if char.isprintable()) for word in words)
    return said, hint
