"""Where stores are built, and what a machine's writer needs; ``line`` and ``leg`` build stages.

Recovery comes here for a store alone, so what only protection needs is imported when it is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from stages.errors import KeyFailure
from stages.ports import Machine
from stages.store.open import is_priced, open_store
from stages.store.port import ObjectStore
from stages.store.retry import RetryStore
from stages.vault.charter import Pin, check_pin, load
from stages.vault.keyfile import MAX_SIZE, decode_public

if TYPE_CHECKING:
    from pipeline.config.model import Config
    from pipeline.config.model import Machine as MachineConfig
    from pipeline.state import Identity, StateFolder
    from pipeline.stores import VaultStores
    from stages.ship.ledger import Ledger
    from stages.ship.session import Writer

_RETRY_SECONDS = 10.0
SEAL_AFTER = 1.0  # seconds, on vaults where a put costs nothing
SEAL_AFTER_PRICED = 15.0  # a put a second is 13 dollars a month


def vault_store(ports: Machine, url: str, *, patience: float = _RETRY_SECONDS) -> ObjectStore:
    """The store of a vault, with blips of up to ``patience`` seconds retried."""
    return RetryStore(open_store(url, ports), ports.clock, ports.entropy, seconds=patience)


def vault_stores(ports: Machine, config: Config) -> VaultStores:
    """The stores of the vaults of a configuration, shared by those who protect its machines."""
    from pipeline.stores import Again, VaultStores

    def patient(store: ObjectStore, again: Again) -> ObjectStore:
        return RetryStore(store, ports.clock, ports.entropy, seconds=_RETRY_SECONDS, again=again)

    return VaultStores(ports, config, lambda url: open_store(url, ports), patient)


def seal_seconds(config: Config, machine: MachineConfig) -> float:
    """After how many seconds what was written to a live machine becomes a commit."""
    after = config.pipeline_of(machine).cache.seal_after
    auto = SEAL_AFTER_PRICED if is_priced(config.vault_of(machine).url) else SEAL_AFTER
    return auto if after == "auto" else float(after)


def read_pins(ports: Machine, path: str) -> tuple[Pin, ...]:
    """The pins in a trust file. Raises ``KeyFailure``."""
    try:
        data = ports.files.read(path, MAX_SIZE)
    except OSError as error:
        raise KeyFailure(
            f"the trust file cannot be read: {error.strerror}",
            operation="trust",
            subject=path,
            hint="'backstay init' writes it beside the key (NAME.pub); copy it to this place",
        ) from None
    return decode_public(data, path).pins


async def open_writer(
    ports: Machine,
    config: Config,
    name: str,
    state: StateFolder,
    stores: VaultStores | None = None,
) -> tuple[Writer, Ledger, Identity]:
    """The vault of a machine as its writer, checked against the pinned trust; and its ledger.

    ``stores``: shared with other machines; without it limits hold for this one alone.
    """
    vault = config.vault_of(config.machine(name))
    shared = stores or vault_stores(ports, config)
    store = shared.store(config.machine(name).vault, name)
    try:
        return await _open_writer(ports, vault.trust, name, state, store)
    except BaseException:
        with trio.CancelScope(shield=True):
            await store.aclose()
        raise


async def _open_writer(
    ports: Machine, trust: str, name: str, state: StateFolder, store: ObjectStore
) -> tuple[Writer, Ledger, Identity]:
    from stages.ship.ledger import Ledger
    from stages.ship.session import Writer
    from stages.vault.sealing import Scope

    charter = await load(store, None)
    pin = next((pin for pin in read_pins(ports, trust) if pin.vault == charter.vault), None)
    if pin is None:
        raise KeyFailure(
            f"{trust} does not know vault {charter.vault.hex()}",
            operation="trust",
            subject=store.url,
            hint="is it the right vault? Only then give the .pub file that 'backstay init' wrote "
            "for it as 'trust'",
        )
    check_pin(charter, pin, store.url)
    folder = state.machine_folder(name, charter.vault)
    identity = state.identity(folder)
    signer = state.signer()
    scope = Scope(charter.vault, identity.group, charter.cipher)
    ledger = Ledger(ports, folder, scope)  # from here on somebody has to close it
    try:
        ledger.recover()
    except BaseException:
        ledger.close()
        raise
    return Writer(store, scope, charter, signer, ports), ledger, identity
