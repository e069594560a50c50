"""The version of the tables: made anew, taken forward step by step, or refused if newer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sqlalchemy import Connection, MetaData, insert, inspect, select, text, update

from pipeline.records.engine import Database, damaged
from pipeline.records.schema import META, METADATA
from stages.errors import StateError

VERSION = 1
_KEY = "schema"

Step = Callable[[Connection], None]
# STEPS[n] takes tables of version n - 1 to version n. A step never changes once it was released.
STEPS: Mapping[int, Step] = MappingProxyType({})


def migrate(
    database: Database,
    *,
    version: int = VERSION,
    steps: Mapping[int, Step] = STEPS,
    tables: MetaData = METADATA,
) -> None:
    """Make the tables what this version needs, all in one transaction. ``StateError``: newer."""
    with database.writing("open records") as connection:
        found = _version(connection, database.where)
        if found is None:
            tables.create_all(connection)
            connection.execute(insert(META).values(key=_KEY, value=str(version)))
            return
        if found > version:
            raise StateError(
                f"written by a newer Backstay: its version is {found}, this one knows {version}",
                operation="open records",
                subject=database.where,
                hint="run that Backstay again, or an even newer one",
            )
        for number in range(found + 1, version + 1):
            steps[number](connection)
        if found < version:
            connection.execute(update(META).where(META.c.key == _KEY).values(value=str(version)))


def _version(connection: Connection, where: str) -> int | None:
    if not inspect(connection).has_table(META.name):
        return None
    found = connection.execute(select(META.c.value).where(META.c.key == _KEY)).scalar()
    if found is None or not str(found).isdecimal():
        raise damaged("it has no version", "open records", where)
    return int(found)


def check(database: Database) -> None:
    """Look at every page of a SQLite file. ``StateDamaged`` names what is wrong."""
    if not database.is_sqlite:
        return
    with database.reading("open records") as connection:
        said = connection.execute(text("PRAGMA quick_check(1)")).scalar()
    if said != "ok":
        raise damaged(str(said), "open records", database.where)
