"""The section ``daemon``: where it keeps its state, and the face it shows.

Secrets never stand in the configuration: it names the file or the environment variable that holds
one (``Secret``).
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
)

from pipeline.config.addresses import api_address
from pipeline.config.fields import (
    AS_DURATION,
    AS_DURATIONS,
    PRESENT,
    FilePath,
    OptionalPath,
    Place,
    choice,
    duration,
    durations,
    optional,
    text,
)
from pipeline.config.problems import quote
from pipeline.config.section import Section
from pipeline.config.units import Wrong

MAX_ALERTS = 16

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_WEB = re.compile(r"https?://[^\s/?#@]+(?:[/?][^\s]*)?", re.ASCII)
_BEARER = 'name the file or variable with the secret under "token"'


def _variable(value: object, _: ValidationInfo) -> str:
    name = text(value)
    if _VARIABLE.fullmatch(name) is None:
        raise Wrong(f"{quote(name)} is not the name of an environment variable")
    return name


Variable = Annotated[str | None, optional(_variable)]


class Secret(Section):
    """Where a secret is: in a file, or in an environment variable of the daemon."""

    file: OptionalPath = None
    environment: Variable = None


def _one_place(secret: Secret) -> Secret:
    if (secret.file is None) == (secret.environment is None):
        raise Wrong('needs either "file" or "environment"', "secrets do not stand here themselves")
    return secret


class Tls(Section):
    """PEM files. ``client_ca``: clients must show a certificate that it has signed."""

    cert: FilePath = Field(examples=["/etc/backstay/api.crt"])
    key: FilePath = Field(examples=["/etc/backstay/api.key"])
    client_ca: OptionalPath = None


def _listen(value: object, info: ValidationInfo) -> str:
    place = info.context
    return api_address(value, place.folder if isinstance(place, Place) else Place.of("-").folder)


class Api(Section):
    """Where the API listens: ``unix:`` and an absolute path, or ``ADDRESS:PORT``.

    ``tokens``: a file of bearer tokens and roles. Beyond a Unix socket, TLS and one of client
    certificates and tokens are needed; on a loopback address tokens are enough.
    """

    listen: Annotated[str, PlainValidator(_listen)] = Field(examples=['"unix:./state/api.sock"'])
    tls: Annotated[Tls | None, PRESENT] = None
    tokens: OptionalPath = None

    @property
    def socket(self) -> str:
        """The path of the Unix socket; "" for TCP."""
        return self.listen.removeprefix("unix:") if self.listen.startswith("unix:") else ""


def _api(value: object, info: ValidationInfo) -> object:
    """``api: unix:PATH`` is short for a section."""
    if isinstance(value, str):
        listen = _listen(value, info)
        if not listen.startswith("unix:"):
            raise Wrong(
                f"{quote(value)} needs to say who may use it",
                "write {listen: …, tls: {…}, tokens: …}, or unix:PATH",
            )
        return Api(listen=listen)
    return value


def _guarded(api: Api) -> Api:
    if api.socket:
        if api.tls is not None:
            raise Wrong("a Unix socket has no TLS", 'remove "tls"')
        return api
    known = api.tokens is not None or (api.tls is not None and api.tls.client_ca is not None)
    if not known:
        raise Wrong(
            "who may use it is not said", 'add "tokens: FILE" or "tls: {client_ca: FILE, …}"'
        )
    if api.tls is None and not api.listen.startswith(("127.", "[::1]")):
        raise Wrong(
            f"{api.listen} can be reached from other machines, and tokens need TLS there",
            'add "tls: {cert: FILE, key: FILE}"',
        )
    return api


class Log(Section):
    """How events are written to standard error."""

    format: Annotated[Literal["console", "json"], choice("console", "json")] = "console"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], choice("debug", "info", "warning", "error")
    ] = "info"


def _webhook(value: object, _: ValidationInfo) -> str:
    url = text(value)
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise Wrong("an address with a password in it", _BEARER)
    if _WEB.fullmatch(url) is None:
        raise Wrong(f"{quote(url)} is not an address", "write https://HOST/PATH")
    return url


class Alert(Section):
    """Who is told when health changes: ``webhook`` gets a POST with JSON, with ``token`` as bearer;
    ``command`` gets JSON on its standard input."""

    webhook: Annotated[str | None, optional(_webhook)] = None
    token: Annotated[Secret | None, PRESENT] = None
    command: OptionalPath = None
    timeout: Annotated[int | float, duration(1, 300), AS_DURATION] = 10


def _one_way(alert: Alert) -> Alert:
    if (alert.webhook is None) == (alert.command is None):
        raise Wrong('needs either "webhook" or "command"')
    if alert.token is not None:
        if alert.webhook is None:
            raise Wrong('"token" goes with "webhook" only')
        host = urlsplit(alert.webhook).hostname or ""
        if alert.webhook.startswith("http:") and host not in ("127.0.0.1", "::1", "localhost"):
            raise Wrong("a token over http: can be read on its way", "write https:")
        _one_place(alert.token)
    return alert


def _database(value: object) -> object:
    """``sqlite`` is the default."""
    if value == "sqlite":
        return None
    if isinstance(value, str):
        raise Wrong(
            f'must be "sqlite" or the place of a PostgreSQL URL, not {quote(value)}'
            if "://" not in value
            else "a URL holds a password, and does not stand here itself",
            "write {file: PATH} or {environment: NAME}",
        )
    return value


def _one_place_or_none(secret: Secret | None) -> Secret | None:
    return None if secret is None else _one_place(secret)


class Retry(Section):
    """When delivery is tried again after an error that may heal by itself."""

    steps: Annotated[tuple[int | float, ...], durations(1, 86400, most=16), AS_DURATIONS] = (
        60,
        120,
        240,
        480,
        600,
    )
    then: Annotated[int | float, duration(1, 86400), AS_DURATION] = 1800
    # Between two looks whether the vault answers.
    probe: Annotated[int | float, duration(1, 3600), AS_DURATION] = 15


class Daemon(Section):
    """Where the daemon keeps what it must remember, and how it is watched and spoken to.

    ``database``: None is SQLite in ``state``; else where the URL of a PostgreSQL database is.
    """

    state: FilePath = Field(examples=["./state"])
    api: Annotated[
        Api | None,
        AfterValidator(lambda api: api and _guarded(api)),
        BeforeValidator(_api),
        PRESENT,
    ] = None
    retry: Retry = Retry()
    log: Log = Log()
    alerts: Annotated[
        tuple[Annotated[Alert, AfterValidator(_one_way)], ...], Field(max_length=MAX_ALERTS)
    ] = ()
    database: Annotated[
        Secret | None, AfterValidator(_one_place_or_none), BeforeValidator(_database), PRESENT
    ] = None

    @property
    def api_socket(self) -> str:
        """The path of the API's Unix socket: what ``api`` says, or in the state folder, there
        also beside an address on the network."""
        return (self.api and self.api.socket) or f"{self.state}/api.sock"
