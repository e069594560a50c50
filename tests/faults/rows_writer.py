"""Vaults of other versions, writers that nobody admitted, forks: rows."""

from __future__ import annotations

import shutil
from typing import Any
from unittest.mock import patch

from stages.ship.session import LogSession
from tests.faults import tamper
from tests.faults.row import NOT_SHIPPED, POINTS, RESTORE, RUN, SHIPPED, Row
from tests.faults.tamper import OPERATOR
from tests.faults.world import ACCESS, MIB, Said, World, overwrite, text_like


def _format(fields: dict[str, Any]) -> None:
    fields["format"] = 99


def _format_run(world: World) -> tuple[str, ...]:
    tamper.resign_charter(world, _format, OPERATOR)
    return RUN


def _format_restore(world: World) -> tuple[str, ...]:
    tamper.resign_charter(world, _format, OPERATOR)
    return RESTORE


def _container_version(world: World, seq: int) -> None:
    data = bytearray(world.path(world.commit(seq)).read_bytes())
    data[4] = 2
    tamper.change(world, world.commit(seq), bytes(data))


def _container_version_restore(world: World) -> tuple[str, ...]:
    _container_version(world, world.tail)
    return RESTORE


def _container_version_older(world: World) -> tuple[str, ...]:
    _container_version(world, world.tail)
    return (*RESTORE, "--at", f"#{world.names['second']}")


def _container_version_run(world: World) -> tuple[str, ...]:
    _container_version(world, world.tail)
    return RUN


def _older_restored(world: World) -> None:
    assert world.is_as_protected("out", like="second-")


def _newest_restored(world: World) -> None:
    assert world.is_as_protected("out")


def _not_admitted(world: World) -> tuple[str, ...]:
    tamper.move(world, "state", "old-state")
    world.path("state").mkdir()
    return RUN


def _foreign_commit_run(world: World) -> tuple[str, ...]:
    world.names["foreign"] = tamper.foreign_commit(world)
    return RUN


def _foreign_commit_points(world: World) -> tuple[str, ...]:
    world.names["foreign"] = tamper.foreign_commit(world)
    return POINTS


def _foreign_commit_restore(world: World) -> tuple[str, ...]:
    world.names["foreign"] = tamper.foreign_commit(world)
    return RESTORE


def _foreign_commit_verify(world: World) -> tuple[str, ...]:
    world.names["foreign"] = tamper.foreign_commit(world)
    return ("verify", "web1", *ACCESS)


def _foreign_term_run(world: World) -> tuple[str, ...]:
    world.names["foreign"] = tamper.foreign_term(world, 4)
    return RUN


def _foreign_term_verify(world: World) -> tuple[str, ...]:
    world.names["foreign"] = tamper.foreign_term(world, 4)
    return ("verify", "web1", *ACCESS)


def _run(world: World) -> tuple[str, ...]:
    overwrite(world.path("root.img"), {6 * MIB: text_like(3000)})
    return RUN


def _term_during(world: World, argv: tuple[str, ...]) -> Said:
    """A stranger claims the next epoch while a run is under way."""
    original: Any = LogSession.advance

    async def advance(self: LogSession, *rest: Any) -> Any:
        world.names["foreign"] = tamper.foreign_term(world, 5)
        return await original(self, *rest)

    with patch.object(LogSession, "advance", advance):
        return world.backstay(*argv)


def _fenced(world: World) -> tuple[str, ...]:
    """Another daemon has gone on with a copy of this state."""
    shutil.copytree(world.path("state"), world.path("copy"))
    overwrite(world.path("root.img"), {6 * MIB: text_like(3000)})
    world.fine(*RUN)
    newer = world.path("state")
    newer.rename(world.path("newer"))
    world.path("copy").rename(newer)

    def back() -> None:
        shutil.rmtree(newer)
        world.path("newer").rename(newer)

    world.undo.append(back)
    return RUN


def _older_copy(world: World) -> tuple[str, ...]:
    """The vault was brought back from a copy in which the newest commit is not."""
    tamper.remove(world, world.commit(world.tail))
    return RUN


ROWS = (
    Row(
        "vault of another version, run",
        _format_run,
        5,
        sees="backstay: vault.json: vault format 99, this program reads 1",
        hint="use the Backstay release that wrote this vault, or a newer one",
        kept=NOT_SHIPPED,
    ),
    Row(
        "vault of another version, restore",
        _format_restore,
        5,
        sees="backstay: vault.json: vault format 99, this program reads 1",
        hint="use the Backstay release that wrote this vault, or a newer one",
    ),
    Row(
        "newest commit of another version, restore",
        _container_version_restore,
        5,
        sees="backstay: groups/{group}/log/{log}: format version 2, this program reads 1",
        hint="use the Backstay release that wrote this vault, or a newer one",
    ),
    Row(
        "newest commit of another version, older point",
        _container_version_older,
        0,
        sees=(
            "point #{second} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        kept=("vault", "state"),
        check=_older_restored,
    ),
    Row(
        "newest commit of another version, run",
        _container_version_run,
        5,
        sees="backstay: groups/{group}/log/{log}: format version 2, this program reads 1",
        hint="use the Backstay release that wrote this vault, or a newer one",
        kept=NOT_SHIPPED,
    ),
    Row(
        "daemon not admitted",
        _not_admitted,
        4,
        sees=("backstay: open vault: file:{root}/vault: this daemon's signing key is not admitted"),
        hint="backstay vault admit file:{root}/vault --key KEY --writer …",
        kept=NOT_SHIPPED[:-1],
    ),
    Row(
        "a stranger's commit at the tail, run",
        _foreign_commit_run,
        4,
        sees=(
            "backstay: commit: {foreign}: its place in the log is taken: written by "
            "03a107bff3ce10be, who is not admitted"
        ),
        hint=(
            "someone with access to the store put it there; remove it with an operator's "
            "credentials after a look at it"
        ),
        kept=NOT_SHIPPED,
    ),
    Row(
        "a stranger's commit at the tail, points",
        _foreign_commit_points,
        0,
        prints=(
            "   POINT  TIME                                                       CLASS    "
            "STORED\n"
            "      #{third}  …   quiet    208.1 KiB\n"
            "      #{second}  …   quiet    300.2 KiB\n"
            "      #{first}  …   quiet    1.7 MiB\n"
            "note: {foreign}: written by 03a107bff3ce10be, who is not admitted"
        ),
    ),
    Row(
        "a stranger's commit at the tail, restore",
        _foreign_commit_restore,
        0,
        sees=(
            "note: {foreign}: written by 03a107bff3ce10be, who is not admitted\n"
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        kept=("vault", "state"),
        check=_newest_restored,
    ),
    Row(
        "a stranger's commit at the tail, verify",
        _foreign_commit_verify,
        0,
        prints=(
            "point #{third} of web1, …\n"
            "  {foreign}: written by 03a107bff3ce10be, who is not admitted\n"
            "whole: it can be restored; …"
        ),
    ),
    Row(
        "a stranger's term, run",
        _foreign_term_run,
        0,
        prints="web1: point #{next} (consistent): …",
        kept=(),
    ),
    Row(
        "a stranger's term during a run",
        _run,
        4,
        sees=(
            "backstay: commit: {foreign}: the place of the next term is taken: written by "
            "03a107bff3ce10be, who is not admitted"
        ),
        hint=(
            "someone with access to the store put it there: find out who; the next run begins a "
            "term after it"
        ),
        state="the commit that was just put counts; the next run takes it up and goes on",
        kept=SHIPPED,
        act=_term_during,
    ),
    Row(
        "a stranger's term, verify",
        _foreign_term_verify,
        0,
        prints=(
            "point #{third} of web1, …\n"
            "  {foreign}: written by 03a107bff3ce10be, who is not admitted\n"
            "whole: it can be restored; …"
        ),
    ),
    Row(
        "fenced: another daemon has gone on with a copy of the state",
        _fenced,
        10,
        sees=(
            "backstay: commit: groups/{group}/log/{nextlog}: epoch 4 of writer … has written "
            "this commit"
        ),
        hint=(
            "another daemon protects this machine with a copy of this state, or a failover "
            "took place: stop one of them; this one ships nothing more"
        ),
        kept=NOT_SHIPPED,
    ),
    Row(
        "the vault is an older copy",
        _older_copy,
        6,
        sees=(
            "backstay: open log: groups/{group}/log/{log}: a commit that this daemon made is "
            "not in the vault any more"
        ),
        hint=(
            "was the vault restored from an older copy? Move the machine's state folder away "
            "to begin a new base beside the old points"
        ),
        kept=NOT_SHIPPED,
    ),
)
