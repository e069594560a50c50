"""The delivery process as the supervisor keeps it: started, started again, drained.

What it says of a machine is kept as a note, for ``status``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from pipeline import logs
from pipeline.config.model import Config
from pipeline.daemon.orders import DRAIN, Order, encode, encode_begin
from pipeline.state import StateFolder
from stages.errors import BackstayError
from stages.ports import Machine
from stages.stage import Signal, crew

FIRST, MOST, STEADY = 0.1, 10.0, 60.0  # seconds
_LINE = 1 << 20
_NOTE_SECONDS = 5.0

Tell = Callable[[str], None]


class Restarts:
    """How long to wait before what ended by itself is started again: twice as long each time, from
    the beginning once it has stayed up. Pure."""

    def __init__(self) -> None:
        self._next = FIRST

    def after(self, lasted: float) -> float:
        """Seconds to wait, after a life of ``lasted`` seconds."""
        wait = FIRST if lasted >= STEADY else self._next
        self._next = min(2 * wait, MOST)
        return wait


Hear = Callable[[str, dict[str, Any]], None]
"""Hears what delivery says of a machine, by its name."""


HearVault = Callable[[int, str, dict[str, Any]], None]
"""Hears what a life of delivery (by its number) says of a vault, by its name."""


def _deaf(*_: Any) -> None:
    """Nobody wants to know."""


class DeliveryChild:
    """``tell`` hears one line for each event, ``hear`` all that is said of machines, ``hear_vault``
    of vaults. ``run`` it; cancelled, it kills the process. Machines that are ``paused`` are left
    alone."""

    def __init__(
        self,
        ports: Machine,
        config: Config,
        state: StateFolder,
        tell: Tell,
        hear: Hear = _deaf,
        hear_vault: HearVault = _deaf,
    ):
        self.config = config
        self._ports = ports
        self._state = state
        self._tell = tell
        self._hear = hear
        self._hear_vault = hear_vault
        self._lives = 0
        self._paused: set[str] = set()
        self._at_once = False  # the next life does not go on waiting
        self._process: trio.Process | None = None
        self._renewing = False
        self._draining = trio.Event()
        self._hurry = trio.Event()  # do not wait before it is started again
        self._told = False  # to drain, in this life
        self._shipped = False
        self._ended = trio.Event()
        self._saying = trio.Lock()
        self._pending: dict[str, dict[str, Any]] = {}  # notes by path, not yet kept
        self._shown: dict[str, tuple[str, Any]] = {}  # state and consistency, by machine
        self._kept_at = -_NOTE_SECONDS
        self._changed = Signal()
        self._restarts = Restarts()

    async def run(self) -> None:
        """Keep it running, until it is drained."""
        async with crew() as nursery:
            nursery.start_soon(self._keep_notes)
            await self._keep_running()
            await self._keep()
            nursery.cancel_scope.cancel()

    async def _keep_running(self) -> None:
        while True:
            began = self._ports.clock.monotonic()
            code = await self._life()
            if self._renewing:
                self._renewing = False
                continue
            if self._told:
                self._shipped = code == 0
                self._ended.set()
                return
            if self._draining.is_set():
                continue
            wait = self._restarts.after(self._ports.clock.monotonic() - began)
            self._tell(f"delivery: ended ({code}); starting it again in {wait:g} s")
            self._hurry = trio.Event()
            with trio.move_on_after(wait):
                await self._hurry.wait()

    async def renew(self, config: Config) -> None:
        """Start it again with another configuration; what it was doing it does again."""
        self.config = config
        self._restarts = Restarts()
        self._at_once = True
        self._hurry.set()
        if self._process is not None:
            self._renewing = True
            self._process.kill()

    async def drain(self) -> bool:
        """Have it ship what there is and end; True if it shipped everything. If it is not there
        now, it is started for that."""
        self._draining.set()
        self._hurry.set()
        if self._process is not None:
            await self._say_drain()
        await self._ended.wait()
        return self._shipped

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return None if self._process is None else self._process.pid

    async def pause(self, name: str, *, paused: bool) -> None:
        """Leave a machine alone, or not; also in lives to come. Said again it costs nothing."""
        if (name in self._paused) == paused:
            return
        (self._paused.add if paused else self._paused.discard)(name)
        await self._order(encode(name, Order.PAUSE if paused else Order.RESUME))

    async def retry(self, name: str) -> None:
        """End a machine's wait on the ladder."""
        await self._order(encode(name, Order.RETRY))

    async def _order(self, line: bytes) -> None:
        """One that the process does not hear any more is for its next life to know."""
        async with self._saying:
            if self._process is not None and self._process.stdin is not None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it has ended
                    await self._process.stdin.send_all(line)

    async def _say_drain(self) -> None:
        self._told = True
        await self._order(DRAIN)

    async def _life(self) -> int:
        self._told = False
        self._lives += 1
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "pipeline.daemon.delivery_main", self.config.source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for the supervisor, which drains it
        )
        at_once, self._at_once = self._at_once, False
        self._process = process
        assert process.stdout is not None  # noqa: S101
        try:
            await self._order(encode_begin(self._paused, at_once=at_once))
            if self._draining.is_set():
                await self._say_drain()
            await self._listen(process.stdout)
            return await process.wait()
        finally:
            self._process = None
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()

    async def _listen(self, output: trio.abc.ReceiveStream) -> None:
        said = bytearray()
        async with output:
            while data := await output.receive_some(65536):
                said += data
                *lines, rest = said.split(b"\n")
                for line in lines:
                    await self._heard(bytes(line))
                said = bytearray(rest[:_LINE])

    async def _heard(self, line: bytes) -> None:
        """What delivery says of a machine is kept for ``status``; commits are not told."""
        try:
            fields: dict[str, Any] = json.loads(line)
            if "vault" in fields:
                self._hear_vault(self._lives, str(fields["vault"]), dict(fields["traffic"]))
                return
            name, state = str(fields["machine"]), str(fields["state"])
        except (ValueError, KeyError, TypeError):
            return
        if name not in self.config.machines:
            return
        fields["at"] = self._ports.clock.wall_us()
        self._hear(name, fields)
        self._pending[f"machines/{name}/delivery"] = fields
        if fields.get("consistent"):
            self._pending[f"machines/{name}/last-point"] = fields
        shown = state, fields.get("consistent")
        late = self._ports.clock.monotonic() - self._kept_at >= _NOTE_SECONDS
        if late or shown != self._shown.get(name):
            self._changed.set()
        self._shown[name] = shown
        if state in ("failed", "waiting"):
            await self._keep()  # whoever reads of it below finds it in the note
            again = fields.get("again_in")
            when = f"; again in {again:g} s" if again else ""
            with logs.about(machine=name):
                self._tell(f"{name}: {fields['message']}{when}")
                if fields.get("hint"):
                    self._tell(f"  hint: {fields['hint']}")

    async def _keep_notes(self) -> None:
        """Beside what listens: hundreds of machines that begin together have much to note."""
        while True:
            with trio.move_on_after(_NOTE_SECONDS):
                await self._changed.wait()
            await self._keep()

    async def _keep(self) -> None:
        """Write the notes; of commits alike one in a while is enough, since each is an fsync."""
        self._kept_at = self._ports.clock.monotonic()
        while self._pending:
            path, fields = self._pending.popitem()
            try:
                await trio.to_thread.run_sync(self._state.note, path, fields)
            except BackstayError as error:
                self._tell(f"status: {error}")
