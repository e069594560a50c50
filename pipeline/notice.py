"""Before a source opens its listeners: was its machine failed over? (R14)

Production must not depend on the vault: one that does not answer in time, or cannot be read, keeps
no listener closed. Only the operator's signed record does.
"""

from __future__ import annotations

import trio

from pipeline.assembly import read_pins
from stages.errors import BackstayError, NotAVault
from stages.ports import Machine
from stages.store.open import open_store
from stages.vault.charter import check_pin, load
from stages.vault.failover_log import FailoverNotice, failed_over

SECONDS = 5.0


async def listener_notice(
    ports: Machine,
    url: str,
    trust: str,
    group: bytes,
    *,
    vault: bytes | None = None,
    seconds: float = SECONDS,
) -> tuple[FailoverNotice | None, str]:
    """The notice, if the machine of ``group`` was failed over; and what kept it from being looked
    for ("" if nothing did). Bounded by ``seconds``; raises nothing but cancellation.

    ``url`` and ``trust`` (a trust file) as in the configuration; ``vault`` pins the vault's id.
    """
    with trio.move_on_after(seconds):
        try:
            store = open_store(url, ports)
            try:
                charter = await load(store, None)
                pins = [pin for pin in read_pins(ports, trust) if pin.vault == charter.vault]
                if not pins or (vault is not None and vault != charter.vault):
                    raise NotAVault("another vault than the pinned one", subject=url)
                check_pin(charter, pins[0], url)
                return await failed_over(store, group, charter), ""
            finally:
                with trio.CancelScope(shield=True):
                    await store.aclose()
        except BackstayError as error:
            return None, str(error)
        except OSError as error:
            return None, error.strerror or str(error)
    return None, f"{url}: the vault did not answer in {seconds:g} s"
