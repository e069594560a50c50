"""Commits, records and keys that are damaged or gone: rows."""

from __future__ import annotations

from tests.faults import tamper
from tests.faults.row import PARTIAL, READ, RESTORE, Row, no_names
from tests.faults.world import ACCESS, World, wrong_blocks


def _commit(world: World, seq: int) -> None:
    world.names["object"] = world.commit(seq).removeprefix("vault/")


def _hole(world: World) -> None:
    seq = int(world.names["second"])
    _commit(world, seq)
    tamper.remove(world, world.commit(seq))


def _hole_restore(world: World) -> tuple[str, ...]:
    _hole(world)
    return RESTORE


def _hole_restore_newest(world: World) -> tuple[str, ...]:
    _hole(world)
    return (*RESTORE, "--at", f"#{world.names['third']}")


def _hole_before(world: World) -> tuple[str, ...]:
    _hole(world)
    return (*RESTORE, "--at", f"#{world.names['first']}")


def _hole_salvage(world: World) -> tuple[str, ...]:
    _hole(world)
    return (*RESTORE, "--salvage")


def _older_where_listed(world: World) -> None:
    """Of the lost commit, 300 KiB of one disk and 40 KiB of the other are as before it."""
    restored = world.path("out/web1-root.img")
    wrong = set(wrong_blocks(world.path("root.img"), restored))
    assert wrong
    assert not wrong & set(wrong_blocks(world.path("first-root.img"), restored))


def _hole_points(world: World) -> tuple[str, ...]:
    _hole(world)
    return ("points", "web1", *ACCESS)


def _first_restored(world: World) -> None:
    assert world.is_as_protected("out", like="first-")


def _tail_damaged(world: World) -> tuple[str, ...]:
    _commit(world, world.tail)
    tamper.flip(world, world.commit(world.tail), 200)
    return RESTORE


def _tail_gone(world: World) -> tuple[str, ...]:
    tamper.remove(world, world.commit(world.tail))
    return (*RESTORE, "--expect", f"{world.tail}#{world.names['digest']}")


def _group_record(world: World) -> tuple[str, ...]:
    tamper.remove(world, world.object("group"))
    return RESTORE


def _term(world: World) -> tuple[str, ...]:
    tamper.remove(world, world.object("epochs/00000001/term"))
    return RESTORE


def _own_key(world: World, epoch: int, use: str) -> None:
    recipient = tamper.private(world, tamper.OPERATOR).box.public.hex()
    world.names["recipient"] = recipient
    tamper.remove(world, world.object(f"epochs/{epoch:08d}/for/{recipient}/{use}"))


def _data_key(world: World) -> tuple[str, ...]:
    _own_key(world, 3, "data")
    return RESTORE


def _data_key_of_one(world: World) -> tuple[str, ...]:
    """The other recipient has lost nothing."""
    _own_key(world, 3, "data")
    pin = ("--trust", "op.pub")
    return ("restore", "web1", *ACCESS[:2], "--key", "second.key", *pin, "--to", "out")


def _machine_record(world: World) -> tuple[str, ...]:
    tamper.remove(world, world.object("machine/00000001"))
    return ("points", "web1", *ACCESS)


def _machine_record_rescue(world: World) -> tuple[str, ...]:
    tamper.remove(world, world.object("machine/00000001"))
    return ("rescue", *ACCESS)


def _machine_record_other(world: World) -> tuple[str, ...]:
    tamper.remove(world, world.object("machine/00000001"))
    return ("restore", "db1", *ACCESS, "--to", "out")


def _newest_restored(world: World) -> None:
    assert world.is_as_protected("out")


ROWS = (
    Row(
        "a commit missing, restore",
        _hole_restore,
        0,
        sees=(
            "note: point #{third} passed over: {object} has not all arrived\n"
            "note: read log: {object}: commit {second} is missing, later ones exist\n"
            "note: read log: {object}: a commit is missing\n"
            "point #{first} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        kept=READ,
        check=_first_restored,
    ),
    Row(
        "a commit missing, restore by number",
        _hole_restore_newest,
        6,
        sees="backstay: read log: {object}: a commit is missing",
        hint=(
            "points before it do not need it ('backstay points'); --salvage, if it can go on "
            "without, restores the rest and lists what may be older"
        ),
    ),
    Row(
        "a commit missing, a point before it",
        _hole_before,
        0,
        sees=(
            "note: read log: {object}: commit {second} is missing, later ones exist\n"
            "point #{first} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        kept=READ,
        check=_first_restored,
    ),
    Row(
        "a commit missing, restore --salvage",
        _hole_salvage,
        6,
        sees=(
            "note: read log: {object}: commit {second} is missing, later ones exist\n"
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        prints=(
            "out/web1-root.img: 8.0 MiB, 2.8 MiB of content\n"
            "out/web1-data.img: 1.0 MiB, 81.0 KiB of content\n"
            "  root: bytes 0 to 2097152: {object}: may be older: a commit is missing\n"
            "  root: bytes 2301952 to 7340032: {object}: may be older: a commit is missing\n"
            "  root: bytes 7348224 to 8388608: {object}: may be older: a commit is missing\n"
            "  data: bytes 0 to 1049576: {object}: may be older: a commit is missing\n"
            "DAMAGED: the extents above read as zeros or, where they may be older, as at an "
            "earlier moment"
        ),
        kept=READ,
        check=_older_where_listed,
    ),
    Row(
        "a commit missing, points",
        _hole_points,
        0,
        prints=(
            "   POINT  TIME                                                       CLASS    "
            "STORED\n"
            "      #{third}  …   quiet    208.1 KiB\n"
            "      #{first}  …   quiet    1.7 MiB\n"
            "note: read log: {object}: commit {second} is missing, later ones exist\n"
            "note: read log: {object}: a commit is missing"
        ),
    ),
    Row(
        "the newest commit damaged, restore",
        _tail_damaged,
        6,
        sees="backstay: {object}: the signature does not verify",
        hint="'backstay points --all' lists what is whole; give one as --at '#NUMBER'",
    ),
    Row(
        "the newest commit gone, restore --expect",
        _tail_gone,
        6,
        sees=(
            "backstay: restore: file:./vault: the vault ends at commit {second}, commit "
            "{third} was expected"
        ),
        hint="newer commits were removed, or this is an older copy of the vault",
    ),
    Row(
        "the group's record missing, restore",
        _group_record,
        0,
        sees=(
            "note: groups/{group}/group: the group's record is missing\n"
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        kept=READ,
        check=_newest_restored,
    ),
    Row(
        "a term missing, restore",
        _term,
        0,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        kept=READ,
        check=_newest_restored,
    ),
    Row(
        "a recipient's data key missing, restore",
        _data_key,
        6,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img\n"
            "backstay: restore: web1 at commit {third}: 212992 bytes cannot be restored:\n"
            "  root: bytes 2097152 to 2301952: groups/{group}/data/00000003/000000000000: "
            "groups/{group}/epochs/00000003/for/{recipient}/data: a wrapped key is missing\n"
            "  root: bytes 7340032 to 7348224: groups/{group}/data/00000003/000000000000: "
            "groups/{group}/epochs/00000003/for/{recipient}/data: a wrapped key is missing"
        ),
        hint=(
            "another point may be whole ('backstay verify'); the same command with --salvage "
            "puts zeros there and finishes out/web1-root.img.partial, "
            "out/web1-data.img.partial"
        ),
        state=PARTIAL,
        kept=READ,
        check=no_names,
    ),
    Row(
        "a recipient's data key missing, restore by the other",
        _data_key_of_one,
        0,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        kept=READ,
        check=_newest_restored,
    ),
    Row(
        "the machine record missing, points",
        _machine_record,
        6,
        sees="backstay: find machine: web1: no machine of this name among what can be read",
        hint=(
            "machines in this vault: db1; groups/{group}/machine/00000001: a machine record "
            "is missing"
        ),
    ),
    Row(
        "the machine record missing, rescue",
        _machine_record_rescue,
        0,
        prints=(
            "db1  (group …)\n"
            "  disk all: 1.0 MiB\n"
            "  newest consistent point: #1, …\n"
            "  next: backstay restore db1 --vault file:./vault --key op.key --to "
            "./restored-db1\n"
            "problem: group {group}: groups/{group}/machine/00000001: a machine record is "
            "missing"
        ),
    ),
    Row(
        "the machine record missing, another machine",
        _machine_record_other,
        0,
        sees=("point #1 of db1, …, quiet\n  all: 1.0 MiB to new file out/db1-all.img"),
        kept=READ,
    ),
)
