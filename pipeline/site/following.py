"""The tasks in which a site's replicas follow their machines: one each, a few at work at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import trio

from pipeline import logs
from pipeline.retry import Steps
from pipeline.site.config import Replica, SiteConfig
from pipeline.site.health import Follows
from pipeline.site.replicas import Seen, access_of, bring_up, is_news
from pipeline.site.standing import Standing, keep_notes, note, standing
from stages.errors import BackstayError, IllegalOperation, NotAVault, NotFound, StateLocked
from stages.ports import Machine
from stages.replica.bounds import Brought
from stages.replica.record import Status
from stages.stage import crew

AT_WORK = 2  # replicas that are brought somewhere at a time: each takes up to 150 MiB then
_WAIT = 10.0  # seconds, while there is no vault or no point yet
_ROUND = 60.0  # seconds after which one is made though there is no news of the group
_REST = 4  # times what a round took: it is at work for a fifth of the time, at most
_NOT_YET = (NotAVault, NotFound)


@dataclass
class _Seen:
    """What the last round has seen, and when; ``notes`` are None until there was one."""

    last: Seen | None = None
    at: float = 0.0
    notes: tuple[str, ...] | None = None


class Followers:
    """Owns the tasks. ``exchange`` begins them anew, so that errors are tried again at once."""

    def __init__(self, ports: Machine, config: SiteConfig):
        self._ports = ports
        self._config = config
        self._scope = trio.CancelScope()
        self._room = trio.CapacityLimiter(AT_WORK)
        self._looked: dict[str, float] = {}  # when each was last where it should be
        self._waits: dict[str, str] = {}

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self._scope = trio.CancelScope()
            config = self._config
            with self._scope:
                async with crew() as nursery:
                    for machine, settings in config.replicas.items():
                        nursery.start_soon(self._follow, config, machine, settings)
                    await trio.sleep_forever()

    def exchange(self, config: SiteConfig) -> None:
        """Another configuration; a round under way is left where it is, and goes on."""
        self._config = config
        self._scope.cancel()

    async def standing(self) -> list[Follows]:
        """How far all of them follow."""
        ports, config = self._ports, self._config
        found = await ports.offload.run(partial(standing, ports.files, config))
        return [self._follows(one) for one in found]

    def _follows(self, found: Standing) -> Follows:
        clock, kept, machine = self._ports.clock, found.record, found.machine
        whole = kept is not None and kept.status is not Status.CHANGING
        at = kept.at if kept is not None and whole else None
        looked = self._looked.get(machine)
        return Follows(
            machine,
            "none" if kept is None else str(kept.status),
            None if at is None else at.seq,
            None if at is None else max(0.0, (clock.wall_us() - at.stamp) / 1e6),
            None if looked is None else clock.monotonic() - looked,
            self._waits.get(machine, ""),
            found.trouble,
        )

    async def _follow(self, config: SiteConfig, machine: str, settings: Replica) -> None:
        """Rounds of one replica. Errors that can heal are tried again by the ladder, others not."""
        steps, attempt, quiet, seen = Steps(), 0, False, _Seen()
        with logs.about(machine=machine):
            while True:
                try:
                    wait, brought = await self._look(config, machine, settings, seen)
                except (*_NOT_YET, StateLocked, IllegalOperation) as error:
                    # Nothing to follow yet; someone gives it away, or has; or it is not ours now.
                    if not quiet:
                        logs.event("site.replica", f"{machine}: waits: {error}")
                    quiet, wait, seen.last = True, max(settings.every, _WAIT), None
                    self._waits[machine] = error.message
                except BackstayError as error:
                    attempt += 1
                    wait = steps.after(attempt) if error.recoverable else float("inf")
                    await self._failed(machine, settings, error, wait)
                    quiet, seen.last = False, None
                    self._waits.pop(machine, None)
                else:
                    self._waits.pop(machine, None)
                    if seen.last is not None:  # nothing is left to do
                        self._looked[machine] = self._ports.clock.monotonic()
                    if brought is not None:
                        self._tell(machine, brought, loud=attempt > 0 or not quiet)
                    if attempt or not quiet:
                        await self._ports.offload.run(partial(note, self._ports, settings, ""))
                    attempt, quiet = 0, True
                if wait == float("inf"):
                    await trio.sleep_forever()
                await self._ports.clock.sleep(wait)

    async def _look(
        self, config: SiteConfig, machine: str, settings: Replica, seen: _Seen
    ) -> tuple[float, Brought | None]:
        """A round if there is news, or if the last one is long ago; seconds until the next look."""
        ports = self._ports
        async with self._room:
            begun = ports.clock.monotonic()
            access = await ports.offload.run(partial(access_of, ports, config, settings))
            last = seen.last if begun < seen.at + _ROUND else None
            if last is not None and not await is_news(access, last):
                return settings.every, None
            found = await bring_up(ports, access, settings, machine)
            brought, seen.last = found.brought, found.seen
            seen.at = ports.clock.monotonic()
            await self._note(machine, settings, seen, found.notes)
        rest = 0.0 if brought.compared else _REST * (seen.at - begun)  # comparing is not repeated
        return max(settings.every, rest), brought

    async def _note(
        self, machine: str, settings: Replica, seen: _Seen, notes: tuple[str, ...]
    ) -> None:
        """Tell what is new about the choice of the point; of rounds that say the same the first."""
        if notes != seen.notes:
            for text in notes:
                if text not in (seen.notes or ()):
                    logs.event("site.replica", f"{machine}: note: {text}")
            await self._ports.offload.run(partial(keep_notes, self._ports, settings, notes))
            seen.notes = notes

    async def _failed(
        self, machine: str, settings: Replica, error: BackstayError, wait: float
    ) -> None:
        again = "not tried again until SIGHUP" if wait == float("inf") else f"again in {wait:g} s"
        text = f"{machine}: {error}{f' ({error.hint})' if error.hint else ''}; {again}"
        logs.error("site.replica", text, error=type(error).__name__)
        await self._ports.offload.run(partial(note, self._ports, settings, text))

    def _tell(self, machine: str, brought: Brought, *, loud: bool) -> None:
        if loud or brought.compared:
            seq, written = brought.at.seq, brought.written
            text = f"{machine}: is at point #{seq}"
            logs.event("site.replica", text, point=seq, written=written)
