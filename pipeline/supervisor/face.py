"""The supervisor's API, as the configuration says where. Trouble with it never touches protection:
it is told, and tried again."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.api.guard import Audit
from pipeline.api.settings import ApiSettings, Tcp
from pipeline.config.model import Config
from pipeline.control.service import Control
from pipeline.daemon.child import Tell
from stages.errors import BackstayError, ConfigError
from stages.ports import Clock

_AGAIN_SECONDS = 30.0


async def serve_face(
    control: Control, config: Callable[[], Config], audit: Audit, tell: Tell, clock: Clock
) -> None:
    """Serve until cancelled."""
    from pipeline.api.server import serve_api  # half a second, which intake need not wait for

    while True:
        try:
            settings = settings_of(config())
            tell(f"api: {' and '.join(addresses_of(settings))}")
            await serve_api(control, settings, audit)
        except BackstayError as error:
            tell(f"api: not served: {error}" + (f" ({error.hint})" if error.hint else ""))
        await clock.sleep(_AGAIN_SECONDS)


def settings_of(config: Config) -> ApiSettings:
    """What the configuration says. ``ConfigError`` for what cannot be served."""
    api, socket = config.daemon.api, config.daemon.api_socket
    if api is None or api.socket:
        return ApiSettings(unix=socket)
    if api.tls is None:
        raise ConfigError(
            "an address on the network is served with TLS only",
            operation="serve API",
            subject=api.listen,
            hint="write tls: {cert: …, key: …} beside it, or listen on unix:PATH",
        )
    host, _, port = api.listen.rpartition(":")
    return ApiSettings(
        unix=socket,
        tcp=Tcp(
            host.strip("[]"),
            int(port),
            api.tls.cert,
            api.tls.key,
            api.tokens or "",
            api.tls.client_ca or "",
        ),
    )


def addresses_of(settings: ApiSettings) -> list[str]:
    """Where it is reached."""
    found = [f"unix:{settings.unix}"] if settings.unix else []
    if settings.tcp is not None:
        found.append(f"https://{settings.tcp.host}:{settings.tcp.port}")
    return found
