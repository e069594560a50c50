"""The delivery process: ships what intake has journalled, for all live machines, at low priority.

Run by the supervisor as ``python -m pipeline.daemon.delivery_main CONFIG``. Its standard input is
orders (``pipeline.daemon.orders``): which machines to leave alone, when to ship what there is and
end, as SIGTERM does too; it ends at once when its supervisor does. Every change of a machine's
state is a line of JSON on its standard output.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from functools import partial

import trio

from pipeline import logs
from pipeline.assembly import vault_stores
from pipeline.config import load
from pipeline.config.model import Config
from pipeline.daemon import lock
from pipeline.daemon.collecting import collect_rarely
from pipeline.daemon.delivering import Delivering, say
from pipeline.daemon.names import DELIVERY_LOCK
from pipeline.daemon.orders import DRAIN, MAX_LINE, Begin, Order, Orders, decode, decode_begin
from pipeline.daemon.probes import Probes
from pipeline.daemon.traffic import tell_traffic
from pipeline.retry import Steps
from pipeline.state import StateFolder
from stages.errors import BackstayError
from stages.ports import Machine
from stages.stage import crew
from stages.system import this_machine

_NICE = 10
_THREADS = 6
_LOCK_LOOK_SECONDS = 0.5
_DRAIN_SECONDS = 600.0  # at most, whatever the supervisor waits for
_LOCK_SECONDS = 30.0  # for one before, whose supervisor was killed and which is on its way out
_PR_SET_DUMPABLE = 4

UNSHIPPED = 3
"""Exit code: it was drained, but not everything could be shipped."""


def main() -> int:
    """The process: 0 if all was shipped, ``UNSHIPPED``, or the code of an error."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
    os.nice(_NICE)
    collect_rarely()
    try:
        config = load(sys.argv[1])
        logs.configure(config.daemon.log.format, config.daemon.log.level)
        return 0 if trio.run(_deliver, this_machine(_THREADS), config) else UNSHIPPED
    except BackstayError as error:
        logs.error("delivery.failed", f"delivery: {error}")
        return error.exit_code


async def _deliver(ports: Machine, config: Config) -> bool:
    """Until drained: True if everything was shipped."""
    state = StateFolder.open(ports, config.daemon.state, lock=False)
    draining = trio.Event()
    retry = config.daemon.retry
    steps = Steps(tuple(map(float, retry.steps)), float(retry.then), float(retry.probe))
    probes = Probes(ports, steps.probe)
    stores = vault_stores(ports, config)
    machines = {
        name: Delivering(ports, config, name, state, Orders(draining), probes, steps, stores=stores)
        for name, machine in config.machines.items()
        if machine.live
    }
    async with crew() as nursery:
        parent = Parent(machines, draining)
        nursery.start_soon(parent.hear, nursery.cancel_scope)
        nursery.start_soon(_hear_signals, draining)
        nursery.start_soon(tell_traffic, stores, ports.clock, say)
        begin = await parent.begin()
        await _wait_for_lock(ports, f"{state.path}/{DELIVERY_LOCK}")
        with lock.held(ports.files, f"{state.path}/{DELIVERY_LOCK}", "delivery"):
            async with trio.open_nursery() as running:
                for machine in machines.values():
                    running.start_soon(partial(machine.run, at_once=begin.at_once))
                await draining.wait()  # also if all have failed for good: their states stay shown
                running.cancel_scope.deadline = trio.current_time() + _DRAIN_SECONDS
        nursery.cancel_scope.cancel()
    return all(machine.drained for machine in machines.values())


class Parent:
    """Whoever started this process, and says what to do on its standard input."""

    def __init__(self, machines: Mapping[str, Delivering], draining: trio.Event):
        self._machines = machines
        self._draining = draining
        self._begin: Begin | None = None
        self._begun = trio.Event()

    async def begin(self) -> Begin:
        """What is said first of all."""
        await self._begun.wait()
        assert self._begin is not None  # noqa: S101
        return self._begin

    async def hear(self, scope: trio.CancelScope) -> None:
        """Until it hangs up: then ``scope`` is cancelled."""
        said = bytearray()
        async with trio.lowlevel.FdStream(os.dup(0)) as stream:
            while data := await stream.receive_some(65536):
                said += data
                *lines, rest = said.split(b"\n")
                for line in lines:
                    self._take(bytes(line))
                said = bytearray(rest[:MAX_LINE])
        scope.cancel()

    def _take(self, line: bytes) -> None:
        if line + b"\n" == DRAIN:
            self._draining.set()
        elif self._begin is None:
            self._begin = decode_begin(line)
            for name in self._begin.paused & self._machines.keys():
                self._machines[name].orders.take(Order.PAUSE)
            self._begun.set()
        else:
            found = decode(line)
            if found is not None and found[0] in self._machines:
                self._machines[found[0]].orders.take(found[1])


async def _wait_for_lock(ports: Machine, path: str) -> None:
    """Two of them would write one record of the vault. Raises ``StateLocked`` after a while."""
    with trio.move_on_after(_LOCK_SECONDS):
        while not lock.is_free(ports.files, path):
            await ports.clock.sleep(_LOCK_LOOK_SECONDS)


async def _hear_signals(draining: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            draining.set()


if __name__ == "__main__":
    sys.exit(main())
