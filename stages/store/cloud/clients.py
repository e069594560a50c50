"""obstore's clients of one store: how they are set up, and how long each may take."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from stages.errors import BackstayError, StoreError
from stages.ports import Machine
from stages.store.cloud.credentials import check_google, read_azure, read_s3
from stages.store.cloud.settings import Settings

Client = S3Store | AzureStore | GCSStore

SLOWEST = 256 << 10  # bytes a second: a line that is slower takes too long
CLASSES = 6  # of clients, each with four times the time of the one before
_GROWTH = 4
_CONNECT = 10.0  # seconds
_MAX_CA = 1 << 20
_DEFAULT_REGION = "us-east-1"  # of servers that have none
# A credential file is read again that often, so that renewed ones are taken up: obstore asks anew
# five minutes before what it was told is the end.
_FRESH = datetime.timedelta(minutes=10)
# Repeating belongs to RetryStore and the supervisor, which know what is at stake.
_NO_RETRY: Any = {"max_retries": 0, "retry_timeout": datetime.timedelta(0)}
_S3_ELSEWHERE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


class Clients:
    """Made when first needed, one for each time limit. Calls of ``of`` block: run them in threads.

    ``trouble``: why a credential file could not be read again, if that is so.
    """

    def __init__(self, settings: Settings, machine: Machine):
        self.trouble: BackstayError | None = None
        self._settings = settings
        self._files = machine.files
        self._environment = machine.environment
        self._clock = machine.clock
        self._lock = (machine.network or machine.offload).lock()
        self._made: dict[int, Client] = {}

    def of(self, size: int) -> Client:
        """One that has time enough to move ``size`` bytes. Raises store errors."""
        level = 0
        needed = 2 * size / SLOWEST
        while self._limit(level) < needed and level < CLASSES - 1:
            level += 1
        with self._lock:
            if level not in self._made:
                self._made[level] = self._make(self._limit(level))
            return self._made[level]

    def close(self) -> None:
        """Forget them all, with their connections."""
        self._made.clear()

    def _limit(self, level: int) -> float:
        return float(self._settings.timeout * _GROWTH**level)

    def _make(self, limit: float) -> Client:
        make = {"s3": self._s3, "az": self._azure, "gs": self._google}[self._settings.scheme]
        try:
            return make(self._options(limit))
        except BackstayError:
            raise
        except (BaseError, ValueError, OSError) as error:  # a certificate, the environment
            raise StoreError(
                f"the client cannot be set up: {_first_line(error)}",
                operation="open the store",
                subject=f"{self._settings.scheme}://{self._settings.bucket}",
                hint="check ca, credentials and the environment's variables of this cloud",
            ) from None

    def _options(self, limit: float) -> Any:
        settings = self._settings
        found: dict[str, Any] = {
            "timeout": datetime.timedelta(seconds=limit),
            "connect_timeout": datetime.timedelta(seconds=min(_CONNECT, settings.timeout)),
            "allow_http": settings.plain,
            "user_agent": "backstay",
        }
        if settings.proxy:
            found["proxy_url"] = settings.proxy
        if settings.ca:
            found["root_certificate"] = self._certificates(settings.ca)
        return found

    def _certificates(self, path: str) -> bytes:
        try:
            found = self._files.read(path, _MAX_CA)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(
                f"cannot be read: {reason}", operation="ca", subject=path, hint="a PEM file"
            ) from None
        if b"-----BEGIN CERTIFICATE-----" not in found:
            raise StoreError("holds no certificate", operation="ca", subject=path, hint="PEM")
        return found

    def _s3(self, options: Any) -> Client:
        settings = self._settings
        config: Any = {"checksum_algorithm": "SHA256"}  # object lock asks for one
        if settings.endpoint:
            config["endpoint"] = settings.endpoint
        region = settings.region or self._environment_region()
        if not region and not settings.endpoint:
            raise StoreError(
                "the bucket's region is not said",
                operation="open the store",
                subject=f"s3://{settings.bucket}",
                hint="set region, or the variable AWS_REGION",
            )
        config["region"] = region or _DEFAULT_REGION
        return S3Store(
            settings.bucket,
            config=config,
            client_options=options,
            retry_config=_NO_RETRY,
            credential_provider=self._s3_provider(),
        )

    def _environment_region(self) -> str:
        said = self._environment
        return said.get("AWS_REGION", "") or said.get("AWS_DEFAULT_REGION", "")

    def _s3_provider(self) -> Any:
        """What reads the credential file, or None: the environment, or a role of this machine."""
        said = self._environment
        path = self._settings.credentials
        if not path and not any(said.get(name) for name in _S3_ELSEWHERE):
            home = said.get("HOME", "")
            path = said.get("AWS_SHARED_CREDENTIALS_FILE", "")
            if not path and home and self._files.stat(f"{home}/.aws/credentials") is not None:
                path = f"{home}/.aws/credentials"
        if not path:
            return None
        profile = said.get("AWS_PROFILE", "") or "default"

        def read() -> dict[str, Any]:
            found: dict[str, Any] = dict(read_s3(self._files, path, profile))
            return {"token": None, **found, "expires_at": self._expiry()}

        return self._provider(read)

    def _azure(self, options: Any) -> Client:
        settings = self._settings
        config: Any = {}
        provider: Any = None
        if settings.credentials:
            found = read_azure(self._files, settings.credentials)
            if {"account_key", "sas_token"} & set(found):
                provider = self._provider(self._read_azure)
                found = {key: found[key] for key in ("account_name",) if key in found}
            config |= found
        if settings.account:
            config["account_name"] = settings.account
        if settings.endpoint:
            config["endpoint"] = settings.endpoint
        return AzureStore(
            settings.bucket,
            config=config,
            client_options=options,
            retry_config=_NO_RETRY,
            credential_provider=provider,
        )

    def _read_azure(self) -> dict[str, Any]:
        found = read_azure(self._files, self._settings.credentials)
        if "account_key" in found:
            return {"access_key": found["account_key"], "expires_at": self._expiry()}
        return {"sas_token": found.get("sas_token", ""), "expires_at": self._expiry()}

    def _google(self, options: Any) -> Client:
        settings = self._settings
        config: Any = {}
        if settings.credentials:
            path = check_google(self._files, settings.credentials)
            config["google_application_credentials"] = path
        if settings.endpoint:
            config["google_base_url"] = settings.endpoint
        return GCSStore(
            settings.bucket,
            config=config,
            client_options=options,
            retry_config=_NO_RETRY,
        )

    def _provider(self, read: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        """``read``, which is tried once now, so that a wrong file is told in its own words."""
        read()

        def again() -> dict[str, Any]:
            try:
                found = read()
            except BackstayError as error:
                self.trouble = error
                raise
            self.trouble = None
            return found

        return again

    def _expiry(self) -> datetime.datetime:
        now = datetime.datetime.fromtimestamp(self._clock.wall_us() / 1e6, datetime.UTC)
        return now + _FRESH


def _first_line(error: BaseException) -> str:
    """What obstore's builders say is about settings; cut all the same."""
    return str(error).strip().split("\n")[0][:200]
