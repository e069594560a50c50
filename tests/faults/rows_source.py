"""Disks that are missing, shrunk, busy or changing: rows."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from stages.capture.scan import Scan
from tests.faults import mounts, tamper
from tests.faults.mounts import ROOT_NEEDED
from tests.faults.row import NOT_SHIPPED, RUN, SHIPPED, Row
from tests.faults.world import ACCESS, MIB, Said, World, overwrite, same_bytes

_OTHERS = "the vault is as it was; other machines are protected all the same"


def _missing(world: World) -> tuple[str, ...]:
    tamper.move(world, "data.img", "data.away")
    return RUN


def _missing_of_two(world: World) -> tuple[str, ...]:
    tamper.move(world, "data.img", "data.away")
    return ("run", "c.yaml", "--once")


def _other_machine_protected(world: World) -> None:
    listing = json.loads(world.fine("points", "db1", *ACCESS, "--json"))
    assert len(listing["points"]) == 2


def _folder(world: World) -> tuple[str, ...]:
    tamper.move(world, "data.img", "data.away")
    world.path("data.img").mkdir()
    world.undo.append(world.path("data.img").rmdir)
    return RUN


def _shrink(world: World) -> None:
    tamper.change(world, "data.img", world.path("data.img").read_bytes()[: MIB // 2])
    world.undo.clear()


def _shrunk(world: World) -> tuple[str, ...]:
    old = world.path("data.img").read_bytes()
    _shrink(world)
    world.undo.append(lambda: tamper.write(world.path("data.img"), old))
    return RUN


def _shrink_accepted(world: World) -> tuple[str, ...]:
    _shrink(world)
    return (*RUN, "--accept-shrink")


def _older_points_keep_their_size(world: World) -> None:
    world.fine("restore", "web1", *ACCESS, "--to", "old", "--at", f"#{world.names['first']}")
    assert world.is_as_protected("old", like="first-")


def _grown(world: World) -> tuple[str, ...]:
    with world.path("data.img").open("ab") as file:
        file.write(b"more" * 1000)
    return RUN


def _flocked(world: World) -> tuple[str, ...]:
    holder = world.path("data.img").open("rb")
    fcntl.flock(holder, fcntl.LOCK_EX)
    world.undo.append(holder.close)
    return RUN


def _over_device(world: World) -> None:
    """Put the data disk of the config on a loop device."""
    device = mounts.loop(world, "data.img")
    config = world.path("c.yaml").read_text().replace("./data.img", device)
    tamper.change(world, "c.yaml", config.encode())


def _on_device(world: World) -> tuple[str, ...]:
    world.path("data.img").write_bytes(bytes(2 * MIB))
    _over_device(world)
    return RUN


def _mounted(world: World) -> tuple[str, ...]:
    world.path("data.img").write_bytes(bytes(2 * MIB))
    _over_device(world)
    mounts.mounted(world, world.names["device"], "mnt")
    return RUN


def _held_exclusively(world: World) -> tuple[str, ...]:
    """Half of the device is mapped to another one, as RAID and LVM would do."""
    world.path("data.img").write_bytes(bytes(2 * MIB))
    _over_device(world)
    other = mounts.hold(world.names["device"])
    world.undo.append(other)
    return RUN


@contextmanager
def _written_during(world: World) -> Iterator[None]:
    """Someone writes to a disk after it was read and before the scan is over."""
    original: Callable[..., Any] = Scan._scan

    async def scan(self: Scan, *args: Any) -> None:
        await original(self, *args)
        overwrite(world.path("root.img"), {100: b"written meanwhile"})

    with patch.object(Scan, "_scan", scan):
        yield


def _changing(world: World, argv: tuple[str, ...]) -> Said:
    with _written_during(world):
        return world.backstay(*argv)


def _fuzzy_point_is_not_chosen(world: World) -> None:
    number = world.tail + 1
    said = world.restore("chosen")
    assert said.code == 0
    assert f"point #{world.tail} " in said.err
    assert same_bytes(world.path("chosen/web1-root.img"), world.path("third-root.img"))
    said = world.restore("fuzzy", "--at", f"#{number}")
    assert said.code == 0
    assert f"note: point #{number} is not consistent" in said.err


def _at_rest(world: World) -> tuple[str, ...]:
    return RUN


ROWS = (
    Row(
        "disk missing",
        _missing,
        7,
        sees="backstay: protect: web1/data: {root}/data.img: does not exist",
        hint="is it mounted or attached? Paths in the config count from the config's folder",
        kept=NOT_SHIPPED,
    ),
    Row(
        "disk of one machine missing, another is protected",
        _missing_of_two,
        7,
        sees="backstay: protect: web1/data: {root}/data.img: does not exist",
        hint="is it mounted or attached? Paths in the config count from the config's folder",
        state=_OTHERS,
        kept=SHIPPED,
        check=_other_machine_protected,
    ),
    Row(
        "disk is a folder",
        _folder,
        7,
        sees=(
            "backstay: protect: web1/data: {root}/data.img: is neither a file nor a block device"
        ),
        hint="is it mounted or attached? Paths in the config count from the config's folder",
        kept=NOT_SHIPPED,
    ),
    Row(
        "disk shrunk",
        _shrunk,
        7,
        sees=(
            "backstay: protect: web1/data: {root}/data.img: has 524288 bytes, the vault "
            "knows it with 1049576"
        ),
        hint="if it was made smaller on purpose: backstay run --once --accept-shrink",
        kept=NOT_SHIPPED,
    ),
    Row(
        "disk shrunk, accepted",
        _shrink_accepted,
        0,
        prints="web1: point #{next} (consistent): …",
        kept=SHIPPED,
        check=_older_points_keep_their_size,
    ),
    Row(
        "disk grown",
        _grown,
        0,
        prints="web1: point #{next} (consistent): …",
        kept=SHIPPED,
        check=_older_points_keep_their_size,
    ),
    Row(
        "disk file locked by another process",
        _flocked,
        7,
        sees=(
            "backstay: open disk: {root}/data.img: is already protected by another process, "
            "or by another entry of this configuration"
        ),
        hint="find it with `fuser -v` on the file; a disk can be protected only once",
        kept=SHIPPED,
    ),
    Row(
        "disk is a device at rest",
        _on_device,
        0,
        prints="web1: point #{next} (consistent): …",
        kept=SHIPPED,
        needs=ROOT_NEEDED,
    ),
    Row(
        "disk is a mounted device",
        _mounted,
        7,
        sees="backstay: open disk: {device}: is mounted on {root}/mnt",
        hint="unmount it, configure a `snapshot` hook, or capture it with `capture: nbd`",
        kept=SHIPPED,
        needs=ROOT_NEEDED,
    ),
    Row(
        "disk is a device held by something else",
        _held_exclusively,
        7,
        sees="backstay: open disk: {device}: is in use (mounted, or part of RAID, LVM, swap)",
        hint="unmount it, configure a `snapshot` hook, or capture it with `capture: nbd`",
        kept=SHIPPED,
        needs=ROOT_NEEDED,
    ),
    Row(
        "disk changed while it was read",
        _at_rest,
        7,
        sees=(
            "backstay: protect: web1: changed while it was read: point #{next} mixes moments "
            "and is chosen only by its number"
        ),
        hint="run this while nothing writes there, or configure a `snapshot` hook",
        prints="web1: point #{next} (fuzzy, not consistent): …",
        kept=SHIPPED,
        check=_fuzzy_point_is_not_chosen,
        act=_changing,
    ),
)
