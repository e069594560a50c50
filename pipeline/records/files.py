"""The files of a SQLite control database: made private, moved aside when they are damaged."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import insert

from pipeline.records.engine import Database, parse_address
from pipeline.records.schema import EVENTS
from stages import durable
from stages.errors import UsageError
from stages.ports import Machine
from stages.ship.trouble import in_words

_BESIDE = ("-wal", "-shm")  # what SQLite keeps beside the file, with the same mode


def make(machine: Machine, path: str) -> None:
    """Make the file before SQLite does, so that nobody else can ever read it."""
    with in_words("open records", path):
        durable.make_dirs(machine.files, durable.parent(path))
        if machine.files.stat(path) is None:
            machine.files.open_write(path, create=True).close()
            machine.files.sync_dir(durable.parent(path))
        Path(path).chmod(0o600)


def move_aside(machine: Machine, address: str) -> str:
    """Give the file and what is beside it another name; the new name of the file.

    The database must not be open. ``UsageError`` for one that is not SQLite's.
    """
    url = parse_address(address)
    path = url.database or ""
    if url.get_backend_name() != "sqlite":
        raise UsageError(
            "only a SQLite file can be moved aside",
            operation="rebuild records",
            subject=url.render_as_string(),
            hint="restore that database from its own backup, or drop its tables",
        )
    now = datetime.fromtimestamp(machine.clock.wall_us() / 1e6, UTC)
    aside = f"{path}.damaged-{now:%Y%m%dT%H%M%S.%f}Z"
    with in_words("rebuild records", path):
        for suffix in ("", *_BESIDE):
            if machine.files.stat(path + suffix) is not None:
                machine.files.rename(path + suffix, aside + suffix)
        machine.files.sync_dir(durable.parent(path))
    return aside


def note_rebuilt(database: Database, now_us: int) -> None:
    """The first event of a database that was begun again.

    Its id is the time in milliseconds, so that ids go on counting up over all databases and a
    follower of the old one misses nothing.
    """
    values = {
        "id": now_us // 1000,
        "at_us": now_us,
        "kind": "daemon",
        "machine": "",
        "message": "the control database was damaged, moved aside and begun again",
        "fields": "{}",
    }
    with database.writing("rebuild records") as connection:
        connection.execute(insert(EVENTS).values(values))
