"""Machines, points, disks and times that are not there; targets in use: rows."""

from __future__ import annotations

from tests.faults import mounts, tamper
from tests.faults.mounts import ROOT_NEEDED
from tests.faults.row import Row
from tests.faults.world import ACCESS, MIB, World, random_bytes

_RESTORE = ("restore", "web1", *ACCESS, "--to", "out")
_READ = ("vault", "state", "root.img", "data.img", "op.key")


def _restore(*more: str) -> tuple[str, ...]:
    return (*_RESTORE, *more)


def _unknown_machine(world: World) -> tuple[str, ...]:
    return ("restore", "web2", *ACCESS, "--to", "out")


def _unknown_disk(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS, "--device", "swap=/dev/null")


def _unknown_disk_export(world: World) -> tuple[str, ...]:
    return ("export", "web1", *ACCESS, "--disk", "swap", "--listen", "unix:./sock")


def _bad_device(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS, "--device", "/dev/sdx")


def _disk_twice(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS, "--device", "root=/dev/a", "--device", "root=/dev/b")


def _nonsense(world: World) -> tuple[str, ...]:
    return _restore("--at", "yesterday noon")


def _first_year(world: World) -> tuple[str, ...]:
    return _restore("--at", "0001-01-01")


def _before(world: World) -> tuple[str, ...]:
    return _restore("--at", "1999-12-31T23:59:59Z")


def _future(world: World) -> tuple[str, ...]:
    return _restore("--at", "2099-01-01T00:00:00Z")


def _no_zone(world: World) -> tuple[str, ...]:
    return _restore("--at", "2099-01-01 12:00")


def _no_such_point(world: World) -> tuple[str, ...]:
    return _restore("--at", "#999")


def _point_zero(world: World) -> tuple[str, ...]:
    return _restore("--at", "#0")


def _expect_other(world: World) -> tuple[str, ...]:
    return _restore("--expect", f"{world.tail}#{'00' * 32}")


def _expect_beyond(world: World) -> tuple[str, ...]:
    return _restore("--expect", f"{world.tail + 5}#{'00' * 32}")


def _expect_malformed(world: World) -> tuple[str, ...]:
    return _restore("--expect", f"{world.tail}#")


def _expect_right(world: World) -> tuple[str, ...]:
    return _restore("--expect", f"{world.tail}#{world.names['digest']}")


def _newest(world: World) -> None:
    assert world.is_as_protected("out")


def _nothing_made(world: World) -> None:
    assert not world.path("out").exists()


def _exists(world: World) -> tuple[str, ...]:
    tamper.write(world.path("out/web1-data.img"), b"precious")
    return _RESTORE


def _partial_of_another(world: World) -> tuple[str, ...]:
    tamper.flip(world, world.data()[-1], -100)
    assert world.restore("out").code == 6
    world.mend()
    return _restore("--at", f"#{world.names['first']}")


def _then_the_first_goes_on(world: World) -> None:
    assert world.restore("out").code == 0
    assert world.is_as_protected("out")


def _partial_garbage(world: World) -> tuple[str, ...]:
    tamper.write(world.path("out/web1-root.img.partial"), random_bytes(5000))
    tamper.write(world.path("out/web1-root.img.partial.progress"), b"\xff\xfe")
    return _RESTORE


def _folder_is_file(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS, "--to", "c.yaml")


def _below_file(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS, "--to", "c.yaml/out")


def _read_only(world: World) -> tuple[str, ...]:
    mounts.tmpfs(world, "mnt", "1m", ",ro")
    return ("restore", "web1", *ACCESS, "--to", "mnt/out")


def _no_device(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS, "--device", "root=c.yaml", "--confirm", "web1")


def _device(world: World, size: int, *more: str) -> tuple[str, ...]:
    world.path("target.img").write_bytes(random_bytes(size))
    device = mounts.loop(world, "target.img")
    return ("restore", "web1", *ACCESS, "--device", f"root={device}", *more)


def _device_unconfirmed(world: World) -> tuple[str, ...]:
    return _device(world, 8 * MIB)


def _device_wrong_name(world: World) -> tuple[str, ...]:
    return _device(world, 8 * MIB, "--confirm", "web2")


def _device_too_small(world: World) -> tuple[str, ...]:
    return _device(world, 4 * MIB, "--confirm", "web1")


def _device_mounted(world: World) -> tuple[str, ...]:
    argv = _device(world, 8 * MIB, "--confirm", "web1")
    mounts.mounted(world, world.names["device"], "mnt")
    return argv


def _device_held(world: World) -> tuple[str, ...]:
    argv = _device(world, 8 * MIB, "--confirm", "web1")
    world.undo.append(mounts.hold(world.names["device"]))
    return argv


def _device_for_two(world: World) -> tuple[str, ...]:
    argv = _device(world, 8 * MIB, "--confirm", "web1")
    return (*argv, "--device", f"data={world.names['device']}")


def _device_good(world: World) -> tuple[str, ...]:
    return _device(world, 9 * MIB, "--confirm", "web1")


def _device_equals(world: World) -> None:
    target, source = world.path("target.img").read_bytes(), world.path("root.img").read_bytes()
    assert target[: len(source)] == source
    assert target[len(source) :] == random_bytes(9 * MIB)[len(source) :]


def _untouched_device(world: World) -> None:
    data = world.path("target.img").read_bytes()
    assert data == random_bytes(len(data))


ROWS = (
    Row("unknown machine", _unknown_machine, 13),
    Row("unknown disk, restore", _unknown_disk, 13),
    Row("unknown disk, export", _unknown_disk_export, 13),
    Row("--device without a disk", _bad_device, 2),
    Row("--device twice for a disk", _disk_twice, 2),
    Row("--at nonsense", _nonsense, 2),
    Row("--at at the edge of time", _first_year, 2),
    Row("--at before everything", _before, 13),
    Row("--at in the future", _future, 0, kept=_READ, check=_newest),
    Row("--at without a zone", _no_zone, 0, kept=_READ, check=_newest),
    Row("--at a point that is not there", _no_such_point, 13),
    Row("--at #0", _point_zero, 13),
    Row("--expect another history", _expect_other, 6, check=_nothing_made),
    Row("--expect a newer commit", _expect_beyond, 6, check=_nothing_made),
    Row("--expect malformed", _expect_malformed, 2),
    Row("--expect what is there", _expect_right, 0, kept=_READ, check=_newest),
    Row("a file to be restored exists", _exists, 12),
    Row("a partial restore of another point is there", _partial_of_another, 12, check=_then_the_first_goes_on),
    Row("a partial file of unknown origin is there", _partial_garbage, 12),
    Row("the folder to restore to is a file", _folder_is_file, 12),
    Row("the folder to restore to is below a file", _below_file, 12),
    Row("the folder to restore to cannot be written", _read_only, 12, needs=ROOT_NEEDED),
    Row("the device is no device", _no_device, 12),
    Row("device not confirmed, no terminal", _device_unconfirmed, 2, needs=ROOT_NEEDED, check=_untouched_device),
    Row("device confirmed for another machine", _device_wrong_name, 2, needs=ROOT_NEEDED, check=_untouched_device),
    Row("device too small", _device_too_small, 12, needs=ROOT_NEEDED, check=_untouched_device),
    Row("device mounted", _device_mounted, 12, needs=ROOT_NEEDED),
    Row("device in use by something else", _device_held, 12, needs=ROOT_NEEDED, check=_untouched_device),
    Row("one device for two disks", _device_for_two, 12, needs=ROOT_NEEDED, check=_untouched_device),
    Row("device that held something else", _device_good, 0, kept=_READ, needs=ROOT_NEEDED, check=_device_equals),
)
