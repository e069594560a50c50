"""The intake process as the supervisor keeps it: taken over or started, started again, stopped.

Intake is a session of its own and survives the supervisor. It is asked how its machines are once a
second; that is also how the supervisor sees that it is still there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from pipeline.config.model import Config
from pipeline.daemon import lock
from pipeline.daemon.child import Restarts, Tell
from pipeline.daemon.link_client import IntakeGone, as_error
from pipeline.daemon.link_client import command as send
from pipeline.daemon.names import INTAKE_LOCK, INTAKE_SOCKET
from pipeline.state import StateFolder
from stages.errors import BackstayError, IllegalOperation, StateLocked
from stages.ports import Machine

_LOOK_SECONDS = 1.0  # between two looks how it is
_LOOK_SHARE = 0.002  # more for each machine: looks cost both sides time
_ANSWER_SECONDS = 15.0
_END_SECONDS = 30.0
_POLL_SECONDS = 0.05
_LINE = 1 << 20
_LOG = 1 << 20  # bytes kept of what intake says on its standard error

Looked = Callable[[float, Mapping[str, Any] | None], None]
"""Hears the rows of all machines and when intake was asked (monotonic); None: it is not there."""


class IntakeKeeper:
    """``tell`` hears one line for each event. ``vouched``: disks (MACHINE/DISK) that nobody has
    written to since the last stop, says the operator. Implements ``Capturing``."""

    def __init__(
        self,
        ports: Machine,
        config: Config,
        state: StateFolder,
        tell: Tell,
        looked: Looked,
        vouched: Sequence[str] = (),
    ):
        self.config = config
        self.pid: int | None = None
        self._ports = ports
        self._state = state
        self._tell = tell
        self._looked = looked
        self._vouched = tuple(vouched)
        self._socket = f"{state.path}/{INTAKE_SOCKET}"
        self._process: trio.Process | None = None  # the one that this process started last
        self._hangs = False
        self._stopping = trio.Event()

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """``IntakeGone``, or the command's error."""
        return await send(self._socket, command, **arguments)

    async def begin(self) -> None:
        """Take a running intake over, or start one. Raises what keeps it from starting."""
        try:
            status = await self.ask("status")
        except IntakeGone:
            await self._start()
            return
        if status["stopping"]:
            self._tell(f"intake: waiting for process {status['pid']} to end")
            await self.end()
            await self._start()
            return
        self._may_take_over(status)
        for name, found in status["machines"].items():
            self._say_disks(name, found["disks"])
        self.pid = status["pid"]
        self._tell(f"intake: running already (process {self.pid}), taken over")
        said, later = await self.reload()
        for line in (*said, *later):
            self._tell(line)

    def _may_take_over(self, status: dict[str, Any]) -> None:
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

    async def reload(self) -> tuple[list[str], list[str]]:
        """Have intake take the configuration as it is now; for people what is new, and what it
        will only take when it is started again."""
        answer = await self.ask("reload", config=self.config.source)
        later = [
            f"{name}: the journal's settings change when intake is started again"
            for name in answer["later"]
        ]
        return answer["said"], later

    async def keep(self) -> None:
        """Look how it is, for ever; start it again when it is gone."""
        restarts = Restarts()
        began = self._ports.clock.monotonic()
        while True:
            if await self._look():
                many = _LOOK_SHARE * len(self.config.machines)
                await self._ports.clock.sleep(_LOOK_SECONDS + many)
                continue
            wait = restarts.after(self._ports.clock.monotonic() - began)
            if self._stopping.is_set():
                return
            self._tell(f"intake: gone; starting it again in {wait:g} s")
            await self._ports.clock.sleep(wait)
            if self._stopping.is_set():
                return
            try:
                await self._start()
            except StateLocked:
                await self._ports.clock.sleep(_LOOK_SECONDS)  # it is only slow to answer
            except BackstayError as error:
                self._tell(f"intake: {error}")
            else:
                began = self._ports.clock.monotonic()

    def stopping(self) -> None:
        """It is not started again from now on."""
        self._stopping.set()

    async def end(self) -> None:
        """Return when it is not there any more, and another may start."""
        try:
            while True:
                await self.ask("end")
                await self._ports.clock.sleep(_POLL_SECONDS)
        except IntakeGone:
            pass
        while not lock.is_free(self._ports.files, f"{self._state.path}/{INTAKE_LOCK}"):
            await self._ports.clock.sleep(_POLL_SECONDS)
        await self._reaped()

    async def _look(self) -> bool:
        at = self._ports.clock.monotonic()
        status: dict[str, Any] | None = None
        try:
            with trio.move_on_after(_ANSWER_SECONDS):
                status = await self.ask("status")
        except IntakeGone:
            if self._process is not None:
                self._process.poll()  # if it was our child, it is buried
            self.pid = None
            self._looked(at, None)
            return False
        if status is None:  # it hangs, with the disks of its guests: to end it helps nobody
            self._looked(at, None)
            if not self._hangs:
                self._tell(f"intake: does not answer (process {self.pid})")
            self._hangs = True
            return True
        self._hangs = False
        self.pid = status["pid"]
        self._looked(at, status["machines"])
        return True

    async def _start(self) -> None:
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
        self._process = process
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
        self.pid = pid
        self._tell(f"intake: serving (process {pid})")
        for name, reasons in fields["compared"].items():
            for reason in reasons:
                self._tell(f"{name}: {reason}")

    def _say_disks(self, name: str, uris: dict[str, str]) -> None:
        for disk, uri in uris.items():
            self._tell(f"{name}/{disk}: {uri}")

    async def _reaped(self) -> None:
        """Wait for the end of the intake that this process started, if it did."""
        if self._process is not None:
            with trio.move_on_after(_END_SECONDS):
                await self._process.wait()


def _open_log(path: Path) -> int:
    """What intake complains of, begun anew when it has become long."""
    if path.exists() and path.stat().st_size > _LOG:
        path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
