"""Who is told: a webhook over HTTP, or a command."""

from __future__ import annotations

import os
import ssl
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

import trio

from pipeline.alerts.message import AlertMessage
from pipeline.commands import run_command
from pipeline.config.service import Alert
from pipeline.credential import read_secret
from stages.errors import BackstayError
from stages.ports import Machine


class NotTold(BackstayError):
    """An alert did not reach its receiver; it may the next time."""

    recoverable = True


class Refused(NotTold):
    """It never will, as it is."""

    recoverable = False


class Receiver(Protocol):
    """``name`` may be shown."""

    name: str

    async def tell(self, message: AlertMessage) -> None:
        """Once. Raises ``NotTold`` or ``ConfigError``."""


class Webhook:
    """POSTs JSON. The path of an address is a secret as a rule, and is not shown.

    The server's certificate is checked against the system's; redirects are not followed, so that
    the token goes nowhere else.
    """

    def __init__(self, alert: Alert, machine: Machine, context: ssl.SSLContext | None = None):
        self._alert = alert
        self._machine = machine
        self._url = alert.webhook or ""
        self._context = context
        found = urlsplit(self._url)
        self.name = f"{found.scheme}://{found.hostname}" + (f":{found.port}" if found.port else "")

    async def tell(self, message: AlertMessage) -> None:
        """See ``Receiver``."""
        import httpx  # a fifth of the supervisor's start, for those who have a webhook

        headers = {"Content-Type": "application/json", "User-Agent": "backstay"}
        if self._alert.token is not None:
            look = partial(read_secret, self._alert.token, self._machine.files)
            headers["Authorization"] = f"Bearer {await self._machine.offload.run(look)}"
        if self._context is None:
            self._context = await self._machine.offload.run(ssl.create_default_context)
        timeout = float(self._alert.timeout)
        try:
            with trio.fail_after(timeout):
                async with (
                    httpx.AsyncClient(verify=self._context, timeout=timeout) as client,
                    client.stream(
                        "POST", self._url, content=message.body(), headers=headers
                    ) as answer,
                ):
                    status = answer.status_code  # what it says beside that is not read
        except trio.TooSlowError:
            raise _failed(f"no answer within {timeout:g} s", self.name) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # The text of an error may hold the address.
            reason = type(error).__name__
            raise _failed(f"cannot be reached: {reason}", self.name) from None
        if 200 <= status < 300:
            return
        again = status >= 500 or status in (408, 425, 429)
        raise _failed(f"answered with status {status}", self.name, again=again)


class Command:
    """Runs an executable with JSON on its standard input, and the essence in its environment."""

    def __init__(self, alert: Alert, hidden: frozenset[str] = frozenset()):
        self.name = alert.command or ""
        self._timeout = float(alert.timeout)
        self._hidden = hidden  # variables that hold secrets

    async def tell(self, message: AlertMessage) -> None:
        """See ``Receiver``."""
        inherited = {key: value for key, value in os.environ.items() if key not in self._hidden}
        try:
            with trio.fail_after(self._timeout):
                code, said = await run_command(
                    self.name, inherited | dict(message.environment()), message.body()
                )
        except trio.TooSlowError:
            took = f"took longer than {self._timeout:g} s and was ended"
            raise _failed(took, self.name) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise _failed(f"cannot be run: {reason}", self.name, again=False) from None
        if code:
            raise _failed(f"failed with exit code {code}: {said}", self.name)


def _failed(message: str, subject: str, *, again: bool = True) -> NotTold:
    return (NotTold if again else Refused)(message, operation="alert", subject=subject)


def receiver(alert: Alert, machine: Machine, hidden: frozenset[str] = frozenset()) -> Receiver:
    """The one that the configuration names."""
    return Command(alert, hidden) if alert.command is not None else Webhook(alert, machine)
