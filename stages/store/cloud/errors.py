"""What a failure of obstore means: denied, gone, trouble that passes, or a setting that is wrong.

obstore raises a few classes whose text is the tree of causes. The status and the code of the
server's answer are taken out of it, and what is said is in our own words: the text itself may hold
addresses with signatures in them and is never passed on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import (
    BackstayError,
    ObjectMissing,
    OutcomeUnknown,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)
from stages.store.cloud.settings import Settings

MAX_TEXT = 64 << 10  # of an error's text that is looked at

_STATUS = re.compile(r"status(?: code)?: (\d{3})")
_CODE = re.compile(
    r"<Code>([A-Za-z0-9_.]{1,60})</Code>|\"(?:error|reason)\\?\": ?\\?\"([a-zA-Z_]+)"
)
# Of a delete, which goes as a list of one: a status, or a code that stands for a refusal.
_ONE_OF_MANY = re.compile(r"DeleteFailed \{\s+path: .*\s+code: \"(\w{1,60})\"")
_EXPECTED_REGION = re.compile(
    r"<Region>([a-z0-9-]{1,40})</Region>|expecting &?#?\w*;?'([a-z0-9-]+)'"
)

TAKEN = frozenset({"BlobAlreadyExists", "PreconditionFailed", "UnauthorizedBlobOverwrite"})
"""Codes that say: the place of a create-only put is taken."""

_GONE = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "NoSuchUpload"})
_MISSING = frozenset({"NoSuchKey", "BlobNotFound", "NotFound", ""})
_AGAIN = frozenset(
    {
        "ConditionalRequestConflict",  # two creators at once: neither may have won
        "OperationAborted",
        "SlowDown",
        "ServerBusy",
        "RequestTimeout",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "InternalError",
        "OperationTimedOut",
        "ServiceUnavailable",
        "rateLimitExceeded",
    }
)
_SKEW = re.compile(
    r"RequestTimeTooSkewed|RequestExpired|Request date header too old|not within 15 "
)
_OLD_TOKEN = re.compile(
    r"ExpiredToken|TokenRefreshRequired|InvalidToken|Signature not valid in the specified time|"
    r"Signed expiry time|Lifetime validation failed|token.{0,20}expired"
)
_REGIONS = frozenset(
    {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
)

_HINTS: Mapping[str, str] = {
    "InvalidAccessKeyId": "the server does not know this access key",
    "SignatureDoesNotMatch": "the secret does not belong to this access key",
    "AuthenticationFailed": "the account's key or the SAS token is not the right one",
    "AccessDenied": "these credentials may not do this: configs/cloud has what a writer needs",
    "AuthorizationPermissionMismatch": "configs/cloud has the role that a writer needs",
    "AuthorizationFailure": "the account's key is wrong, or its network rules keep us out",
    "AccountIsDisabled": "the storage account is disabled",
    "AllAccessDisabled": "the bucket is disabled",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """``status`` of the server's answer, 0 if there was none; ``code`` of its body, or "";
    ``text`` is everything, not to be shown."""

    status: int
    code: str
    text: str

    @staticmethod
    def of(error: BaseException) -> Failure:
        """Read an exception of obstore."""
        text = str(error)[:MAX_TEXT]
        status, code = _STATUS.search(text), _CODE.search(text)
        if (one := _ONE_OF_MANY.search(text)) is not None:
            return Failure(int(one[1]) if one[1].isdigit() else 403, one[1], text)
        return Failure(
            int(status[1]) if status else 0, (code[1] or code[2] or "") if code else "", text
        )


def explain(failure: Failure, settings: Settings, operation: str, subject: str) -> BackstayError:
    """The error to raise. Of a put, what leaves it open whether the object is stored is
    ``OutcomeUnknown``."""
    kind, message, hint = _classify(failure, settings)
    sent = failure.status >= 500 or (not failure.status and not _never_sent(failure.text))
    if operation == "put" and kind is StoreUnreachable and sent:
        kind = OutcomeUnknown
    return kind(message, operation=operation, subject=subject, hint=hint)


def _classify(failure: Failure, settings: Settings) -> tuple[type[BackstayError], str, str]:
    if failure.status == 0 and "BareRedirect" not in failure.text:
        return _unanswered(failure.text, settings)
    found = _settings_wrong(failure, settings)
    if found is not None:
        return found
    said = f"the server answered {failure.status}"
    said += f" {failure.code}" if failure.code else ""
    if failure.code in _AGAIN or _passes(failure.status, failure.code):
        return StoreUnreachable, said, "it is busy or in trouble; it is tried again"
    if failure.status == 404:
        return ObjectMissing, "no such object", ""
    if failure.status in (401, 403):
        return StoreDenied, said, _HINTS.get(failure.code, _credentials_hint(settings))
    if failure.code in ("BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold"):
        return StoreDenied, said, "the object is held by a retention policy of the store"
    return StoreError, said, "look the code up in the manual of this store"


def _passes(status: int, code: str) -> bool:
    return status >= 500 or status in (408, 425, 429) or (status == 409 and not code)


def _settings_wrong(
    failure: Failure, settings: Settings
) -> tuple[type[BackstayError], str, str] | None:
    """What a person has to put right, whatever the status."""
    text, holder = failure.text, f"{settings.holder} {settings.bucket}"
    if _SKEW.search(text):
        return (
            StoreUnreachable,
            "this machine's clock and the server's are too far apart",
            "set the clock (timedatectl set-ntp true); it is tried again",
        )
    if failure.status in (400, 401, 403) and _OLD_TOKEN.search(text):
        return StoreDenied, "the token or signature has expired", _credentials_hint(settings)
    if failure.code in _REGIONS or "BareRedirect" in text or failure.status in (301, 307, 308):
        expected = _EXPECTED_REGION.search(text)
        there = (expected[1] or expected[2]) if expected else "its own"
        used = settings.region or "that of the environment"
        return (
            StoreError,
            f"the {holder} is in another region than {used}",
            f"set region to {there}" + (", and check endpoint" if settings.endpoint else ""),
        )
    if failure.code in _GONE:
        return StoreError, f"there is no {holder}", "make it, or correct the vault's url"
    return None


def _unanswered(text: str, settings: Settings) -> tuple[type[BackstayError], str, str]:
    """No answer came: a certificate, the network, or a credential that had to be fetched."""
    server = settings.endpoint or "the server"
    if "invalid peer certificate" in text or "certificate" in text.lower():
        return _certificate(text, server)
    if "169.254.169.254" in text or "metadata.google" in text or "169.254.170" in text:
        return StoreDenied, "no credentials were found", _credentials_hint(settings)
    if "ProxyAuthRequired" in text or "TunnelUnsuccessful" in text:
        return (
            StoreUnreachable,
            "the proxy does not let this through",
            "check proxy; its password stands in the variable HTTPS_PROXY",
        )
    if "dns error" in text or "failed to lookup" in text:
        return (
            StoreUnreachable,
            f"the name of {server} is not known",
            "check endpoint, region, account and this machine's name server",
        )
    if _timed_out(text):
        return StoreUnreachable, f"no answer within {settings.timeout:g} s", "check the network"
    if _never_sent(text):
        return StoreUnreachable, f"{server} cannot be reached", "check the network and endpoint"
    return StoreUnreachable, "the connection was lost", "check the network; it is tried again"


def _certificate(text: str, server: str) -> tuple[type[BackstayError], str, str]:
    """An expired one may be renewed by itself; one of another authority will not change."""
    if "Expired" in text or "NotValidYet" in text:
        return (
            StoreUnreachable,
            f"the certificate of {server} is not valid now",
            "it has to be renewed there; is this machine's clock right?",
        )
    if "NotValidForName" in text:
        return (
            StoreError,
            f"the certificate of {server} is for another name",
            "endpoint must be the name that the certificate is for",
        )
    return (
        StoreError,
        f"the certificate of {server} is not trusted",
        "set ca to the file (PEM) of the authority that signed it",
    )


def _timed_out(text: str) -> bool:
    return "TimedOut" in text or "timed out" in text or "kind: Timeout" in text


def _never_sent(text: str) -> bool:
    """The connection was not even made."""
    return "kind: Connect" in text or "ConnectError" in text or "ConnectionRefused" in text


def _credentials_hint(settings: Settings) -> str:
    if settings.credentials:
        return f"renew what stands in {settings.credentials}"
    return {
        "s3": "give credentials: FILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role",
        "az": "give credentials: FILE, or AZURE_STORAGE_ACCOUNT_KEY, a SAS token, or an identity",
        "gs": "give credentials: FILE, or GOOGLE_APPLICATION_CREDENTIALS, or a service account",
    }[settings.scheme]
