"""The command line's side of the API: HTTP over a Unix socket or TLS, without anything heavy."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import click

from stages import errors
from stages.errors import BackstayError, ConfigError, UsageError

DEFAULT = "unix:./state/api.sock"
_SECONDS = 60.0
_STREAM_SECONDS = 45.0  # without a word, not even a heartbeat
_TRIES = 3  # of a request whose answer was lost
_MAX_ANSWER = 64 << 20
_MAX_LINE = 1 << 20


class DaemonGone(BackstayError):
    """Nobody answers where the daemon should be: it is tried again when it runs."""

    recoverable = True
    exit_code = 8


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float):
        super().__init__("backstay", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """See ``HTTPConnection``."""
        from pipeline.reach import reachable

        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with reachable(self._path) as name:
            self.sock.connect(name)


@dataclass(frozen=True, slots=True)
class Where:
    """Where the API is, and who asks. ``token_file``, ``ca``, ``cert``, ``cert_key``: paths."""

    api: str = DEFAULT
    token_file: str = ""
    ca: str = ""
    cert: str = ""
    cert_key: str = ""

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """Not connected yet. ``UsageError`` for an address that is none."""
        if self.api.startswith("unix:"):
            return _UnixConnection(self.api.removeprefix("unix:"), timeout)
        try:
            parts = urlsplit(self.api)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme != "https":
            raise UsageError(
                "not the address of an API",
                operation="--api",
                subject=self.api,
                hint=f"{DEFAULT}, or https://HOST:PORT",
            )
        return self._secure(host, port)

    def _secure(self, host: str, port: int | None) -> http.client.HTTPConnection:
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.cert_key or None)
        except OSError as error:
            raise ConfigError(
                f"a certificate or key cannot be used: {error.strerror or error}",
                operation="--ca, --cert, --cert-key",
                subject=str(error.filename or self.cert or self.ca),
                hint="PEM files that you may read: --ca of who signed, the others of your own",
            ) from error
        return http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=context)

    def headers(self) -> dict[str, str]:
        """Of every request."""
        if not self.token_file:
            return {}
        try:
            with click.open_file(self.token_file, encoding="utf-8") as file:
                token = file.read(4096).strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"the token cannot be read: {why}",
                operation="--token-file",
                subject=self.token_file,
                hint="give the path of a file that holds one line, the token",
            ) from error
        if not (token.isascii() and token.isprintable()):
            raise ConfigError("holds no token", operation="--token-file", subject=self.token_file)
        return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True, slots=True)
class Client:
    """Asks the daemon. Errors are those that it would raise itself, with its exit codes; or
    ``DaemonGone``."""

    where: Where

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """What is at ``path``."""
        shown = {name: value for name, value in query.items() if value not in (None, "", 0, False)}
        words = urlencode(shown)
        with self._asked("GET", f"{path}?{words}" if words else path) as response:
            return _fields(response)

    def post(self, path: str, body: Mapping[str, Any], key: str = "") -> dict[str, Any]:
        """Ask for a change. With a ``key`` the request is sent again if its answer was lost:
        it begins nothing a second time."""
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        data = json.dumps(body).encode()
        for last in (*[False] * (_TRIES - 1 if key else 0), True):
            try:
                with self._asked("POST", path, data, headers) as response:
                    return _fields(response)
            except DaemonGone:
                if last:
                    raise
        raise AssertionError

    def events(self, after: int | None, machine: str = "") -> Iterator[dict[str, Any]]:
        """Events as they happen; when the daemon hangs up, ``DaemonGone``."""
        query = {"after": after, "machine": machine}
        words = urlencode({name: value for name, value in query.items() if value not in (None, "")})
        path = f"/v1/events/stream?{words}" if words else "/v1/events/stream"
        with self._asked("GET", path, timeout=_STREAM_SECONDS) as response:
            kind = ""
            while line := response.readline(_MAX_LINE).decode("utf-8", "replace"):
                name, _, value = line.rstrip("\n").partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and kind == "cut-off":
                    raise as_error(json.loads(value))
                elif name == "data":
                    yield json.loads(value)
            raise _gone(self.where.api, "it hung up")

    @contextmanager
    def _asked(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = _SECONDS,
    ) -> Iterator[http.client.HTTPResponse]:
        with closing(self.where.connect(timeout)) as connection:
            try:
                asked = {**self.where.headers(), **(headers or {})}
                connection.request(method, path, data, asked)
                response = connection.getresponse()
                if response.status >= 400:
                    raise as_error(_fields(response))
                yield response
            except (OSError, http.client.HTTPException) as error:
                why = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise _gone(
                    self.where.api, why, forbidden=isinstance(error, PermissionError)
                ) from error


def _fields(response: http.client.HTTPResponse) -> dict[str, Any]:
    data = response.read(_MAX_ANSWER)
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BackstayError(
            f"what answers is not Backstay (HTTP {response.status})", operation="ask the daemon"
        )
    return found


def _gone(api: str, why: str, *, forbidden: bool = False) -> DaemonGone:
    return DaemonGone(
        f"the daemon {'may not be asked' if forbidden else 'does not answer'}: {why}",
        operation="ask the daemon",
        subject=api,
        hint="give this command as the user that runs the daemon, or as root"
        if forbidden
        else "start it with 'backstay run CONFIG'; or say with --api where it is",
    )


def as_error(problem: Mapping[str, Any]) -> BackstayError:
    """The error that a problem document tells of, as it was raised there."""
    name, code = str(problem.get("error", "")), problem.get("exit_code")
    kind: Any = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, BackstayError) and kind.exit_code == code):
        usable = code if isinstance(code, int) and code in errors.EXIT_CODES and code else 1
        again = {"exit_code": usable, "recoverable": bool(problem.get("recoverable"))}
        kind = type(name if name.isidentifier() else "BackstayError", (BackstayError,), again)
    lines = problem.get("stake") or []
    made: BackstayError = kind(
        "\n  ".join([str(problem.get("detail", "")), *map(str, lines)]),
        operation=str(problem.get("operation", "")),
        subject=str(problem.get("subject", "")),
        hint=str(problem.get("hint", "")),
    )
    return made


_OPTIONS = (
    ("--api", "api", "BACKSTAY_API", DEFAULT, "Where the daemon's API is: unix:PATH or https://…"),
    ("--token-file", "token_file", "BACKSTAY_TOKEN_FILE", "", "File with a bearer token."),
    ("--ca", "ca", "BACKSTAY_CA", "", "PEM file of who signed the daemon's certificate."),
    ("--cert", "cert", "BACKSTAY_CERT", "", "PEM file of a client certificate."),
    ("--cert-key", "cert_key", "BACKSTAY_CERT_KEY", "", "PEM file of its key."),
)


def api_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where the API is; the command gets a ``client``."""

    def call(**arguments: Any) -> Any:
        given = {name: arguments.pop(name) for _, name, *_ in _OPTIONS}
        return command(client=Client(Where(**given)), **arguments)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__dict__.update(command.__dict__)  # what other decorators left on it
    for flag, name, variable, default, said in reversed(_OPTIONS):
        call = click.option(
            flag, name, envvar=variable, default=default, help=said, show_envvar=True
        )(call)
    return call


def is_served(path: str) -> bool:
    """Somebody listens on the Unix socket at ``path``."""
    from pipeline.reach import reachable

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            with reachable(os.path.abspath(path)) as name:  # noqa: PTH100 - no links are followed
                probe.connect(name)
        except OSError:
            return False
    return True
