"""Targets of a restore that exist, are in use or cannot be written: rows."""

from __future__ import annotations

from tests.faults import mounts, tamper
from tests.faults.mounts import ROOT_NEEDED
from tests.faults.row import READ, RESTORE, Row
from tests.faults.world import ACCESS, MIB, World, random_bytes


def _bad_device(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS, "--device", "/dev/sdx")


def _disk_twice(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS, "--device", "root=/dev/a", "--device", "root=/dev/b")


def _exists(world: World) -> tuple[str, ...]:
    tamper.write(world.path("out/web1-data.img"), b"precious")
    return RESTORE


def _partial_of_another(world: World) -> tuple[str, ...]:
    tamper.flip(world, world.data()[-1], -100)
    assert world.restore("out").code == 6
    world.mend()
    return (*RESTORE, "--at", f"#{world.names['first']}")


def _then_the_first_goes_on(world: World) -> None:
    assert world.restore("out").code == 0
    assert world.is_as_protected("out")


def _partial_garbage(world: World) -> tuple[str, ...]:
    tamper.write(world.path("out/web1-root.img.partial"), random_bytes(5000))
    tamper.write(world.path("out/web1-root.img.partial.progress"), b"\xff\xfe")
    return RESTORE


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
    Row(
        "--device without a disk",
        _bad_device,
        2,
        sees="backstay: restore: /dev/sdx: not DISK=PATH",
        hint="'backstay rescue' shows the names of the disks",
    ),
    Row(
        "--device twice for a disk",
        _disk_twice,
        2,
        sees="backstay: restore: root: a place is given twice for it",
    ),
    Row(
        "a file to be restored exists",
        _exists,
        12,
        sees="backstay: restore: out/web1-data.img: exists already",
        hint="choose another folder, or move it away",
    ),
    Row(
        "a partial restore of another point is there",
        _partial_of_another,
        12,
        sees=(
            "point #{first} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img\n"
            "backstay: restore: out/web1-root.img: a partial restore of another point lies "
            "beside it"
        ),
        hint=(
            "delete out/web1-root.img.partial and out/web1-root.img.partial.progress, or "
            "choose another folder"
        ),
        check=_then_the_first_goes_on,
    ),
    Row(
        "a partial file of unknown origin is there",
        _partial_garbage,
        12,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img\n"
            "backstay: restore: out/web1-root.img: a partial restore of another point lies "
            "beside it"
        ),
        hint=(
            "delete out/web1-root.img.partial and out/web1-root.img.partial.progress, or "
            "choose another folder"
        ),
    ),
    Row(
        "the folder to restore to is a file",
        _folder_is_file,
        12,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file c.yaml/web1-root.img\n"
            "  data: 1.0 MiB to new file c.yaml/web1-data.img\n"
            "backstay: restore: c.yaml/web1-root.img: Not a directory"
        ),
        hint="give a folder or device that can be written to",
    ),
    Row(
        "the folder to restore to is below a file",
        _below_file,
        12,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file c.yaml/out/web1-root.img\n"
            "  data: 1.0 MiB to new file c.yaml/out/web1-data.img\n"
            "backstay: restore: c.yaml/out/web1-root.img: Not a directory"
        ),
        hint="give a folder or device that can be written to",
    ),
    Row(
        "the folder to restore to cannot be written",
        _read_only,
        12,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file mnt/out/web1-root.img\n"
            "  data: 1.0 MiB to new file mnt/out/web1-data.img\n"
            "backstay: restore: mnt/out/web1-root.img: Read-only file system"
        ),
        hint="give a folder or device that can be written to",
        needs=ROOT_NEEDED,
    ),
    Row(
        "the device is no device",
        _no_device,
        12,
        sees="backstay: restore: c.yaml: is not a block device",
        hint="give the path of a device",
    ),
    Row(
        "device not confirmed, no terminal",
        _device_unconfirmed,
        2,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to OVERWRITES device {device}\n"
            "backstay: restore: web1: has to be confirmed, and there is no terminal to ask on"
        ),
        hint="what is there now is lost; if that is right: --confirm web1",
        check=_untouched_device,
        needs=ROOT_NEEDED,
    ),
    Row(
        "device confirmed for another machine",
        _device_wrong_name,
        2,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to OVERWRITES device {device}\n"
            "backstay: restore: web1: not confirmed: nothing was written"
        ),
        hint="what is there now is lost; if that is right: --confirm web1",
        check=_untouched_device,
        needs=ROOT_NEEDED,
    ),
    Row(
        "device too small",
        _device_too_small,
        12,
        sees="backstay: restore: {device}: holds 4194304 bytes, the disk has 8388608",
        hint="choose a device of at least that size",
        check=_untouched_device,
        needs=ROOT_NEEDED,
    ),
    Row(
        "device mounted",
        _device_mounted,
        12,
        sees="backstay: restore: {device}: is in use at {root}/mnt",
        hint="unmount it first",
        needs=ROOT_NEEDED,
    ),
    Row(
        "device in use by something else",
        _device_held,
        12,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to OVERWRITES device {device}\n"
            "backstay: restore: {device}: is in use (mounted, or part of RAID, LVM, swap)"
        ),
        hint="free it first, or give another device",
        check=_untouched_device,
        needs=ROOT_NEEDED,
    ),
    Row(
        "one device for two disks",
        _device_for_two,
        12,
        sees="backstay: restore: {device}: is given for two disks",
        hint="every disk needs a device of its own",
        check=_untouched_device,
        needs=ROOT_NEEDED,
    ),
    Row(
        "device that held something else",
        _device_good,
        0,
        sees=("point #{third} of web1, …, quiet\n  root: 8.0 MiB to OVERWRITES device {device}"),
        kept=READ,
        check=_device_equals,
        needs=ROOT_NEEDED,
    ),
)
