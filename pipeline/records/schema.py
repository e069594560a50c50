"""The tables, alike in SQLite and PostgreSQL. JSON is canonical text, times are microseconds UTC.

What is here is a cache of what the state folder and the vault know, except for the audit chain and
the history of jobs and events.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData()

# SQLite gives out row numbers only for its own INTEGER; they are 64 bits too.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

META = Table(
    "meta",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

MACHINES = Table(
    "machines",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("test", Text, nullable=False),
    Column("extra", Text, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
)

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("machine", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("started_us", BigInteger),
    Column("ended_us", BigInteger),
    Column("percent", Float),
    Column("bytes_done", BigInteger, nullable=False),
    Column("bytes_total", BigInteger, nullable=False),
    Column("cancellable", Boolean, nullable=False),
    Column("problem", Text),
    Column("by", Text, nullable=False),
    Column("key", Text),  # of the request that began it; several NULLs are no duplicates
    Column("parameters", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("result", Text, nullable=False),
    UniqueConstraint("by", "key"),
    Index("jobs_machine", "machine", "id"),
    Index("jobs_state", "state", "id"),
    sqlite_autoincrement=True,  # a number is never given out twice
)

TASKS = Table(
    "tasks",
    METADATA,
    Column("job", _NUMBER, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("percent", Float),
    Column("message", Text, nullable=False),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("machine", Text, nullable=False),
    Column("job", BigInteger),
    Column("message", Text, nullable=False),
    Column("fields", Text, nullable=False),
    Index("events_machine", "machine", "id"),
    sqlite_autoincrement=True,
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("seq", _NUMBER, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("digest", Text, nullable=False),
)
