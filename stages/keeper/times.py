"""What time it is by the store's clock, and whether a key may delete there."""

from __future__ import annotations

from stages.errors import BrokenChain, IllegalOperation
from stages.keeper.rules import CLOCKS_APART
from stages.ports import Machine
from stages.store.port import ObjectStore


async def store_time(store: ObjectStore, machine: Machine) -> int:
    """Now, µs by the store's clock: of an object that is put and removed at once.

    Raises ``StoreDenied`` if that may not be, ``IllegalOperation`` if this machine's clock is far
    from the store's, store errors.
    """
    key = f"keeper/{machine.entropy.token(16).hex()}"
    await store.put(key, [b"what time is it"])
    info = await store.info(key)
    await store.delete(key)
    here = machine.clock.wall_us()
    if info is None:
        raise BrokenChain("what was put is not there", operation="retention", subject=key)
    now = round(info.modified * 1e6)
    if abs(now - here) > CLOCKS_APART * 1e6:
        raise IllegalOperation(
            f"the store's clock and this machine's are {abs(now - here) / 1e6:.0f} s apart: "
            "nothing is let go by a clock that may be wrong",
            operation="retention",
            subject=store.url,
            hint="set the clock that is wrong and give the same command again",
        )
    return now
