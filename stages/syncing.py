"""Making files durable for who waits on the event loop, by threads: where a machine has no better
way (``ports.Sync``)."""

from __future__ import annotations

from collections.abc import Sequence

from stages.ports import Buffer, Machine, Offload, OpenFile, Sync


class HopSync:
    """A hop for each call."""

    def __init__(self, offload: Offload):
        self._offload = offload

    async def fdatasync(self, file: OpenFile) -> None:
        """See ``Sync``."""
        await self._offload.run(file.fdatasync)

    async def append(self, file: OpenFile, parts: Sequence[Buffer]) -> None:
        """See ``Sync``."""

        def both() -> None:
            file.append(parts)
            file.fdatasync()

        await self._offload.run(both)


def sync_of(machine: Machine) -> Sync:
    """The machine's own way, or threads."""
    return machine.sync or HopSync(machine.offload)
