"""Making vaults, admitting writers, checking charters: what needs the operator's key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.assembly import vault_store
from pipeline.placing import check_place, powers_told, taken, try_powers
from pipeline.state import StateFolder
from stages.errors import (
    BackstayError,
    Fenced,
    KeyFailure,
    UsageError,
)
from stages.ports import Machine
from stages.recover.opened import open_vault
from stages.store.canary import Powers
from stages.store.open import create_store
from stages.store.port import Put
from stages.vault import layout
from stages.vault.charter import ID_SIZE, Charter, Member, Pin, check_pin, encode, load
from stages.vault.keyfile import PrivateKey, PublicKey

_PATIENCE = 2.0


def second_recipients(others: list[PublicKey], private: PrivateKey) -> list[Member]:
    """The other recipients, once each. Raises ``UsageError`` if one is the operator's own."""
    found: dict[bytes, Member] = {}
    for other in others:
        if other.recipient == private.box.public:
            raise UsageError(
                "the second recipient is the same key",
                operation="init",
                subject=other.name,
                hint="make another with 'backstay keygen', on another machine, by another person",
            )
        found[other.recipient] = Member(other.recipient, other.name)
    return list(found.values())


async def found_vault(
    ports: Machine,
    url: str,
    private: PrivateKey,
    others: list[Member],
    state: StateFolder,
    *,
    cipher: str,
    remember: Callable[[Pin], None],
) -> Charter:
    """Make a vault. ``remember`` keeps its pin, durably, before the vault exists.

    So a crash leaves either no vault (and a pin of nothing) or a vault that the key knows.
    Raises ``VaultError`` or ``NotAVault`` if something is there already.
    """
    await check_place(ports, url)
    store = await create_store(url, ports)
    try:
        charter = Charter(
            vault=ports.entropy.token(ID_SIZE),
            operator=private.signer.public,
            generation=1,
            cipher=cipher,
            recipients=(Member(private.box.public, private.name), *others),
            writers=(Member(state.signer().public, "daemon"),),
        )
        remember(charter.pin())
        data = encode(charter, private.signer)
        if await store.put(layout.VAULT, [data]) is Put.EXISTS:
            raise taken(url)
    finally:
        await store.aclose()
    return charter


def check_operator(
    charter: Charter, private: PrivateKey, url: str, operation: str, what: str
) -> None:
    """``KeyFailure``, with ``what`` only the operator can do, if the key is another's."""
    if charter.operator != private.signer.public:
        raise KeyFailure(
            f"only the vault's operator {what}",
            operation=operation,
            subject=url,
            hint="use the private key that 'backstay init' was given",
        )


async def admit_writer(
    ports: Machine, url: str, private: PrivateKey, writer: bytes, name: str
) -> Charter:
    """The next charter, in which ``writer`` is admitted too. Raises ``KeyFailure``, ``Fenced``."""
    store = vault_store(ports, url, patience=_PATIENCE)
    try:
        vault = await open_vault(store, private)
        charter = vault.charter
        check_operator(charter, private, url, "admit", "can admit writers")
        if charter.admits(writer):
            return charter
        following = charter.with_writer(Member(writer, name))
        key = layout.charter(following.generation)
        if await store.put(key, [encode(following, private.signer)]) is Put.EXISTS:
            raise Fenced("the charter was changed meanwhile", operation="admit", subject=key)
        return following
    finally:
        await store.aclose()


@dataclass(frozen=True, slots=True)
class Checked:
    """A checked charter, and what each group's log looks like (with a private key only).

    ``powers``: what the store's credential may do, if it was tried and could be told.
    """

    url: str
    charter: Charter
    groups: tuple[tuple[str, str, int], ...]
    problems: tuple[str, ...]
    powers: Powers | None = None

    @property
    def warnings(self) -> list[str]:
        """Of what the credential may do."""
        return powers_told(self.url, self.powers) if self.powers else []

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        charter = self.charter
        return {
            "vault": charter.vault.hex(),
            "url": self.url,
            "generation": charter.generation,
            "cipher": charter.cipher,
            "operator": charter.operator.hex(),
            "recipients": [{"key": m.key.hex(), "name": m.name} for m in charter.recipients],
            "writers": [{"key": m.key.hex(), "name": m.name} for m in charter.writers],
            "groups": [
                {"group": group, "machine": name, "tail": tail} for group, name, tail in self.groups
            ],
            "problems": list(self.problems),
            "credential": self.powers and asdict(self.powers),
            "warnings": self.warnings,
        }

    def text(self) -> str:
        """For people."""
        charter = self.charter
        lines = [
            f"vault      {charter.vault.hex()}",
            f"charter    generation {charter.generation}, {charter.cipher}",
            f"operator   {charter.operator.hex()[:16]}…",
        ]
        lines += [f"recipient  {m.key.hex()[:16]}…  {m.name}" for m in charter.recipients]
        lines += [f"writer     {m.key.hex()}  {m.name}" for m in charter.writers]
        lines += [f"machine    {name}: newest point #{tail}" for _, name, tail in self.groups]
        lines += [f"problem    {problem}" for problem in self.problems]
        lines += [f"warning    {warning}" for warning in self.warnings]
        return "\n".join(lines)


async def check_vault(
    ports: Machine,
    url: str,
    private: PrivateKey | None,
    pins: tuple[Pin, ...],
    *,
    read_only: bool = False,
) -> Checked:
    """Hold a vault against what is pinned of it; with a key, look at every group too.

    Unless ``read_only``, try also what the store's credential may do to an object.
    """
    found = await _look_at(ports, url, private, pins)
    return found if read_only else replace(found, powers=await try_powers(ports, url))


async def _look_at(
    ports: Machine, url: str, private: PrivateKey | None, pins: tuple[Pin, ...]
) -> Checked:
    store = vault_store(ports, url, patience=_PATIENCE)
    try:
        if private is None:
            charter = await load(store, None)
            known = [pin for pin in pins if pin.vault == charter.vault] or list(pins[:1])
            for pin in known:
                check_pin(charter, pin, url)
            if not known:
                raise KeyFailure("the trust file pins no vault", operation="trust", subject=url)
            return Checked(url, charter, (), ())
        vault = await open_vault(store, private, pins)
        groups = []
        for group in await vault.groups():
            try:
                name = await group.name()
            except BackstayError as error:
                name = "?"
                vault.problems.append(str(error))
            groups.append((group.scope.group.hex(), name, group.tail))
            vault.problems.extend(group.log.ignored)
        return Checked(url, vault.charter, tuple(groups), tuple(vault.problems))
    finally:
        await store.aclose()
