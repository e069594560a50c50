"""The parent: starts intake or takes a running one over, keeps delivery alive, and stops both.

Intake is a session of its own and survives its parent; delivery ends with it. What ends by itself is
started again, after 0.1 s and twice as long each time up to 10 s, from the beginning once it has
stayed up for a minute.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from pipeline.config.model import Config
from pipeline.daemon.intake_main import SOCKET, machines_of
from pipeline.daemon.link_client import IntakeGone, command
from pipeline.state import StateFolder
from stages import errors
from stages.errors import BackstayError, IllegalOperation, StateLocked
from stages.ports import Machine

FIRST, MOST, STEADY = 0.1, 10.0, 60.0  # seconds
_LINE = 1 << 20
_NOTE_SECONDS = 5.0
_LOG = 1 << 20  # bytes kept of what an intake says on its standard error

Tell = Callable[[str], None]


@dataclass
class Parent:
    """``tell`` hears one line for each event; ``drain`` seconds bound the end."""

    ports: Machine
    config: Config
    state: StateFolder
    tell: Tell
    drain: float
    stopping: trio.Event = field(default_factory=trio.Event)
    _delivery: trio.Process | None = None
    _noted: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises what keeps intake from starting."""
        await self._begin_intake()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._signals)
            nursery.start_soon(self._keep_intake)
            nursery.start_soon(self._keep_delivery)
            await self.stopping.wait()
            await self._stop()
            nursery.cancel_scope.cancel()

    @property
    def socket(self) -> str:
        """Where intake listens for us."""
        return f"{self.state.path}/{SOCKET}"

    async def _signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                self.stopping.set()

    # intake

    async def _begin_intake(self) -> None:
        """Take a running intake over, or start one."""
        try:
            status = await command(self.socket, "status")
        except IntakeGone:
            await self._start_intake()
            return
        if status["config"] != machines_of(self.config):
            raise IllegalOperation(
                "intake is running with other disks",
                operation="run",
                subject=self.config.source,
                hint=f"run it with the old config and stop it, or end process {status['pid']} "
                "with SIGTERM: its clients are disconnected then",
            )
        self.tell(f"intake: running already (process {status['pid']}), taken over")
        for name, found in status["machines"].items():
            self._say_disks(name, found["disks"])

    async def _start_intake(self) -> None:
        log = Path(self.state.path, "intake.log")
        complaints = await trio.to_thread.run_sync(_open_log, log)
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "pipeline.daemon.intake_main", self.config.source],
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
        self._started(process.pid, bytes(said), log)

    def _started(self, pid: int, said: bytes, log: Path) -> None:
        try:
            fields = json.loads(said)
        except ValueError:
            raise BackstayError(
                "intake ended before it served", operation="run", hint=f"see {log}"
            ) from None
        if "error" in fields:
            kind = getattr(errors, fields["error"], BackstayError)
            operation, subject = fields["where"]
            raise kind(fields["message"], operation=operation, subject=subject, hint=fields["hint"])
        self.tell(f"intake: serving (process {pid})")
        for name, uris in fields["serves"].items():
            self._say_disks(name, uris)
        for name, reasons in fields["compared"].items():
            for reason in reasons:
                self.tell(f"{name}: {reason}")

    def _say_disks(self, name: str, uris: dict[str, str]) -> None:
        for disk, uri in uris.items():
            self.tell(f"{name}/{disk}: {uri}")

    async def _keep_intake(self) -> None:
        """Look whether it is still there: it is not always our child."""
        wait = FIRST
        while True:
            await self.ports.clock.sleep(1.0)
            try:
                await command(self.socket, "status")
            except IntakeGone:
                pass
            else:
                wait = FIRST
                continue
            if self.stopping.is_set():
                return
            self.tell(f"intake: gone; starting it again in {wait:g} s")
            await self.ports.clock.sleep(wait)
            wait = min(2 * wait, MOST)
            try:
                await self._start_intake()
            except StateLocked:
                continue  # it is only slow to answer
            except BackstayError as error:
                self.tell(f"intake: {error}")

    # delivery

    async def _keep_delivery(self) -> None:
        wait = FIRST
        while True:
            began = self.ports.clock.monotonic()
            code = await self._one_delivery()
            if self.stopping.is_set():
                return
            if self.ports.clock.monotonic() - began >= STEADY:
                wait = FIRST
            self.tell(f"delivery: ended ({code}); starting it again in {wait:g} s")
            await self.ports.clock.sleep(wait)
            wait = min(2 * wait, MOST)

    async def _one_delivery(self) -> int:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "pipeline.daemon.delivery_main", self.config.source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._delivery = process
        assert process.stdout is not None  # noqa: S101
        try:
            said = bytearray()
            async with process.stdout:
                while data := await process.stdout.receive_some(65536):
                    said += data
                    *lines, rest = said.split(b"\n")
                    for line in lines:
                        await self._heard(bytes(line))
                    said = bytearray(rest[:_LINE])
            return await process.wait()
        finally:
            self._delivery = None
            if process.returncode is None:
                process.kill()

    async def _heard(self, line: bytes) -> None:
        """What delivery says of a machine is kept for ``status``; commits are not told."""
        try:
            fields: dict[str, Any] = json.loads(line)
            name, state = str(fields["machine"]), str(fields["state"])
        except (ValueError, KeyError, TypeError):
            return
        if name not in self.config.machines:
            return
        fields["at"] = self.ports.clock.wall_us()
        try:
            await self._keep(name, state, fields)
        except BackstayError as error:
            self.tell(f"{name}: {error}")
        if state in ("failed", "waiting"):
            again = fields.get("again_in")
            when = f"; again in {again:g} s" if again else ""
            self.tell(f"{name}: {fields['message']}{when}")
            if fields.get("hint"):
                self.tell(f"  hint: {fields['hint']}")

    async def _keep(self, name: str, state: str, fields: dict[str, Any]) -> None:
        """A note for ``status``; of commits one in a while, since each is an fsync."""
        if state == "committed":
            now = self.ports.clock.monotonic()
            if now - self._noted.get(name, -_NOTE_SECONDS) < _NOTE_SECONDS:
                return
            self._noted[name] = now
        note = f"machines/{name}/delivery"
        await trio.to_thread.run_sync(self.state.note, note, fields)
        if fields.get("consistent"):
            await trio.to_thread.run_sync(self.state.note, f"machines/{name}/last-point", fields)

    # the end

    async def _stop(self) -> None:
        """Guests first: everything flushed; then ship what is durable, for a while."""
        self.tell("stopping: no more writes are taken, what was taken is shipped")
        with trio.move_on_after(self.drain) as waited:
            try:
                await command(self.socket, "stop")
            except IntakeGone:
                self.tell("intake: gone already")
            if self._delivery is not None and self._delivery.stdin is not None:
                await self._delivery.stdin.send_all(b"drain\n")
                while self._delivery is not None:
                    await self.ports.clock.sleep(0.05)
        if waited.cancelled_caught:
            self.tell("not all was shipped in time: the journal keeps the rest for the next start")
        try:
            with trio.move_on_after(5):
                await command(self.socket, "end")
        except IntakeGone:
            pass
        self.tell("stopped")


def _open_log(path: Path) -> int:
    """What intake complains of, begun anew when it has become long."""
    if path.exists() and path.stat().st_size > _LOG:
        path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


async def run_daemon(
    ports: Machine, config: Config, state: StateFolder, tell: Tell, *, drain: float
) -> None:
    """See ``Parent``."""
    await Parent(ports, config, state, tell, drain).run()
