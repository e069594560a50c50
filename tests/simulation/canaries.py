"""Planted bugs: each leaves one rule out. A checker that does not find them proves nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import trio

from stages.cache.journal.writer import JournalWriter
from stages.capture.group.comparing import Comparing
from stages.capture.group.cooling import Cooling
from stages.capture.group.gap import Gap
from stages.capture.group.marks import Marks
from stages.capture.live import scrub_region
from stages.capture.live.scanner import Scanner
from stages.capture.live.scrub_region import Judge
from stages.capture.live.windows import Windows
from stages.capture.splitter import mutation
from stages.capture.splitter.flush import Flusher, Tell
from stages.capture.splitter.gate import Gate
from stages.capture.splitter.handler import SplitHandler
from stages.capture.splitter.mutation import Mutation
from stages.joint import Joint
from stages.nbd.ranges import RangeLocks
from stages.ship.ledger import Ledger
from stages.ship.session import LogSession
from stages.stream import Position
from stages.vault import failover_log
from stages.vault.paged import PagedArray
from tests.simulation.knobs import CALM, Knobs

Bug = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Canary:
    """``bug`` must be found in stories told with ``knobs``, from seed ``first`` on:
    the one that brought it out last; stories before it cost time and show nothing."""

    bug: Bug
    knobs: Knobs
    first: int = 0

    @property
    def name(self) -> str:
        """For people."""
        return str(getattr(self.bug, "__name__", self.bug))


CANARIES: list[Canary] = []


def canary(base: Knobs = CALM, first: int = 0, **knobs: Any) -> Callable[[Bug], Bug]:
    """List a planted bug with the stories that bring it out."""

    def keep(bug: Bug) -> Bug:
        CANARIES.append(Canary(bug, replace(base, **knobs), first))
        return bug

    return keep


def _swap(owner: Any, **attributes: Any) -> AbstractContextManager[Any]:
    patched: AbstractContextManager[Any] = mock.patch.multiple(owner, **attributes)
    return patched


async def _nothing(*_: Any, **__: Any) -> None:
    await trio.lowlevel.checkpoint()


_COOLING: Mapping[str, Any] = {
    "flush": 0.0, "fua": 0.0, "cool": 0.5, "pace": (0, 0, 2), "hot": 6, "ends": ("power",),
}  # fmt: skip


@canary(**_COOLING)
def r1_cooling_without_fsync_of_the_source() -> AbstractContextManager[Any]:
    async def sync(self: Cooling, disk: object) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    return _swap(Cooling, _sync=sync)


@canary(first=21, **{**_COOLING, "sync_seconds": 60.0, "cool": 0.2, "pace": (0, 0.5, 1)})
def r1_cooling_before_the_journal_is_durable() -> AbstractContextManager[Any]:
    cycle = Cooling.cycle

    async def hasty(self: Cooling) -> None:
        with mock.patch.object(self._gate, "sync", _nothing):
            await cycle(self)

    return _swap(Cooling, cycle=hasty)


@canary(sync_seconds=3.0, seal_after=0.2, flush=0.01, fua=0.0, ends=("power",))
def r2_delivery_reads_what_is_not_durable() -> AbstractContextManager[Any]:
    append = JournalWriter._append_batch

    async def hasty(self: JournalWriter, batch: Any) -> None:
        await append(self, batch)
        self._on_durable(Position(self._run, self._written))

    return _swap(JournalWriter, _append_batch=hasty)


@canary(ends=("power",), flush=0.0, fua=0.0, patience=(0.5, 2, 10), pauses=(1, 20), hot=6)
def r3_a_scan_with_versions_ahead() -> AbstractContextManager[Any]:
    return _swap(Joint, wait_committed=_nothing)


@canary(ends=("power",), pace=(0, 0.2, 2))
def r3_digests_that_are_not_synced() -> AbstractContextManager[Any]:
    sync = PagedArray.sync

    def hasty(self: PagedArray) -> bytes:
        with mock.patch.object(self._file, "fdatasync", lambda: None):
            return sync(self)

    return _swap(PagedArray, sync=hasty)


@canary(odd=0.7, hot=6, slow=0.4, pace=(0, 0, 0.01), ends=("stop", "kill"))
def r4_no_locks() -> AbstractContextManager[Any]:
    @asynccontextmanager
    async def hold(self: RangeLocks, first: int, stop: int) -> AsyncIterator[None]:
        yield

    return _swap(RangeLocks, hold=hold)


@canary(odd=0.7, slow=0.4, leave=0.3, ends=("stop", "kill"))
@contextmanager
def r4_a_cancelled_send() -> Iterator[None]:
    execute, carry_out = SplitHandler.execute, Mutation._carry_out

    async def bound(self: SplitHandler, batch: Any, replies: Any) -> None:
        async with trio.open_nursery() as connection:
            with mock.patch.object(self, "_nursery", connection):
                await execute(self, batch, replies)

    async def then_send(self: Mutation) -> Any:
        found = await carry_out(self)
        await trio.lowlevel.checkpoint()
        return found

    def unshielded(**_: Any) -> trio.CancelScope:
        return trio.CancelScope()

    with (
        _swap(SplitHandler, execute=bound),
        _swap(Mutation, _carry_out=then_send),
        mock.patch.object(mutation, "trio", mock.Mock(wraps=trio, CancelScope=unshielded)),
    ):
        yield


@canary(flush=0.3, slow=0.4, pace=(0, 0, 0.01), ends=("power",))
def r5_a_flush_that_joins_a_round_under_way() -> AbstractContextManager[Any]:
    then, whole = Flusher.then, Flusher._round

    async def remember(self: Flusher) -> OSError | None:
        joined: list[Tell] = []
        vars(self)["under_way"] = joined
        try:
            error = await whole(self)
        finally:
            del vars(self)["under_way"]
        for tell in joined:
            tell(error)
        return error

    def join(self: Flusher, tell: Tell) -> None:
        if "under_way" in vars(self):
            vars(self)["under_way"].append(tell)
        else:
            then(self, tell)

    return _swap(Flusher, then=join, _round=remember)


@canary(first=4, flush=0.2, sync_seconds=3.0, ends=("power",))
def r5_a_flush_without_the_journal() -> AbstractContextManager[Any]:
    async def only_source(self: Flusher) -> OSError | None:
        return await self._sync_source()

    return _swap(Flusher, _round=only_source)


@canary(scrub=1.0, pace=(0, 0, 0.01, 0.2), ends=("kill", "stop"))
def r6_a_scrub_that_does_not_wait() -> AbstractContextManager[Any]:
    async def at_once(self: Judge) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    return _swap(Judge, _caught_up=at_once)


@canary(scrub=1.0, pace=(0, 0, 0.01, 0.2), ends=("kill", "stop"))
def r6_a_scrub_that_does_not_hear_of_writes() -> AbstractContextManager[Any]:
    judge = scrub_region.judged

    def certain(seen: Any, chunks: Any, blocks: Any, doubt: Any) -> Any:
        return judge(seen, chunks, blocks, doubt & False)

    return _swap(scrub_region, judged=certain)


@canary(trim=0.4, journal=300_000, ends=("kill", "stop"))
def r7_a_scan_skips_every_zero() -> AbstractContextManager[Any]:
    news = Scanner._news

    async def content_only(self: Scanner, task: Any, found: Any) -> Any:
        seen = await news(self, task, found)
        return replace(seen, zero=seen.zero & False)

    return _swap(Scanner, _news=content_only)


@canary(zero=0.3, trim=0.3, odd=0.7, ends=("kill", "stop"))
def r7_part_blocks_count_as_zero() -> AbstractContextManager[Any]:
    zero = Mutation._zero_inner

    def outward(self: Mutation, first: int, stop: int) -> tuple[int, int]:
        found = zero(self, first, stop)
        return (self._first, self._stop) if found != (0, 0) else found

    def no_edges(self: Mutation, inner: object) -> list[Any]:
        edges(self, inner)  # type: ignore[arg-type]
        return []

    edges = Mutation._zero_edges
    return _swap(Mutation, _zero_inner=outward, _zero_edges=no_edges)


@canary(first=4, slow=0.4, pace=(0, 0, 0.01), journal=300_000, ends=("kill", "stop"))
def r8_scans_do_not_hear_of_writes() -> AbstractContextManager[Any]:
    return _swap(Windows, mark=lambda *_: None)


@canary(first=1, slow=0.4, odd=0.5, pace=(0, 0, 0.01), journal=300_000, ends=("kill", "stop"))
def r8_a_gap_ends_before_a_write_that_holds_its_block() -> AbstractContextManager[Any]:
    async def todo(self: Comparing) -> Any:
        return self._gap.todo(list(self._disks().values()))

    return _swap(Comparing, _todo=todo)


@canary(journal=300_000, pauses=(1, 20), ends=("kill", "stop"))
def r9_what_was_tracked_is_forgotten() -> AbstractContextManager[Any]:
    return _swap(Gap, todo=lambda *_: [])


@canary(first=30, sync_seconds=3.0, flush=0.01, fua=0.0, journal=300_000, ends=("power",))
def r9_scanned_before_it_is_durable() -> AbstractContextManager[Any]:
    scanned = Gap.scanned

    def hasty(self: Gap, disk: int, region: int, position: Position) -> None:
        scanned(self, disk, region, position)
        self.activity.scanned(disk, [region])
        self.activity.cool({disk: [region]}, self.activity.generation)

    return _swap(Gap, scanned=hasty)


@canary(store_faults=0.1, patience=(0.5, 3), ends=("power", "kill"))
def r11_a_commit_without_an_intent() -> AbstractContextManager[Any]:
    def forgetful(self: Ledger, intent: Any) -> None:
        self.pending.setdefault(intent.seq, []).append(intent)

    return _swap(Ledger, intend=forgetful)


@canary(store_faults=0.1, patience=(0.5, 3), ends=("power", "kill"))
def r11_an_unknown_outcome_is_a_failure() -> AbstractContextManager[Any]:
    async def forget(self: LogSession) -> None:
        await trio.lowlevel.checkpoint()
        self.ledger.pending.clear()

    return _swap(LogSession, _settle_open_intents=forget)


@canary(clone=1.0, ends=("kill",))
def r12_a_win_is_not_checked() -> AbstractContextManager[Any]:
    return _swap(LogSession, _check_not_succeeded=_nothing, _check_own=lambda *_: None)


@canary(first=1, failovers=1.0, lives=8, ends=("kill", "stop"), pace=(0.2, 3, 8), patience=(1000,))
def r14_a_source_ships_on_after_a_failover() -> AbstractContextManager[Any]:
    return _swap(
        LogSession, _check_not_succeeded=_nothing, _check_own=lambda *_: None,
        _check_not_failed_over=_nothing,
    )  # fmt: skip


@canary(first=1, failovers=1.0, lives=8, ends=("kill", "stop"), pace=(0, 0.2, 2))
def r14_a_source_is_not_told_of_its_failover() -> AbstractContextManager[Any]:
    return mock.patch.object(failover_log, "notice_of", lambda *_: None)


@canary(marks=1.0, pace=(0, 0.2, 2), ends=("stop",))
def r20_a_freeze_that_did_not_hold() -> AbstractContextManager[Any]:
    decide = Marks._decide

    def always(self: Marks, mark: int, *, valid: bool) -> None:
        decide(self, mark, valid=True)

    return _swap(Marks, _decide=always)


@canary(journal=300_000, memory=60_000, lives=2, patience=(0.1,), pauses=(20,), ends=("kill",))
def no_bound_of_the_journal() -> AbstractContextManager[Any]:
    async def at_limit(self: Gate, size: int) -> bool:
        self.limit *= 2
        return False

    return _swap(Gate, _at_limit=at_limit)
