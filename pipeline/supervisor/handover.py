"""The source's part of a planned failover: the guest stopped, its last write in the vault.

The failover itself is a record in the vault, signed with the operator's key, which no daemon has.
What a daemon does is what only it can do: it stops the guest, lets no client in any more, and
makes a last point that says so. Cancelled or failed before that, the disks are served again.
"""

from __future__ import annotations

import os
from contextlib import suppress

import trio

from pipeline.commands import run_command
from pipeline.config.model import Stop
from pipeline.control.model import JobKind, State
from pipeline.daemon.link_client import IntakeGone
from pipeline.lifecycle.events import Happening
from pipeline.notice import source_notices
from pipeline.supervisor.work import Carrier, Carriers, Outcome, Overtaken, Work
from stages.errors import IllegalOperation, SourceBusy, StoreUnreachable

LEAVE_SECONDS = 60.0  # for clients to be gone once the guest was stopped
_POLL_SECONDS = 0.5


async def prepare(work: Work) -> Outcome:
    """Until the vault shows that the source is at rest.

    Raises ``IllegalOperation`` for a machine that is scanned, ``SourceBusy`` while clients stay or
    the last point is lost, ``IntakeGone``.
    """
    point = work.record.failover
    if work.record.situation.state is State.PREPARED and point is not None:
        return _prepared(work.machine, int(point["point"]))
    machine = work.config.machine(work.machine)
    if not machine.live:
        raise IllegalOperation(
            "is scanned at rest: this daemon does not see its writes",
            operation="failover prepare",
            subject=work.machine,
            hint="stop the guest, 'backstay run CONFIG --once', then 'backstay failover planned'",
        )
    if machine.stop is not None:
        await work.task("stop the guest")
        await _stop_guest(work.machine, machine.stop)
    await work.task("close the listeners")
    await _close(work, patient=machine.stop is not None)
    await work.task("ship the last writes")
    made = await work.intake("mark-last", machine=work.machine, label="planned failover")
    if not made["seq"]:
        raise SourceBusy(
            f"the last point is lost: {made['reason']}",
            operation="failover prepare",
            subject=work.machine,
            hint="prepare it again when it is replicating",
        )
    fields = {"point": made["seq"], "stamp_us": made["stamp"], "planned": True, "branch": ""}
    await work.happen(Happening.PREPARED, fields)
    return _prepared(work.machine, int(made["seq"]))


def _prepared(machine: str, seq: int) -> Outcome:
    said = f"point #{seq} is the last; next, with the key: backstay failover planned {machine}"
    return Outcome(None, said, {"seq": seq})


async def _stop_guest(machine: str, stop: Stop) -> None:
    try:
        with trio.fail_after(stop.timeout):
            code, said = await run_command(stop.command, os.environ | {"BACKSTAY_MACHINE": machine})
    except trio.TooSlowError:
        code, said = -1, f"took longer than {stop.timeout:g} s and was ended"
    except OSError as error:
        code, said = -1, f"cannot be run: {error.strerror}"
    if code:
        why = said if code < 0 else f"exit code {code}: {said}"
        raise SourceBusy(
            f"the stop command failed: {why}",
            operation="failover prepare",
            subject=f"{machine}: {stop.command}",
            hint="the guest may be half stopped: look at it; nothing was handed over",
        )


async def _close(work: Work, *, patient: bool) -> None:
    """A guest that was just stopped lets go of its disks a moment later."""
    end = work.ports.clock.monotonic() + (LEAVE_SECONDS if patient else 0.0)
    while True:
        try:
            await work.let_guests(come=False)
        except SourceBusy:
            if work.ports.clock.monotonic() >= end:
                raise
            await work.ports.clock.sleep(_POLL_SECONDS)
        else:
            return


async def reopen(work: Work) -> None:
    """Whatever kept it from being prepared, the guest may run here again."""
    if work.record.situation.state is State.PREPARED:
        return
    with suppress(IntakeGone):  # the next intake is told
        await work.let_guests(come=True)


async def cancel(work: Work) -> Outcome:
    """Undo ``prepare``, where the vault shows no failover.

    Raises ``IllegalOperation`` if it shows one, ``StoreUnreachable`` if that is not known,
    ``Overtaken``.
    """
    found = await source_notices(work.ports, work.config, work.state, [work.machine])
    looked = found[work.machine]
    if looked.notice is not None:
        raise IllegalOperation(
            looked.notice.described,
            operation="failover cancel",
            subject=work.machine,
            hint=f"on a host with the key: backstay failover cancel {work.machine}",
        )
    if looked.trouble:
        raise StoreUnreachable(
            f"not known whether it was failed over: {looked.trouble}",
            operation="failover cancel",
            subject=work.machine,
            hint="try again when the vault answers: two machines must not run as one",
        )
    if work.record.situation.state is not State.PREPARED:
        raise Overtaken(work.record.situation)
    return Outcome(Happening.FAILOVER_CANCELLED, "its disks are served again")


def add_handover(carriers: Carriers) -> Carriers:
    """Preparing a planned failover, and cancelling one."""
    carriers.add(
        JobKind.PLANNED_FAILOVER,
        Carrier(prepare, undo=reopen, states=frozenset({State.REPLICATING, State.PREPARED})),
    )
    carriers.add(
        JobKind.CANCEL_FAILOVER,
        Carrier(
            cancel,
            cancellable=False,
            states=frozenset({State.PREPARED, State.FAILING_OVER, State.COMMIT_PENDING}),
        ),
    )
    return carriers
