"""Connections to SQLite or PostgreSQL: how they are opened, and what their errors mean.

All of it blocks: it runs on worker threads only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from stages.errors import (
    BackstayError,
    ConfigError,
    MissingTool,
    NoSpace,
    StateDamaged,
    StateError,
    StateLocked,
)

READERS = 4
LOCK_SECONDS = 5.0
_SCHEMES = ("sqlite", "postgresql")
# Writers of one PostgreSQL database follow each other: ids become visible in their order, and the
# audit chain does not fork.
_WRITER_LOCK = 0x6261636B73746179  # "backstay"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_WRITER = "backstay_writer"

REBUILD = (
    "'backstay records rebuild CONFIG' moves it aside and begins another: it is a cache of the "
    "state folder and the vault; what is lost is the history of jobs, events and the audit"
)


class Database:
    """An engine and what its errors are told about. ``where`` never has a password in it."""

    def __init__(self, engine: Engine, where: str):
        self.engine = engine
        self.where = where
        self.is_sqlite = engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self, operation: str) -> Iterator[Connection]:
        """A transaction that sees one moment."""
        with self.words(operation), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, operation: str) -> Iterator[Connection]:
        """A transaction that is durable when this returns, and never happened if it raises."""
        with self.words(operation), self.engine.connect() as plain:
            connection = plain.execution_options(**{_WRITER: True})
            with connection.begin():
                if not self.is_sqlite:
                    connection.execute(
                        text("SELECT pg_advisory_xact_lock(:number)"), {"number": _WRITER_LOCK}
                    )
                yield connection

    @contextmanager
    def words(self, operation: str) -> Iterator[None]:
        """Put the driver's errors in words."""
        try:
            yield
        except DBAPIError as error:
            raise explain(error.orig, operation, self.where) from error
        except sqlite3.Error as error:  # while a connection was prepared
            raise explain(error, operation, self.where) from error
        except PoolTimeout as error:
            raise _locked(operation, self.where) from error

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_database(address: str) -> Database:
    """Connect lazily. ``address``: a path (SQLite) or a ``postgresql://`` URL.

    Raises ``MissingTool`` without the driver, and what ``parse_address`` does.
    """
    url = parse_address(address)
    where = url.database or "" if url.get_backend_name() == "sqlite" else url.render_as_string()
    sqlite = url.get_backend_name() == "sqlite"
    arguments: dict[str, Any] = (
        {"check_same_thread": False, "timeout": LOCK_SECONDS, "cached_statements": 64}
        if sqlite
        else {
            "connect_timeout": 10,
            "application_name": "backstay",
            "options": f"-c lock_timeout={LOCK_SECONDS:g}s -c statement_timeout=60s "
            "-c idle_in_transaction_session_timeout=120s -c synchronous_commit=on",
        }
    )
    try:
        engine = create_engine(
            url,
            connect_args=arguments,
            pool_size=READERS + 1,
            max_overflow=0,
            pool_timeout=LOCK_SECONDS,
            pool_pre_ping=not sqlite,
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise MissingTool(
            f"the driver of this database is not installed: {error}",
            operation="open records",
            subject=where,
            hint="pip install 'backstay[postgres]'",
        ) from error
    if sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return Database(engine, where)


def parse_address(address: str) -> URL:
    """The address as SQLAlchemy wants it. ``ConfigError``: neither a path nor such a URL."""
    if "://" not in address:
        return URL.create("sqlite", database=address)
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() not in _SCHEMES:
        raise ConfigError(
            "neither a path nor postgresql://USER@HOST/DATABASE", operation="open records"
        )
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _prepare_sqlite(connection: Any, _: object) -> None:
    # The driver would begin and commit by itself, and not around DDL.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A writer that began as a reader could not wait for a lock, only fail.
    writer = connection.get_execution_options().get(_WRITER)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")


def explain(cause: BaseException | None, operation: str, where: str) -> BackstayError:
    """What a driver's error means, and what to do about it."""
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    state = str(getattr(cause, "sqlstate", "") or "")
    if code in _LOCKED or state in ("55P03", "57014", "40P01"):
        return _locked(operation, where)
    if code in _DAMAGED or state.startswith("XX"):
        return damaged(str(cause), operation, where)
    said = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    if code == sqlite3.SQLITE_FULL or state == "53100":
        return NoSpace(
            said, operation=operation, subject=where, hint="make room where the database is"
        )
    return StateError(
        f"the control database does not answer as it should: {said}",
        operation=operation,
        subject=where,
        hint="check that it can be reached and written, and the disk under it",
    )


def _locked(operation: str, where: str) -> StateLocked:
    return StateLocked(
        f"the control database is locked, for more than {LOCK_SECONDS:g} s",
        operation=operation,
        subject=where,
        hint="end what else has it open",
    )


def damaged(said: str, operation: str, where: str) -> StateDamaged:
    """The database is not what was written."""
    return StateDamaged(
        f"the control database is damaged: {said}", operation=operation, subject=where, hint=REBUILD
    )
