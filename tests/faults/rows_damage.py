"""Data of the vault that is damaged or gone: rows. ``test_every_object`` tries every object."""

from __future__ import annotations

import json

from tests.faults import tamper
from tests.faults.row import PARTIAL, READ, RESTORE, VERIFY, Row, no_names
from tests.faults.world import ACCESS, World, wrong_blocks


def _first_data(world: World) -> None:
    """A byte in the middle of a frame of the first point that the newest point still needs."""
    key = world.data()[0]
    world.names["object"] = key.removeprefix("vault/")
    tamper.flip(world, key, 100)


def _damaged_verify(world: World) -> tuple[str, ...]:
    _first_data(world)
    return VERIFY


def _damaged_restore(world: World) -> tuple[str, ...]:
    _first_data(world)
    return RESTORE


def _damaged_salvage(world: World) -> tuple[str, ...]:
    _first_data(world)
    return (*RESTORE, "--salvage")


def _all_but_one_frame(world: World) -> None:
    wrong = wrong_blocks(world.path("root.img"), world.path("out/web1-root.img"))
    assert wrong == list(range(64))


def _newest_data_gone(world: World) -> None:
    key = world.data()[-1]
    world.names["object"] = key.removeprefix("vault/")
    tamper.remove(world, key)


def _newest_gone_restore(world: World) -> tuple[str, ...]:
    _newest_data_gone(world)
    return RESTORE


def _newest_gone_by_number(world: World) -> tuple[str, ...]:
    _newest_data_gone(world)
    return (*RESTORE, "--at", f"#{world.tail}")


def _second_restored(world: World) -> None:
    assert world.is_as_protected("out", like="second-")


def _drill(world: World) -> tuple[str, ...]:
    for key in world.data():
        size = world.path(key).stat().st_size
        for offset in range(100, size, 4096):
            data = bytearray(world.path(key).read_bytes())
            data[offset] ^= 1
            world.path(key).write_bytes(bytes(data))
    world.undo.clear()
    return ("key", "drill", *ACCESS, "--state", "state")


def _not_noted(world: World) -> None:
    assert json.loads(world.fine("status", "c.yaml", "--json"))["key_drilled"].startswith("never")


ROWS = (
    Row(
        "a frame damaged, verify",
        _damaged_verify,
        6,
        prints=(
            "point #{third} of web1, …\n"
            "  root: bytes 0 to 262144: {object}: frame 1/0 does not open\n"
            "DAMAGED; …"
        ),
    ),
    Row(
        "a frame damaged, restore",
        _damaged_restore,
        6,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img\n"
            "backstay: restore: web1 at commit {third}: 262144 bytes cannot be restored:\n"
            "  root: bytes 0 to 262144: {object}: frame 1/0 does not open"
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
        "a frame damaged, restore --salvage",
        _damaged_salvage,
        6,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        prints=(
            "out/web1-root.img: 8.0 MiB, 2.5 MiB of content\n"
            "out/web1-data.img: 1.0 MiB, 41.0 KiB of content\n"
            "  root: bytes 0 to 262144: {object}: frame 1/0 does not open\n"
            "DAMAGED: the extents above read as zeros"
        ),
        kept=READ,
        check=_all_but_one_frame,
    ),
    Row(
        "data of the newest point missing, restore",
        _newest_gone_restore,
        0,
        sees=(
            "note: point #{third} passed over: {object} has not all arrived\n"
            "point #{second} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        kept=READ,
        check=_second_restored,
    ),
    Row(
        "data of the newest point missing, restore by number",
        _newest_gone_by_number,
        6,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img\n"
            "backstay: restore: web1 at commit {third}: 212992 bytes cannot be restored:\n"
            "  root: bytes 2097152 to 2301952: {object}: the object is missing\n"
            "  root: bytes 7340032 to 7348224: {object}: the object is missing"
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
        "all frames damaged, drill",
        _drill,
        6,
        sees=(
            "backstay: drill: groups/{group}/data/00000001/000000000000: frame 1/0 does not open"
        ),
        hint="'backstay verify' says what can be restored",
        kept=("state",),
        check=_not_noted,
        heals=False,
    ),
)
