"""Each receiver has a queue of its own: one that is slow or gone holds up neither the daemon nor
the others, and its queue is bounded. What is dropped is the oldest, and the next alert says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from pipeline import logs
from pipeline.alerts.message import AlertMessage
from pipeline.alerts.receivers import NotTold, Receiver, receiver
from pipeline.config.service import Alert, Daemon
from pipeline.control.model import Health
from pipeline.health.calm import Change
from stages.errors import BackstayError, ConfigError
from stages.ports import Machine

QUEUE = 64  # alerts that wait for one receiver
PAUSES = (1.0, 5.0, 30.0, 120.0)  # seconds before an alert is tried again; then it is lost

_LEVELS: dict[Health, logs.Level] = {
    Health.NORMAL: "info",
    Health.WARNING: "warning",
    Health.CRITICAL: "error",
}


@dataclass
class _Channel:
    receiver: Receiver
    queue: deque[AlertMessage] = field(default_factory=deque)
    dropped: int = 0
    waits: trio.Event = field(default_factory=trio.Event)
    idle: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Alerts:
    """``tell`` from anywhere in the loop; ``run`` sends. ``host`` says which daemon it is."""

    def __init__(
        self,
        machine: Machine,
        host: str,
        make: Callable[[Alert, Machine, frozenset[str]], Receiver] = receiver,
    ):
        self._machine = machine
        self._host = host
        self._make = make
        self._channels: dict[Alert, _Channel] = {}
        self._nursery: trio.Nursery | None = None

    def configure(self, daemon: Daemon) -> None:
        """These receivers from now on; those that stay keep what waits for them."""
        wanted = dict.fromkeys(daemon.alerts)
        for alert in [alert for alert in self._channels if alert not in wanted]:
            self._channels.pop(alert).scope.cancel()
        hidden = _secret_variables(daemon)
        for alert in wanted:
            if alert not in self._channels:
                channel = _Channel(self._make(alert, self._machine, hidden))
                channel.idle.set()
                self._channels[alert] = channel
                if self._nursery is not None:
                    self._nursery.start_soon(self._send_all, channel)

    def tell(self, machine: str, change: Change) -> None:
        """Health has changed, of ``machine`` or, "", of the daemon. Never waits."""
        message = AlertMessage.of(machine, change, self._machine.clock.wall_us(), self._host)
        logs.event(
            "health",
            message.text,
            level=_LEVELS[change.after],
            machine=machine or None,
            before=str(change.before),
            after=str(change.after),
            reasons=" ".join(reason.code for reason in change.reasons),
        )
        for channel in self._channels.values():
            if len(channel.queue) >= QUEUE:
                channel.queue.popleft()
                channel.dropped += 1
            channel.queue.append(message)
            channel.idle = trio.Event()
            channel.waits.set()

    async def run(self) -> None:
        """For ever; its owner cancels it. What waits then is lost, after ``drain`` nothing."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for channel in self._channels.values():
                nursery.start_soon(self._send_all, channel)
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def drain(self, seconds: float) -> bool:
        """Wait until everybody was told, or has missed it; False if that takes longer."""
        with trio.move_on_after(seconds):
            for channel in list(self._channels.values()):
                await channel.idle.wait()
            return True
        return False

    async def _send_all(self, channel: _Channel) -> None:
        with channel.scope:
            while True:
                await channel.waits.wait()
                channel.waits = trio.Event()
                while channel.queue:
                    message = channel.queue.popleft().after_losses(channel.dropped)
                    if await self._send(channel.receiver, message):
                        channel.dropped -= message.dropped
                    else:
                        channel.dropped += 1
                channel.idle.set()

    async def _send(self, to: Receiver, message: AlertMessage) -> bool:
        for pause in (*PAUSES, None):
            try:
                await to.tell(message)
            except (NotTold, ConfigError) as error:
                self._complain(to, message, error, pause)
                if pause is None or not error.recoverable:
                    return False
                await self._machine.clock.sleep(pause)
            else:
                return True
        return False

    @staticmethod
    def _complain(
        to: Receiver, message: AlertMessage, error: BackstayError, pause: float | None
    ) -> None:
        lost = pause is None or not error.recoverable
        what = "an alert is lost" if lost else f"trying again in {pause:g} s"
        logs.warning(
            "alert.lost" if lost else "alert.again",
            f"alert: {to.name}: {error.message}; {what}",
            machine=message.machine or None,
        )


def _secret_variables(daemon: Daemon) -> frozenset[str]:
    secrets = [alert.token for alert in daemon.alerts] + [daemon.database]
    return frozenset(s.environment for s in secrets if s is not None and s.environment)
