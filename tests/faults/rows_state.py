"""State folders that are locked or damaged: rows."""

from __future__ import annotations

import fcntl

from tests.faults import tamper
from tests.faults.row import NOT_SHIPPED, RUN, Row
from tests.faults.world import ACCESS, World, overwrite, random_bytes

_NEW_BASE = "nothing was written; put the file back, or move the folder away for a new base"


def _folder(world: World) -> str:
    return f"state/machines/web1/{world.names['vault']}"


def _locked(world: World) -> tuple[str, ...]:
    holder = world.path("state/lock").open("rb")
    fcntl.flock(holder, fcntl.LOCK_EX)
    world.undo.append(holder.close)
    return RUN


def _state_is_file(world: World) -> tuple[str, ...]:
    tamper.move(world, "state", "state.away")
    tamper.write(world.path("state"), b"")
    world.undo.append(world.path("state").unlink)
    return RUN


def _writer_key(world: World) -> tuple[str, ...]:
    tamper.change(world, "state/writer.key", b'{"seed": "nonsense"}')
    return RUN


def _identity(world: World) -> tuple[str, ...]:
    tamper.change(world, f"{_folder(world)}/identity", b"\0" * 40)
    return RUN


def _identity_cut(world: World) -> tuple[str, ...]:
    path = f"{_folder(world)}/identity"
    tamper.change(world, path, world.path(path).read_bytes()[:-20])
    return RUN


def _snapshot(world: World) -> tuple[str, ...]:
    tamper.change(world, f"{_folder(world)}/snapshot", b"\xc1" * 100)
    return RUN


def _snapshot_cut(world: World) -> tuple[str, ...]:
    path = f"{_folder(world)}/snapshot"
    tamper.change(world, path, world.path(path).read_bytes()[:-7])
    return RUN


def _snapshot_bit(world: World) -> tuple[str, ...]:
    tamper.flip(world, f"{_folder(world)}/snapshot", 60)
    return RUN


def _torn_wal(world: World) -> tuple[str, ...]:
    """What a power cut leaves of an append that nothing relied on yet."""
    with world.path(f"{_folder(world)}/wal").open("ab") as wal:
        wal.write(b"\0\1\0\0half of a record")
    return RUN


def _lost(world: World) -> tuple[str, ...]:
    """The machine's state is gone; the daemon's key is not."""
    tamper.move(world, "state/machines", "machines.away")
    world.undo.clear()
    overwrite(world.path("root.img"), {1000: random_bytes(5000)})
    return RUN


def _old_points_stay(world: World) -> None:
    number = world.names["third"]
    group = world.names["group"]
    said = world.backstay("restore", group, *ACCESS, "--to", "old", "--at", f"#{number}")
    assert said.code == 0, said


def _damaged_note(world: World) -> tuple[str, ...]:
    tamper.change(world, "state/machines/web1/last-run", b"{")
    return ("status", "c.yaml")


def _no_state_status(world: World) -> tuple[str, ...]:
    tamper.move(world, "state", "state.away")
    return ("status", "c.yaml")


ROWS = (
    Row(
        "state folder in use by another run",
        _locked,
        14,
        sees="backstay: open state: {root}/state: another Backstay process is using it",
        hint="wait for that run to end, or give this config a state folder of its own",
        kept=NOT_SHIPPED,
    ),
    Row(
        "state folder is a file",
        _state_is_file,
        14,
        sees="backstay: open state: {root}/state: Not a directory",
        hint="give the path of a folder, or of none yet: something else is there",
        kept=NOT_SHIPPED[:-1],
    ),
    Row(
        "the daemon's key is damaged",
        _writer_key,
        14,
        sees=("backstay: open state: {root}/state/writer.key: cannot be read as what it should be"),
        hint=(
            "put back the file from a copy, or move the folder away: the next run then "
            "begins a new base, and all earlier points stay restorable"
        ),
        kept=NOT_SHIPPED,
    ),
    Row(
        "a machine's identity is garbage",
        _identity,
        14,
        sees=(
            "backstay: open state: {root}/state/machines/web1/{vault}/identity: cannot be "
            "read as what it should be"
        ),
        hint=(
            "put back the file from a copy, or move the folder away: the next run then "
            "begins a new base, and all earlier points stay restorable"
        ),
        state=_NEW_BASE,
        kept=NOT_SHIPPED,
    ),
    Row(
        "a machine's identity is cut short",
        _identity_cut,
        14,
        sees=(
            "backstay: open state: {root}/state/machines/web1/{vault}/identity: cannot be "
            "read as what it should be"
        ),
        hint=(
            "put back the file from a copy, or move the folder away: the next run then "
            "begins a new base, and all earlier points stay restorable"
        ),
        state=_NEW_BASE,
        kept=NOT_SHIPPED,
    ),
    Row(
        "the state's snapshot is garbage",
        _snapshot,
        14,
        sees=(
            "backstay: recover state: {root}/state/machines/web1/{vault}/snapshot: is not "
            "what was written"
        ),
        hint="move the machine's state folder away: the next run begins a new base",
        state=_NEW_BASE,
        kept=NOT_SHIPPED,
    ),
    Row(
        "the state's snapshot is cut short",
        _snapshot_cut,
        14,
        sees=(
            "backstay: recover state: {root}/state/machines/web1/{vault}/snapshot: is not "
            "what was written"
        ),
        hint="move the machine's state folder away: the next run begins a new base",
        state=_NEW_BASE,
        kept=NOT_SHIPPED,
    ),
    Row(
        "a bit of the state's snapshot is wrong",
        _snapshot_bit,
        14,
        sees=(
            "backstay: recover state: {root}/state/machines/web1/{vault}/snapshot: is not "
            "what was written"
        ),
        hint="move the machine's state folder away: the next run begins a new base",
        state=_NEW_BASE,
        kept=NOT_SHIPPED,
    ),
    Row(
        "half a record at the end of the state's log",
        _torn_wal,
        0,
        prints="web1: point #{next} (consistent): …",
        kept=("op.key",),
    ),
    Row(
        "a machine's state is lost",
        _lost,
        0,
        prints="web1: point #{first} (consistent): …",
        kept=("op.key",),
        check=_old_points_stay,
    ),
    Row(
        "the note of the last run is damaged, status",
        _damaged_note,
        14,
        sees=(
            "backstay: open state: {root}/state/machines/web1/last-run: cannot be read as "
            "what it should be"
        ),
        hint=(
            "put back the file from a copy, or move the folder away: the next run then "
            "begins a new base, and all earlier points stay restorable"
        ),
    ),
    Row(
        "no state yet, status",
        _no_state_status,
        0,
        sees="some machines have no recovery point yet",
        prints=(
            "MACHINE                 POINT          AGE      STATE  LAST RUN\n"
            "web1                        -            -        0 B  never run\n"
            "db1                         -            -        0 B  never run\n"
            "key drilled: never: run 'backstay key drill'"
        ),
    ),
)
