"""Disks that are missing, shrunk, busy or changing; hooks that fail: rows."""

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
from tests.faults.row import Row
from tests.faults.world import ACCESS, MIB, Said, World, overwrite, same_bytes

_RUN = ("run", "c.yaml", "--once", "--machine", "web1")
_KEPT = ("vault", "op.key", "op.pub", "state/writer.key")
_EXTENDED = ("op.key", "op.pub", "state/writer.key")
_OTHERS = "the vault is as it was; other machines are protected all the same"


def _missing(world: World) -> tuple[str, ...]:
    tamper.move(world, "data.img", "data.away")
    return _RUN


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
    return _RUN


def _shrink(world: World) -> None:
    tamper.change(world, "data.img", world.path("data.img").read_bytes()[: MIB // 2])
    world.undo.clear()


def _shrunk(world: World) -> tuple[str, ...]:
    old = world.path("data.img").read_bytes()
    _shrink(world)
    world.undo.append(lambda: tamper.write(world.path("data.img"), old))
    return _RUN


def _shrink_accepted(world: World) -> tuple[str, ...]:
    _shrink(world)
    return (*_RUN, "--accept-shrink")


def _older_points_keep_their_size(world: World) -> None:
    world.fine("restore", "web1", *ACCESS, "--to", "old", "--at", f"#{world.names['first']}")
    assert world.is_as_protected("old", like="first-")


def _grown(world: World) -> tuple[str, ...]:
    with world.path("data.img").open("ab") as file:
        file.write(b"more" * 1000)
    return _RUN


def _flocked(world: World) -> tuple[str, ...]:
    holder = world.path("data.img").open("rb")
    fcntl.flock(holder, fcntl.LOCK_EX)
    world.undo.append(holder.close)
    return _RUN


def _over_device(world: World) -> None:
    """Put the data disk of the config on a loop device."""
    device = mounts.loop(world, "data.img")
    config = world.path("c.yaml").read_text().replace("./data.img", device)
    tamper.change(world, "c.yaml", config.encode())


def _on_device(world: World) -> tuple[str, ...]:
    world.path("data.img").write_bytes(bytes(2 * MIB))
    _over_device(world)
    return _RUN


def _mounted(world: World) -> tuple[str, ...]:
    world.path("data.img").write_bytes(bytes(2 * MIB))
    _over_device(world)
    mounts.mounted(world, world.names["device"], "mnt")
    return _RUN


def _held_exclusively(world: World) -> tuple[str, ...]:
    """Half of the device is mapped to another one, as RAID and LVM would do."""
    world.path("data.img").write_bytes(bytes(2 * MIB))
    _over_device(world)
    other = mounts.hold(world.names["device"])
    world.undo.append(other)
    return _RUN


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


def _keep_third(world: World) -> tuple[str, ...]:
    for image in ("root.img", "data.img"):
        tamper.write(world.path(f"third-{image}"), world.path(image).read_bytes())
    return _RUN


def _hooked(world: World, pre: str, post: str) -> None:
    for name, script in (("pre", pre), ("post", post)):
        path = world.path(name)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    old = "{path: ./data.img, capture: scan}"
    new = "{path: ./data.img, capture: scan, snapshot: {pre: ./pre, post: ./post}}"
    tamper.change(world, "c.yaml", world.path("c.yaml").read_text().replace(old, new).encode())


def _pre_fails(world: World) -> tuple[str, ...]:
    _hooked(world, "echo cannot freeze; exit 3", "touch thawed")
    return _RUN


def _post_fails(world: World) -> tuple[str, ...]:
    _hooked(world, "true", "echo cannot thaw; exit 4")
    return _RUN


def _pre_missing(world: World) -> tuple[str, ...]:
    _hooked(world, "true", "touch thawed")
    tamper.remove(world, "pre")
    return _RUN


def _scan_fails_in_hook(world: World) -> tuple[str, ...]:
    _hooked(world, "rm data.img", "touch thawed")
    old = world.path("data.img").read_bytes()
    world.undo.append(lambda: tamper.write(world.path("data.img"), old))
    return _RUN


def _thawed(world: World) -> None:
    assert world.path("thawed").exists()


ROWS = (
    Row("disk missing", _missing, 7, kept=_KEPT),
    Row("disk of one machine missing, another is protected", _missing_of_two, 7, kept=_EXTENDED, check=_other_machine_protected, state=_OTHERS),
    Row("disk is a folder", _folder, 7, kept=_KEPT),
    Row("disk shrunk", _shrunk, 7, kept=_KEPT),
    Row("disk shrunk, accepted", _shrink_accepted, 0, kept=_EXTENDED, check=_older_points_keep_their_size),
    Row("disk grown", _grown, 0, kept=_EXTENDED, check=_older_points_keep_their_size),
    Row("disk file locked by another process", _flocked, 7, kept=_EXTENDED),
    Row("disk is a device at rest", _on_device, 0, kept=_EXTENDED, needs=ROOT_NEEDED),
    Row("disk is a mounted device", _mounted, 7, kept=_EXTENDED, needs=ROOT_NEEDED),
    Row("disk is a device held by something else", _held_exclusively, 7, kept=_EXTENDED, needs=ROOT_NEEDED),
    Row("disk changed while it was read", _keep_third, 7, kept=_EXTENDED, check=_fuzzy_point_is_not_chosen, act=_changing),
    Row("freeze hook fails", _pre_fails, 7, kept=_EXTENDED, check=_thawed),
    Row("freeze hook missing", _pre_missing, 7, kept=_EXTENDED, check=_thawed),
    Row("thaw hook fails", _post_fails, 7, kept=_EXTENDED),
    Row("disk vanishes after the freeze hook", _scan_fails_in_hook, 7, kept=_EXTENDED, check=_thawed),
)
