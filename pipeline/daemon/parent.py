"""The parent: starts intake or takes a running one over, keeps delivery alive, and stops both.

Intake is a session of its own and survives its parent; delivery ends with it. What ends by itself
is started again, after 0.1 s and twice as long each time up to 10 s, from the beginning once it has
stayed up for a minute. SIGTERM and SIGINT stop both in order, a second one does not wait for
delivery; SIGHUP reads the configuration again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from pipeline.config import load
from pipeline.config.model import Config
from pipeline.daemon import lock
from pipeline.daemon.child import DeliveryChild, Restarts, Tell
from pipeline.daemon.intake_main import LOCK, SOCKET
from pipeline.daemon.link_client import IntakeGone, as_error, command
from pipeline.state import StateFolder
from stages.errors import BackstayError, ConfigError, IllegalOperation, StateLocked
from stages.ports import Machine
from stages.stage import Signal, crew

_LOOK_SECONDS = 1.0  # between two looks whether intake is still there
_STOP_SECONDS = 120.0  # for guests to be flushed; intake has bounds of its own below this
_END_SECONDS = 30.0
_POLL_SECONDS = 0.05
_LINE = 1 << 20
_LOG = 1 << 20  # bytes kept of what an intake says on its standard error


class Parent:
    """``tell`` hears one line for each event; ``drain`` seconds bound the end. ``vouched``: disks
    (MACHINE/DISK) that nobody has written to since the last stop, says the operator."""

    def __init__(
        self,
        ports: Machine,
        config: Config,
        state: StateFolder,
        tell: Tell,
        drain: float,
        vouched: Sequence[str] = (),
    ):
        self.config = config
        self._vouched = tuple(vouched)
        self._reloads = Signal()
        self._ports = ports
        self._state = state
        self._tell = tell
        self._drain = drain
        self._socket = f"{state.path}/{SOCKET}"
        self._delivery = DeliveryChild(ports, config, state, tell)
        self._stopping = trio.Event()
        self._hurried = trio.CancelScope()
        self._intake: trio.Process | None = None  # the one that this process started last

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises what keeps intake from starting."""
        async with crew() as nursery:
            await nursery.start(self._signals)
            await self._begin_intake()
            nursery.start_soon(self._keep_intake)
            nursery.start_soon(self._delivery.run)
            nursery.start_soon(self._keep_config)
            await self._stopping.wait()
            await self._stop()
            nursery.cancel_scope.cancel()

    async def _signals(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self._reloads.set()
                elif self._stopping.is_set():
                    self._hurried.cancel()
                else:
                    self._stopping.set()

    # intake

    async def _begin_intake(self) -> None:
        """Take a running intake over, or start one."""
        try:
            status = await command(self._socket, "status")
        except IntakeGone:
            await self._start_intake()
            return
        if status["stopping"]:
            self._tell(f"intake: waiting for process {status['pid']} to end")
            await self._end_intake()
            await self._start_intake()
            return
        if status["source"] != self.config.source:
            raise IllegalOperation(
                f"intake is running with {status['source']}",
                operation="run",
                subject=self.config.source,
                hint="run it with that one and stop it, or end process "
                f"{status['pid']} with SIGTERM: its clients are disconnected then",
            )
        if self._vouched:
            raise IllegalOperation(
                f"intake is running (process {status['pid']}): its disks were not detached",
                operation="run --unchanged",
                subject=", ".join(self._vouched),
                hint="run it without --unchanged",
            )
        for name, found in status["machines"].items():
            self._say_disks(name, found["disks"])
        self._tell(f"intake: running already (process {status['pid']}), taken over")
        answer = await self._ask_reload()
        for line in answer["said"]:
            self._tell(line)
        self._say_later(answer["later"])

    async def _ask_reload(self) -> dict[str, list[str]]:
        """Have intake take the configuration as it is now."""
        return await command(self._socket, "reload", config=self.config.source)

    async def _start_intake(self) -> None:
        vouched, self._vouched = self._vouched, ()  # for one start only
        log = Path(self._state.path, "intake.log")
        complaints = await trio.to_thread.run_sync(_open_log, log)
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "pipeline.daemon.intake_main", self.config.source, *vouched],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                start_new_session=True,
            )
        finally:
            os.close(complaints)
        assert process.stdout is not None  # noqa: S101
        said = bytearray()
        async with process.stdout:
            while b"\n" not in said and len(said) < _LINE:
                data = await process.stdout.receive_some(65536)
                if not data:
                    break
                said += data
        self._intake = process
        try:
            self._started(process.pid, bytes(said), log)
        except BackstayError:
            await self._reaped()  # it ends, having said why
            raise

    def _started(self, pid: int, said: bytes, log: Path) -> None:
        try:
            fields = json.loads(said)
        except ValueError:
            raise BackstayError(
                "intake ended before it served", operation="run", hint=f"see {log}"
            ) from None
        if "error" in fields:
            operation, subject = fields["where"]
            raise as_error(fields["error"], fields["message"], operation, subject, fields["hint"])
        for name, uris in fields["serves"].items():
            self._say_disks(name, uris)
        for name, closed in fields["closed"].items():
            self._tell(f"{name}: its listeners stay closed: {closed['message']}")
            self._tell(f"{name}: {closed['hint']}")
        self._tell(f"intake: serving (process {pid})")
        for name, reasons in fields["compared"].items():
            for reason in reasons:
                self._tell(f"{name}: {reason}")

    def _say_disks(self, name: str, uris: dict[str, str]) -> None:
        for disk, uri in uris.items():
            self._tell(f"{name}/{disk}: {uri}")

    async def _keep_intake(self) -> None:
        """Look whether it is still there: it is not always our child."""
        restarts = Restarts()
        began = self._ports.clock.monotonic()
        while True:
            await self._ports.clock.sleep(_LOOK_SECONDS)
            if await self._is_there():
                continue
            wait = restarts.after(self._ports.clock.monotonic() - began)
            if self._stopping.is_set():
                return
            self._tell(f"intake: gone; starting it again in {wait:g} s")
            await self._ports.clock.sleep(wait)
            if self._stopping.is_set():
                return
            try:
                await self._start_intake()
            except StateLocked:
                continue  # it is only slow to answer
            except BackstayError as error:
                self._tell(f"intake: {error}")
            else:
                began = self._ports.clock.monotonic()

    async def _is_there(self) -> bool:
        try:
            await command(self._socket, "status")
        except IntakeGone:
            if self._intake is not None:
                self._intake.poll()  # if it was our child, it is buried
            return False
        return True

    async def _reaped(self) -> None:
        """Wait for the end of the intake that this process started, if it did."""
        if self._intake is not None:
            with trio.move_on_after(_END_SECONDS):
                await self._intake.wait()

    # another configuration

    async def _keep_config(self) -> None:
        """Beside everything else: a disk that goes has clients to be waited for."""
        while True:
            await self._reloads.wait()
            await self._reload()

    async def _reload(self) -> None:
        """A wrong one changes nothing."""
        answer: dict[str, list[str]] = {"later": [], "said": []}
        try:
            config = await trio.to_thread.run_sync(load, self.config.source)
            if config.daemon.state != self.config.daemon.state:
                raise IllegalOperation("daemon.state is another", operation="reload")
            answer = await self._ask_reload()
        except IntakeGone as gone:
            self._tell(f"reload: {gone}: it is what it will be started with")
        except BackstayError as error:
            text = error.message if isinstance(error, ConfigError) else str(error)
            self._tell(f"reload: nothing is changed: {text}")
            if error.hint:
                self._tell(f"  hint: {error.hint}")
            return
        self.config = config
        for line in answer["said"]:
            self._tell(line)
        await self._delivery.renew(config)
        self._tell("reload: done")
        self._say_later(answer["later"])

    def _say_later(self, names: Sequence[str]) -> None:
        for name in names:
            self._tell(f"{name}: the journal's settings change when intake is started again")

    # the end

    async def _stop(self) -> None:
        """Guests first: everything flushed; then ship what is durable, for a while."""
        self._tell("stopping: no more writes are taken, what was taken is shipped")
        try:
            with trio.move_on_after(_STOP_SECONDS):
                await command(self._socket, "stop")
        except IntakeGone:
            self._tell("intake: gone already")
        shipped = False
        with self._hurried, trio.move_on_after(self._drain):
            shipped = await self._delivery.drain()
        if not shipped:
            self._tell("not all was shipped: the journal keeps the rest for the next start")
        with trio.move_on_after(_END_SECONDS):
            await self._end_intake()
        self._tell("stopped")

    async def _end_intake(self) -> None:
        """Return when it is not there any more, and another may start."""
        try:
            while True:
                await command(self._socket, "end")
                await self._ports.clock.sleep(_POLL_SECONDS)
        except IntakeGone:
            pass
        while not lock.is_free(self._ports.files, f"{self._state.path}/{LOCK}"):
            await self._ports.clock.sleep(_POLL_SECONDS)
        await self._reaped()


def _open_log(path: Path) -> int:
    """What intake complains of, begun anew when it has become long."""
    if path.exists() and path.stat().st_size > _LOG:
        path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


async def run_daemon(
    ports: Machine,
    config: Config,
    state: StateFolder,
    tell: Tell,
    *,
    drain: float,
    vouched: Sequence[str] = (),
) -> None:
    """See ``Parent``."""
    await Parent(ports, config, state, tell, drain, vouched).run()
