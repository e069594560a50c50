"""What config and key files pin of a vault: rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stages.vault import charter as charters
from tests.faults import tamper
from tests.faults.row import NOT_SHIPPED, RESTORE, RUN, Row
from tests.faults.tamper import OPERATOR, STRANGER
from tests.faults.world import World, found


def _trust_missing(world: World) -> tuple[str, ...]:
    tamper.remove(world, "op.pub")
    return RUN


def _trust_garbage(world: World) -> tuple[str, ...]:
    tamper.change(world, "op.pub", b"{}")
    return RUN


def _trust_of_another(world: World) -> tuple[str, ...]:
    tamper.change(world, "op.pub", world.path("stranger.pub").read_bytes())
    return RUN


def _other_vault(world: World) -> None:
    """The operator's own other vault lies where this one should be."""
    other = found(world.path("other"))
    tamper.move(world, "vault", "moved")
    tamper.move(world, "other/vault", "vault")
    world.names["other"] = tamper.read_charter(other, "../vault/vault.json").vault.hex()


def _other_vault_run(world: World) -> tuple[str, ...]:
    _other_vault(world)
    return RUN


def _other_vault_restore(world: World) -> tuple[str, ...]:
    _other_vault(world)
    return RESTORE


def _other_operator(world: World) -> None:
    key = tamper.private(world, STRANGER)

    def edit(old: charters.Charter) -> charters.Charter:
        return replace(old, operator=key.signer.public)

    tamper.recharter(world, edit, STRANGER)


def _other_operator_run(world: World) -> tuple[str, ...]:
    _other_operator(world)
    return RUN


def _other_operator_restore(world: World) -> tuple[str, ...]:
    _other_operator(world)
    return RESTORE


def _recipients_unsigned(world: World) -> tuple[str, ...]:
    thief = tamper.private(world, STRANGER).box.public.hex()

    def edit(fields: dict[str, Any]) -> None:
        fields["recipients"][1]["key"] = thief

    tamper.rewrite_charter(world, edit)
    return RUN


def _recipients_by_stranger(world: World) -> tuple[str, ...]:
    tamper.recharter(world, tamper.with_recipients_of(world, OPERATOR, STRANGER), STRANGER)
    return RUN


def _recipients_by_operator(world: World) -> tuple[str, ...]:
    tamper.recharter(world, tamper.with_recipients_of(world, OPERATOR), OPERATOR)
    return RUN


def _recipients_by_operator_restore(world: World) -> tuple[str, ...]:
    tamper.recharter(world, tamper.with_recipients_of(world, OPERATOR), OPERATOR)
    return RESTORE


def _admit_and_roll_back(world: World) -> None:
    writer = tamper.stranger().public.hex()
    pinned = {name: world.path(name).read_bytes() for name in ("op.key", "op.pub")}
    for name, data in pinned.items():
        tamper.change(world, name, data)
    world.fine("vault", "admit", "file:./vault", "--key", "op.key", "--writer", writer)
    world.undo.append(world.path("vault/charters/00000002").unlink)
    tamper.remove(world, "vault/charters/00000002")


def _rolled_back_run(world: World) -> tuple[str, ...]:
    _admit_and_roll_back(world)
    return RUN


def _rolled_back_restore(world: World) -> tuple[str, ...]:
    _admit_and_roll_back(world)
    return RESTORE


def _check_with_nothing(world: World) -> tuple[str, ...]:
    return ("vault", "check", "file:./vault")


ROWS = (
    Row(
        "trust file missing",
        _trust_missing,
        4,
        sees=(
            "backstay: trust: {root}/op.pub: the trust file cannot be read: No such file or "
            "directory"
        ),
        hint="'backstay init' writes it beside the key (NAME.pub); copy it to this place",
        kept=NOT_SHIPPED,
    ),
    Row(
        "trust file damaged",
        _trust_garbage,
        4,
        sees=(
            "backstay: open key: {root}/op.pub: this is not a Backstay key file, or it is damaged"
        ),
        hint="'backstay keygen' writes NAME.key (private) and NAME.pub (public)",
        kept=NOT_SHIPPED,
    ),
    Row(
        "trust file of another vault",
        _trust_of_another,
        4,
        sees="backstay: trust: file:{root}/vault: {root}/op.pub does not know vault {vault}",
        hint=(
            "is it the right vault? Only then give the .pub file that 'backstay init' wrote "
            "for it as 'trust'"
        ),
        kept=NOT_SHIPPED,
    ),
    Row(
        "another vault at the place, run",
        _other_vault_run,
        4,
        sees="backstay: trust: file:{root}/vault: {root}/op.pub does not know vault {other}",
        hint=(
            "is it the right vault? Only then give the .pub file that 'backstay init' wrote "
            "for it as 'trust'"
        ),
        kept=NOT_SHIPPED,
    ),
    Row(
        "another vault at the place, restore",
        _other_vault_restore,
        4,
        sees="backstay: open vault: file:./vault: this key file does not know vault {other}",
        hint=(
            "give the trust file written by 'backstay init' with --trust, if this vault is "
            "the right one"
        ),
    ),
    Row(
        "vault signed by another operator, run",
        _other_operator_run,
        4,
        sees="backstay: trust: file:{root}/vault: another operator's key than the pinned one",
        hint="someone has put up a vault of their own here: do not use it",
        kept=NOT_SHIPPED,
    ),
    Row(
        "vault signed by another operator, restore",
        _other_operator_restore,
        4,
        sees="backstay: trust: file:./vault: another operator's key than the pinned one",
        hint="someone has put up a vault of their own here: do not use it",
    ),
    Row(
        "recipients swapped, not signed",
        _recipients_unsigned,
        4,
        sees=(
            "backstay: vault.json: the operator's signature does not match: it was changed "
            "by someone else"
        ),
        hint="restore the object from a copy; do not trust this vault's recipients",
        kept=NOT_SHIPPED,
    ),
    Row(
        "recipients swapped and signed by a stranger",
        _recipients_by_stranger,
        4,
        sees=(
            "backstay: vault.json: the operator's signature does not match: it was changed "
            "by someone else"
        ),
        hint="restore the object from a copy; do not trust this vault's recipients",
        kept=NOT_SHIPPED,
    ),
    Row(
        "recipients changed by the operator, config pins the old",
        _recipients_by_operator,
        4,
        sees="backstay: trust: file:{root}/vault: other recipients than the pinned ones",
        hint="if you changed them yourself, take the new trust file into the config",
        kept=NOT_SHIPPED,
    ),
    Row(
        "recipients changed by the operator, key pins the old",
        _recipients_by_operator_restore,
        4,
        sees="backstay: trust: file:./vault: other recipients than the pinned ones",
        hint="if you changed them yourself, take the new trust file into the config",
    ),
    Row(
        "charter rolled back, run",
        _rolled_back_run,
        4,
        sees="backstay: trust: file:{root}/vault: charter generation 1, already seen 2",
        hint="newer charters were removed from the vault",
        kept=NOT_SHIPPED,
    ),
    Row(
        "charter rolled back, restore",
        _rolled_back_restore,
        4,
        sees="backstay: trust: file:./vault: charter generation 1, already seen 2",
        hint="newer charters were removed from the vault",
    ),
    Row(
        "vault check without key or trust file",
        _check_with_nothing,
        2,
        sees="backstay: vault check: file:./vault: nothing to check the vault against",
        hint="give --trust NAME.pub or --key NAME.key: a vault's own word proves nothing",
    ),
)
