"""Places that are no vault, vaults of other versions, foreign writers, full disks: rows."""

from __future__ import annotations

import shutil
from typing import Any

from tests.faults import mounts, tamper
from tests.faults.mounts import ROOT_NEEDED
from tests.faults.row import Row
from tests.faults.tamper import OPERATOR
from tests.faults.world import ACCESS, MIB, World, overwrite, random_bytes, text_like

_RUN = ("run", "c.yaml", "--once", "--machine", "web1")
_RESTORE = ("restore", "web1", *ACCESS, "--to", "out")
_POINTS = ("points", "web1", *ACCESS)
_KEPT_BY_RUN = ("vault", "op.key", "op.pub", "root.img", "data.img", "state/writer.key")


def _init(url: str, *more: str) -> tuple[str, ...]:
    return ("init", url, "--key", OPERATOR, "--single-recipient", *more)


def _init_on_file(world: World) -> tuple[str, ...]:
    return _init("file:./root.img", "--state", "state2")


def _init_on_folder(world: World) -> tuple[str, ...]:
    for name in ("a", "b", "c", "d"):
        tamper.change(world, f"place/{name}", b"holiday")
    return _init("file:./place", "--state", "state2")


def _init_on_vault(world: World) -> tuple[str, ...]:
    return _init("file:./vault", "--state", "state2")


def _init_below_file(world: World) -> tuple[str, ...]:
    return _init("file:./root.img/vault", "--state", "state2")


def _init_read_only(world: World) -> tuple[str, ...]:
    mounts.tmpfs(world, "mnt", "1m", ",ro")
    return _init("file:./mnt/vault", "--state", "state2")


def _init_no_key(world: World) -> tuple[str, ...]:
    return ("init", "file:./new", "--key", "none.key", "--single-recipient", "--state", "state2")


def _init_unknown_store(world: World) -> tuple[str, ...]:
    return _init("s3://bucket/vault", "--state", "state2")


def _init_key_read_only(world: World) -> tuple[str, ...]:
    mounts.tmpfs(world, "mnt", "1m")
    shutil.copyfile(world.path(OPERATOR), world.path("mnt/op.key"))
    mounts.call("mount", "-o", "remount,ro", str(world.path("mnt")))
    return ("init", "file:./new", "--key", "mnt/op.key", "--single-recipient", "--state", "state2")


def _no_vault(world: World) -> tuple[str, ...]:
    world.path("empty").mkdir()
    tamper.change(world, "empty/notes.txt", b"nothing to see")
    return ("points", "web1", "--vault", "file:./empty", "--key", OPERATOR)


def _no_place(world: World) -> tuple[str, ...]:
    return ("points", "web1", "--vault", "file:./nowhere", "--key", OPERATOR)


def _vault_garbage(world: World) -> tuple[str, ...]:
    tamper.change(world, "vault/vault.json", b"\0" * 100)
    return _POINTS


def _vanished_run(world: World) -> tuple[str, ...]:
    tamper.move(world, "vault", "away")
    return _RUN


def _vanished_restore(world: World) -> tuple[str, ...]:
    tamper.move(world, "vault", "away")
    return _RESTORE


def _format(fields: dict[str, Any]) -> None:
    fields["format"] = 99


def _format_run(world: World) -> tuple[str, ...]:
    tamper.resign_charter(world, _format, OPERATOR)
    return _RUN


def _format_restore(world: World) -> tuple[str, ...]:
    tamper.resign_charter(world, _format, OPERATOR)
    return _RESTORE


def _container_version(world: World, seq: int) -> None:
    data = bytearray(world.path(world.commit(seq)).read_bytes())
    data[4] = 2
    tamper.change(world, world.commit(seq), bytes(data))


def _container_version_restore(world: World) -> tuple[str, ...]:
    _container_version(world, world.tail)
    return _RESTORE


def _container_version_older(world: World) -> tuple[str, ...]:
    _container_version(world, world.tail)
    return (*_RESTORE, "--at", f"#{world.names['second']}")


def _container_version_run(world: World) -> tuple[str, ...]:
    _container_version(world, world.tail)
    return _RUN


def _older_restored(world: World) -> None:
    assert world.is_as_protected("out", like="second-")


def _newest_restored(world: World) -> None:
    assert world.is_as_protected("out")


def _not_admitted(world: World) -> tuple[str, ...]:
    tamper.move(world, "state", "old-state")
    world.path("state").mkdir()
    return _RUN


def _foreign_commit_run(world: World) -> tuple[str, ...]:
    world.names["foreign"] = tamper.foreign_commit(world)
    return _RUN


def _foreign_commit_points(world: World) -> tuple[str, ...]:
    world.names["foreign"] = tamper.foreign_commit(world)
    return _POINTS


def _foreign_commit_restore(world: World) -> tuple[str, ...]:
    world.names["foreign"] = tamper.foreign_commit(world)
    return _RESTORE


def _foreign_commit_verify(world: World) -> tuple[str, ...]:
    world.names["foreign"] = tamper.foreign_commit(world)
    return ("verify", "web1", *ACCESS)


def _foreign_term_run(world: World) -> tuple[str, ...]:
    world.names["foreign"] = tamper.foreign_term(world, 4)
    return _RUN


def _foreign_term_verify(world: World) -> tuple[str, ...]:
    world.names["foreign"] = tamper.foreign_term(world, 4)
    return ("verify", "web1", *ACCESS)


def _fenced(world: World) -> tuple[str, ...]:
    """Another daemon has gone on with a copy of this state."""
    shutil.copytree(world.path("state"), world.path("copy"))
    overwrite(world.path("root.img"), {6 * MIB: text_like(3000)})
    world.fine(*_RUN)
    newer = world.path("state")
    newer.rename(world.path("newer"))
    world.path("copy").rename(newer)

    def back() -> None:
        shutil.rmtree(newer)
        world.path("newer").rename(newer)

    world.undo.append(back)
    return _RUN


def _older_copy(world: World) -> tuple[str, ...]:
    """The vault was brought back from a copy in which the newest commit is not."""
    tamper.remove(world, world.commit(world.tail))
    return _RUN


def _full_run(world: World) -> tuple[str, ...]:
    mounts.refit(world, "vault", "8m")
    tamper.write(world.path("vault/ballast"), bytes(8 * MIB - (600 << 10) - _size(world)))
    world.undo.append(world.path("vault/ballast").unlink)
    overwrite(world.path("root.img"), {4 * MIB: random_bytes(2 * MIB)})
    return _RUN


def _size(world: World) -> int:
    files = [path for path in world.path("vault").rglob("*") if path.is_file()]
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in files)


def _full_target(world: World) -> tuple[str, ...]:
    mounts.tmpfs(world, "small", "2m")
    return ("restore", "web1", *ACCESS, "--to", "small/out")


def _full_state(world: World) -> tuple[str, ...]:
    mounts.refit(world, "state", "900k")
    mounts.fill(world.path("state/ballast"))
    world.undo.append(world.path("state/ballast").unlink)
    overwrite(world.path("root.img"), {4 * MIB: random_bytes(2 * MIB)})
    return _RUN


ROWS = (
    Row("init on a file", _init_on_file, 5),
    Row("init on a folder that holds something", _init_on_folder, 5),
    Row("init on a vault", _init_on_vault, 5),
    Row("init below a file", _init_below_file, 8),
    Row("init where nothing can be written", _init_read_only, 4, needs=ROOT_NEEDED),
    Row("init, key file missing", _init_no_key, 4),
    Row("init, key file cannot be written", _init_key_read_only, 4, needs=ROOT_NEEDED),
    Row("init, store not supported", _init_unknown_store, 2),
    Row("the folder holds no vault", _no_vault, 5),
    Row("the folder does not exist", _no_place, 8),
    Row("vault.json is garbage", _vault_garbage, 5),
    Row("vault gone (not mounted), run", _vanished_run, 8, kept=("away", "root.img", "op.key")),
    Row("vault gone (not mounted), restore", _vanished_restore, 8),
    Row("vault of another version, run", _format_run, 5, kept=_KEPT_BY_RUN),
    Row("vault of another version, restore", _format_restore, 5),
    Row("newest commit of another version, restore", _container_version_restore, 5),
    Row("newest commit of another version, older point", _container_version_older, 0, kept=("vault","state"), check=_older_restored),
    Row("newest commit of another version, run", _container_version_run, 5, kept=_KEPT_BY_RUN),
    Row("daemon not admitted", _not_admitted, 4, kept=_KEPT_BY_RUN[:-1]),
    Row("a stranger's commit at the tail, run", _foreign_commit_run, 4, kept=_KEPT_BY_RUN),
    Row("a stranger's commit at the tail, points", _foreign_commit_points, 0),
    Row("a stranger's commit at the tail, restore", _foreign_commit_restore, 0, kept=("vault","state"), check=_newest_restored),
    Row("a stranger's commit at the tail, verify", _foreign_commit_verify, 0),
    Row("a stranger's term, run", _foreign_term_run, 0, kept=()),
    Row("a stranger's term, verify", _foreign_term_verify, 0),
    Row("fenced: another daemon has gone on with a copy of the state", _fenced, 10, kept=_KEPT_BY_RUN),
    Row("the vault is an older copy", _older_copy, 6, kept=_KEPT_BY_RUN),
    Row("vault full", _full_run, 9, kept=("op.key",), needs=ROOT_NEEDED),
    Row("target full", _full_target, 9, kept=("vault","state"), needs=ROOT_NEEDED),
    Row("state folder full", _full_state, 9, kept=("op.key",), needs=ROOT_NEEDED),
)
