"""Machines, points, disks and times that are not there: rows."""

from __future__ import annotations

from tests.faults.row import READ, RESTORE, Row
from tests.faults.world import ACCESS, World


def _unknown_machine(world: World) -> tuple[str, ...]:
    return ("restore", "web2", *ACCESS, "--to", "out")


def _unknown_disk(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS, "--device", "swap=/dev/null")


def _unknown_disk_export(world: World) -> tuple[str, ...]:
    return ("export", "web1", *ACCESS, "--disk", "swap", "--listen", "unix:./sock")


def _nonsense(world: World) -> tuple[str, ...]:
    return (*RESTORE, "--at", "yesterday noon")


def _first_year(world: World) -> tuple[str, ...]:
    return (*RESTORE, "--at", "0001-01-01")


def _before(world: World) -> tuple[str, ...]:
    return (*RESTORE, "--at", "1999-12-31T23:59:59Z")


def _future(world: World) -> tuple[str, ...]:
    return (*RESTORE, "--at", "2099-01-01T00:00:00Z")


def _no_zone(world: World) -> tuple[str, ...]:
    return (*RESTORE, "--at", "2099-01-01 12:00")


def _no_such_point(world: World) -> tuple[str, ...]:
    return (*RESTORE, "--at", "#999")


def _point_zero(world: World) -> tuple[str, ...]:
    return (*RESTORE, "--at", "#0")


def _expect_other(world: World) -> tuple[str, ...]:
    return (*RESTORE, "--expect", f"{world.tail}#{'00' * 32}")


def _expect_beyond(world: World) -> tuple[str, ...]:
    return (*RESTORE, "--expect", f"{world.tail + 5}#{'00' * 32}")


def _expect_malformed(world: World) -> tuple[str, ...]:
    return (*RESTORE, "--expect", f"{world.tail}#")


def _expect_right(world: World) -> tuple[str, ...]:
    return (*RESTORE, "--expect", f"{world.tail}#{world.names['digest']}")


def _newest(world: World) -> None:
    assert world.is_as_protected("out")


def _nothing_made(world: World) -> None:
    assert not world.path("out").exists()


ROWS = (
    Row(
        "unknown machine",
        _unknown_machine,
        13,
        sees="backstay: find machine: web2: no machine of this name in the vault",
        hint="machines in this vault: db1, web1",
    ),
    Row(
        "unknown disk, restore",
        _unknown_disk,
        13,
        sees="backstay: web1/swap: no such disk at this point",
        hint="disks: root, data",
    ),
    Row(
        "unknown disk, export",
        _unknown_disk_export,
        13,
        sees="backstay: web1/swap: no such disk at this point",
        hint="disks: root, data",
    ),
    Row(
        "--at nonsense",
        _nonsense,
        2,
        sees="backstay: --at: yesterday noon: neither a point nor a time",
        hint="give '#12', or a time like 2026-03-01T12:00:00Z or '2026-03-01 12:00:00+01:00'",
    ),
    Row(
        "--at at the edge of time",
        _first_year,
        2,
        sees="backstay: --at: 0001-01-01: neither a point nor a time",
        hint="give '#12', or a time like 2026-03-01T12:00:00Z or '2026-03-01 12:00:00+01:00'",
    ),
    Row(
        "--at before everything",
        _before,
        13,
        sees=("backstay: choose point: web1: there is no consistent point at or before that time"),
        hint="the first consistent point is #{first} of …",
    ),
    Row(
        "--at in the future",
        _future,
        0,
        sees=(
            "note: #{third} of … is the last consistent point at or before that time; it is "
            "the last\n"
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        kept=READ,
        check=_newest,
    ),
    Row(
        "--at without a zone",
        _no_zone,
        0,
        sees=(
            "note: --at has no zone: taken as local time, 2099-01-01T12:00:00…\n"
            "note: #{third} of … is the last consistent point at or before that time; it is "
            "the last\n"
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        kept=READ,
        check=_newest,
    ),
    Row(
        "--at a point that is not there",
        _no_such_point,
        13,
        sees="backstay: choose point: web1: there is no point #999",
        hint="points are #1 to #{third}; 'backstay points' lists them",
    ),
    Row(
        "--at #0",
        _point_zero,
        13,
        sees="backstay: choose point: web1: there is no point #0",
        hint="points are #1 to #{third}; 'backstay points' lists them",
    ),
    Row(
        "--expect another history",
        _expect_other,
        6,
        sees=(
            "backstay: restore: groups/{group}/log/{log}: commit {third} is not the expected one"
        ),
        hint="this is another history than the one you remember",
        check=_nothing_made,
    ),
    Row(
        "--expect a newer commit",
        _expect_beyond,
        6,
        sees=(
            "backstay: restore: file:./vault: the vault ends at commit {third}, commit … was "
            "expected"
        ),
        hint="newer commits were removed, or this is an older copy of the vault",
        check=_nothing_made,
    ),
    Row(
        "--expect malformed",
        _expect_malformed,
        2,
        sees="backstay: restore: {tail}#: not SEQ#DIGEST, with at least 16 hex digits",
        hint="'backstay points --json' shows the digest of every point",
    ),
    Row(
        "--expect what is there",
        _expect_right,
        0,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        kept=READ,
        check=_newest,
    ),
)
