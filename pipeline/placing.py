"""Where a new vault may begin, and what a credential may do there that a writer should not."""

from __future__ import annotations

from stages.errors import FULL, NoSpace, NotAVault, StoreDenied, VaultError
from stages.ports import Machine
from stages.store import canary
from stages.store.address import CLOUDS
from stages.store.canary import Powers, powers
from stages.store.file import FileStore
from stages.store.open import open_store
from stages.store.port import ObjectStore
from stages.vault import layout

_OWN = frozenset({".tmp", canary.KEY})
_LOOKED = 8  # objects


async def check_place(ports: Machine, url: str) -> None:
    """A new vault begins in an empty place: what else lies there is not ours to mix with.

    Raises ``NotAVault``, or ``VaultError`` if it is a vault already; store errors.
    """
    store = open_store(url, ports)
    try:
        if isinstance(store, FileStore):
            names = _in_folder(ports, store, url)
        else:
            names = await _in_store(store)
    finally:
        await store.aclose()
    if layout.VAULT in names:
        raise taken(url)
    foreign = sorted(set(names) - _OWN)
    if foreign:
        kind = _kind(store)
        raise NotAVault(
            f"is neither empty nor a vault: it holds {', '.join(foreign[:3])}"
            + (" and more" if len(foreign) > 3 else ""),
            operation="init",
            subject=url,
            hint=f"give an empty or a new {kind}",
        )


def _kind(store: ObjectStore) -> str:
    """What a vault of this store begins in."""
    if isinstance(store, FileStore):
        return "folder"
    return "vault of the site" if store.url.startswith("site:") else "prefix"


def _in_folder(ports: Machine, store: FileStore, url: str) -> list[str]:
    path = store.url.removeprefix("file:")
    try:
        names = ports.files.listdir(path)
        there = ports.files.stat(path)
    except OSError as error:
        kind = NoSpace if error.errno in FULL else StoreDenied
        raise kind(error.strerror or str(error), operation="init", subject=url) from None
    if layout.VAULT not in names and there is not None and not there.is_dir:
        raise NotAVault(
            "is a file, not a folder",
            operation="init",
            subject=url,
            hint="give an empty or a new folder",
        )
    return names


async def _in_store(store: ObjectStore) -> list[str]:
    if await store.info(layout.VAULT) is not None:
        return [layout.VAULT]
    found = await store.page("", limit=_LOOKED)
    return list(dict.fromkeys(info.key.partition("/")[0] for info in found))


def taken(url: str) -> VaultError:
    """What to say of a place that holds a vault."""
    return VaultError(
        "is a vault already",
        operation="init",
        subject=url,
        hint="'backstay vault check' shows whose; if it is yours, an earlier 'backstay init' has "
        "made it and it is ready; a new vault needs a place of its own",
    )


async def try_powers(ports: Machine, url: str) -> Powers | None:
    """What the credential of a vault's store may do to the canary; None where it cannot be told."""
    store = open_store(url, ports)
    try:
        return await powers(store)
    finally:
        await store.aclose()


def powers_told(url: str, found: Powers) -> list[str]:
    """What is to be said of them: a writer that is stolen should not be able to destroy."""
    if not found.create:
        return ["this credential may not write: right for those who restore, not for a daemon"]
    can = [word for word in ("overwrite", "delete") if getattr(found, word)]
    if not can:
        return []
    can_what = f"this credential may {' and '.join(can)} objects: who steals it can destroy points"
    if url.partition(":")[0] in CLOUDS:
        return [f"{can_what}; configs/cloud has what a daemon needs and no more"]
    instead = "keep snapshots of it, or use a store that is append-only"
    return [f"{can_what}; a folder does not keep those who write to it from that: {instead}"]
