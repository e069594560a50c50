"""Places that are no vault, or full: rows."""

from __future__ import annotations

import shutil

from tests.faults import mounts, tamper
from tests.faults.mounts import ROOT_NEEDED
from tests.faults.row import POINTS, RESTORE, RUN, Row
from tests.faults.tamper import OPERATOR
from tests.faults.world import ACCESS, MIB, World, overwrite, random_bytes

_LEFTOVER = "no vault; an empty state or vault folder may be left, init takes it"
_NOT_FOUNDED = ("vault", "state", "op.key", "op.pub")


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
    return _init("ftp://host/vault", "--state", "state2")


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
    return POINTS


def _vanished_run(world: World) -> tuple[str, ...]:
    tamper.move(world, "vault", "away")
    return RUN


def _vanished_restore(world: World) -> tuple[str, ...]:
    tamper.move(world, "vault", "away")
    return RESTORE


def _full_run(world: World) -> tuple[str, ...]:
    mounts.refit(world, "vault", "8m")
    tamper.write(world.path("vault/ballast"), bytes(8 * MIB - (600 << 10) - _size(world)))
    world.undo.append(world.path("vault/ballast").unlink)
    overwrite(world.path("root.img"), {4 * MIB: random_bytes(2 * MIB)})
    return RUN


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
    return RUN


ROWS = (
    Row(
        "init on a file",
        _init_on_file,
        5,
        sees="backstay: init: file:./root.img: is a file, not a folder",
        hint="give an empty or a new folder",
    ),
    Row(
        "init on a folder that holds something",
        _init_on_folder,
        5,
        sees=(
            "backstay: init: file:./place: is neither empty nor a vault: it holds a, b, c and more"
        ),
        hint="give an empty or a new folder",
    ),
    Row(
        "init on a vault",
        _init_on_vault,
        5,
        sees="backstay: init: file:./vault: is a vault already",
        hint=(
            "'backstay vault check' shows whose; if it is yours, an earlier 'backstay init' "
            "has made it and it is ready; a new vault needs a place of its own"
        ),
    ),
    Row(
        "init below a file",
        _init_below_file,
        8,
        sees="backstay: create the store: ./root.img/vault: Not a directory (./root.img/vault)",
        hint="use a directory on a local file system or NFS, not ./root.img/vault",
        state=_LEFTOVER,
        kept=_NOT_FOUNDED,
    ),
    Row(
        "init where nothing can be written",
        _init_read_only,
        4,
        sees="backstay: create the store: ./mnt/vault: Read-only file system (./mnt/vault)",
        hint="check owner, mode and mount options of ./mnt/vault",
        state=_LEFTOVER,
        kept=_NOT_FOUNDED,
        needs=ROOT_NEEDED,
    ),
    Row(
        "init, key file missing",
        _init_no_key,
        4,
        sees=(
            "backstay: open key: none.key: the private key cannot be read: No such file or "
            "directory"
        ),
        hint="give the path of a file that 'backstay keygen' made",
    ),
    Row(
        "init, key file cannot be written",
        _init_key_read_only,
        2,
        sees="backstay: write key: mnt/op.key: cannot be written: Read-only file system",
        hint="its folder must exist, be writable and have room",
        state=_LEFTOVER,
        kept=_NOT_FOUNDED,
        needs=ROOT_NEEDED,
    ),
    Row(
        "init, store not supported",
        _init_unknown_store,
        2,
        sees="backstay: open the store: ftp://host/vault: not a store",
        hint="accepted: file:/absolute/dir, file:./relative/dir, file:///absolute/dir, s3://bucket/prefix, az://container/prefix, gs://bucket/prefix, site://host:port/vault, memory:",
    ),
    Row(
        "the folder holds no vault",
        _no_vault,
        5,
        sees="backstay: file:./empty: there is no vault here",
        hint="'backstay init' makes one",
    ),
    Row(
        "the folder does not exist",
        _no_place,
        8,
        sees="backstay: get: vault.json: is no store, or its mount has gone (./nowhere)",
        hint=("mount or create ./nowhere; if it is a copy of a store, make the folder .tmp in it"),
    ),
    Row(
        "vault.json is garbage",
        _vault_garbage,
        5,
        sees="backstay: vault.json: this is not the charter of a vault",
        hint="is the URL right?",
    ),
    Row(
        "vault gone (not mounted), run",
        _vanished_run,
        8,
        sees="backstay: get: vault.json: is no store, or its mount has gone ({root}/vault)",
        hint=(
            "mount or create {root}/vault; if it is a copy of a store, make the folder .tmp in it"
        ),
        kept=("away", "root.img", "op.key"),
    ),
    Row(
        "vault gone (not mounted), restore",
        _vanished_restore,
        8,
        sees="backstay: get: vault.json: is no store, or its mount has gone (./vault)",
        hint="mount or create ./vault; if it is a copy of a store, make the folder .tmp in it",
    ),
    Row(
        "vault full",
        _full_run,
        9,
        sees=("backstay: put: groups/{group}/data/00000004/000000000000: No space left on device"),
        hint="make room on the file system (or raise the quota) of {root}/vault",
        kept=("op.key",),
        needs=ROOT_NEEDED,
    ),
    Row(
        "target full",
        _full_target,
        9,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file small/out/web1-root.img\n"
            "  data: 1.0 MiB to new file small/out/web1-data.img\n"
            "backstay: restore: small/out/web1-root.img: no space left for the restored disk"
        ),
        hint="make room and give the same command again: it goes on where it stopped",
        kept=("vault", "state"),
        needs=ROOT_NEEDED,
    ),
    Row(
        "state folder full",
        _full_state,
        9,
        sees=(
            "backstay: keep an intent: {root}/state/machines/web1/{vault}: No space left on device"
        ),
        hint="make room on the state folder's file system: the next run goes on from there",
        kept=("op.key",),
        needs=ROOT_NEEDED,
    ),
)
