"""State folders that are locked or damaged; configurations and command lines that are wrong."""

from __future__ import annotations

import fcntl

from tests.faults import tamper
from tests.faults.row import Row
from tests.faults.world import ACCESS, World, overwrite, random_bytes

_RUN = ("run", "c.yaml", "--once", "--machine", "web1")
_KEPT = ("vault", "op.key", "op.pub", "root.img", "data.img", "state/writer.key")
_NEW_BASE = "nothing was written; put the file back, or move the folder away for a new base"


def _folder(world: World) -> str:
    return f"state/machines/web1/{world.names['vault']}"


def _locked(world: World) -> tuple[str, ...]:
    holder = world.path("state/lock").open("rb")
    fcntl.flock(holder, fcntl.LOCK_EX)
    world.undo.append(holder.close)
    return _RUN


def _state_is_file(world: World) -> tuple[str, ...]:
    tamper.move(world, "state", "state.away")
    tamper.write(world.path("state"), b"")
    world.undo.append(world.path("state").unlink)
    return _RUN


def _writer_key(world: World) -> tuple[str, ...]:
    tamper.change(world, "state/writer.key", b'{"seed": "nonsense"}')
    return _RUN


def _identity(world: World) -> tuple[str, ...]:
    tamper.change(world, f"{_folder(world)}/identity", b"\0" * 40)
    return _RUN


def _identity_cut(world: World) -> tuple[str, ...]:
    path = f"{_folder(world)}/identity"
    tamper.change(world, path, world.path(path).read_bytes()[:-20])
    return _RUN


def _snapshot(world: World) -> tuple[str, ...]:
    tamper.change(world, f"{_folder(world)}/snapshot", b"\xc1" * 100)
    return _RUN


def _snapshot_cut(world: World) -> tuple[str, ...]:
    path = f"{_folder(world)}/snapshot"
    tamper.change(world, path, world.path(path).read_bytes()[:-7])
    return _RUN


def _snapshot_bit(world: World) -> tuple[str, ...]:
    tamper.flip(world, f"{_folder(world)}/snapshot", 60)
    return _RUN


def _torn_wal(world: World) -> tuple[str, ...]:
    """What a power cut leaves of an append that nothing relied on yet."""
    with world.path(f"{_folder(world)}/wal").open("ab") as wal:
        wal.write(b"\0\1\0\0half of a record")
    return _RUN


def _lost(world: World) -> tuple[str, ...]:
    """The machine's state is gone; the daemon's key is not."""
    tamper.move(world, "state/machines", "machines.away")
    world.undo.clear()
    overwrite(world.path("root.img"), {1000: random_bytes(5000)})
    return _RUN


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


def _config_missing(world: World) -> tuple[str, ...]:
    return ("run", "none.yaml", "--once")


def _config_wrong(world: World) -> tuple[str, ...]:
    text = world.path("c.yaml").read_text().replace("capture: scan", "captur: scan", 1)
    tamper.change(world, "c.yaml", text.replace("vault: standby", "vault: standbye", 1).encode())
    return ("run", "c.yaml", "--once")


def _config_no_yaml(world: World) -> tuple[str, ...]:
    tamper.change(world, "c.yaml", b"machines: [")
    return ("status", "c.yaml")


def _unknown_machine(world: World) -> tuple[str, ...]:
    return ("run", "c.yaml", "--once", "--machine", "web2")


def _no_once(world: World) -> tuple[str, ...]:
    return ("run", "c.yaml")


def _unknown_command(world: World) -> tuple[str, ...]:
    return ("destroy", "web1")


def _unknown_option(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS, "--to", "out", "--force")


def _no_vault_option(world: World) -> tuple[str, ...]:
    return ("restore", "web1", "--key", "op.key", "--to", "out")


def _no_target(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS)


def _json_error(world: World) -> tuple[str, ...]:
    return ("points", "web2", *ACCESS, "--json")


ROWS = (
    Row("state folder in use by another run", _locked, 14, kept=_KEPT),
    Row("state folder is a file", _state_is_file, 14, kept=_KEPT[:-1]),
    Row("the daemon's key is damaged", _writer_key, 14, kept=_KEPT),
    Row("a machine's identity is garbage", _identity, 14, kept=_KEPT, state=_NEW_BASE),
    Row("a machine's identity is cut short", _identity_cut, 14, kept=_KEPT, state=_NEW_BASE),
    Row("the state's snapshot is garbage", _snapshot, 14, kept=_KEPT, state=_NEW_BASE),
    Row("the state's snapshot is cut short", _snapshot_cut, 14, kept=_KEPT, state=_NEW_BASE),
    Row("a bit of the state's snapshot is wrong", _snapshot_bit, 14, kept=_KEPT, state=_NEW_BASE),
    Row("half a record at the end of the state's log", _torn_wal, 0, kept=("op.key",)),
    Row("a machine's state is lost", _lost, 0, kept=("op.key",), check=_old_points_stay),
    Row("the note of the last run is damaged, status", _damaged_note, 14),
    Row("no state yet, status", _no_state_status, 0),
    Row("configuration missing", _config_missing, 3),
    Row("configuration with wrong keys", _config_wrong, 3),
    Row("configuration is no YAML", _config_no_yaml, 3),
    Row("machine not in the configuration", _unknown_machine, 13),
    Row("run without --once", _no_once, 2),
    Row("unknown command", _unknown_command, 2),
    Row("unknown option", _unknown_option, 2),
    Row("option missing", _no_vault_option, 2),
    Row("restore to nowhere", _no_target, 2),
    Row("an error as JSON", _json_error, 13),
)
