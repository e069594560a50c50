"""Where the API listens, and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP listener with TLS, never without. ``port`` 0 takes a free one.

    ``certificate`` and ``key`` are PEM files. ``client_ca``: PEM file of whoever may sign clients'
    certificates; without it only bearer tokens are known. ``access``: who may do what, see
    ``pipeline.api.access``.
    """

    host: str
    port: int
    certificate: str
    key: str
    access: str
    client_ca: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, numbers and seconds that nobody outside can make larger."""

    body: int = 64 << 10
    connections: int = 256  # of each listener
    followers: int = 32
    page: int = 1000
    request_seconds: float = 30.0  # for a request's body to arrive
    send_seconds: float = 30.0  # for a client to take what it is sent
    idle_seconds: float = 60.0
    heartbeat_seconds: float = 15.0
    remembered: int = 1000  # requests with an Idempotency-Key
    refusals_a_minute: int = 60  # audited ones of callers that are not known


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """``unix``: path of a Unix socket, "" for none; whoever can open it is an approver."""

    unix: str = ""
    tcp: Tcp | None = None
    limits: Limits = field(default_factory=Limits)
