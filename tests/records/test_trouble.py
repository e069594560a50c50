"""Files that are locked, damaged, foreign, newer, full or read by others: said in words."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from pipeline.records import engine
from pipeline.records.engine import open_database
from pipeline.records.migrate import migrate
from pipeline.records.model import Change, NewEvent
from pipeline.records.records import Records
from stages.errors import (
    BackstayError,
    ConfigError,
    StateDamaged,
    StateError,
    StateLocked,
    UsageError,
)
from stages.system import this_machine
from tests.records.postgres import Server
from tests.records.support import audit, machine, opened

_EVENT = Change(events=(NewEvent("state", "a"),))


def _in_words(error: BackstayError) -> None:
    assert error.exit_code == 14
    assert error.hint
    assert error.operation


async def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "state/control.db"
    async with opened(str(path)) as records:
        await records.apply(_EVENT)
        names = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
        assert names == {"control.db": 0o600, "control.db-wal": 0o600, "control.db-shm": 0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    async with opened(str(path)):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_what_is_acknowledged_is_on_the_disk(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "control.db"))
    with database.reading("test") as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
    database.close()


async def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LOCK_SECONDS", 0.01)
    path = tmp_path / "control.db"
    async with opened(str(path)) as records:
        await records.apply(_EVENT)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StateLocked) as found:
                await records.apply(_EVENT)
            assert len(await records.events()) == 1  # readers do not wait for it
            other.execute("ROLLBACK")
        _in_words(found.value)
        await records.apply(_EVENT)
        assert len(await records.events()) == 2


async def test_a_locked_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LOCK_SECONDS", 0.01)
    address = server.fresh()
    async with opened(address) as records:
        other = open_database(address)
        with other.writing("test"), pytest.raises(StateLocked) as found:
            await records.apply(_EVENT)
        other.close()
        _in_words(found.value)
        await records.apply(_EVENT)


async def test_a_server_that_goes_and_comes_back(server: Server) -> None:
    address = server.fresh()
    async with opened(address) as records:
        await records.apply(_EVENT)
        server.stop()
        try:
            with pytest.raises(StateError) as found:
                await records.apply(_EVENT)
            with pytest.raises(StateError):
                await Records.open(this_machine(), address)
        finally:
            server.start()
        _in_words(found.value)
        await records.apply(_EVENT)
        assert [event.message for event in await records.events()] == ["a", "a"]


async def test_a_password_is_not_told(server: Server) -> None:
    address = "postgresql://anna:geheim1@127.0.0.1:1/none"
    with pytest.raises(StateError) as found:
        await Records.open(this_machine(), address)
    assert "geheim1" not in f"{found.value} {found.value.hint} {found.value.subject}"
    with pytest.raises(ConfigError) as wrong:
        await Records.open(this_machine(), "mysql://anna:geheim1@host/x")
    assert "geheim1" not in f"{wrong.value} {wrong.value.hint}"


@pytest.mark.parametrize("what", ["no database", "a page", "half of it"])
async def test_a_damaged_file_is_moved_aside_when_asked(tmp_path: Path, what: str) -> None:
    path = tmp_path / "control.db"
    async with opened(str(path)) as records:
        for _ in range(200):
            await records.apply(
                Change(machines=(machine(),), events=(NewEvent("state", "x" * 300),))
            )
        last = (await records.events(after=199))[-1].id
    data = path.read_bytes()
    if what == "no database":
        path.write_bytes(b"something else" * 1000)
    elif what == "a page":
        path.write_bytes(data[:4096] + b"\xff" * 4096 + data[8192:])
    else:
        path.write_bytes(data[: len(data) // 2 // 4096 * 4096])
    with pytest.raises(StateDamaged) as found:
        await Records.open(this_machine(), str(path))
    _in_words(found.value)
    assert path.exists()  # nothing is moved without being asked
    ports = this_machine()
    records = await Records.rebuild(ports, str(path))
    assert await records.machines() == {}
    (event,) = await records.events(after=last)  # who followed the old one hears of it
    assert "begun again" in event.message
    (applied,) = (await records.apply(_EVENT)).events
    assert applied.id == event.id + 1
    await records.close()
    assert any(
        name.startswith("control.db.damaged-") for name in ports.files.listdir(str(tmp_path))
    )


async def test_a_row_of_somebody_else_is_damage(address: str) -> None:
    async with opened(address) as records:
        await records.apply(Change(machines=(machine(),), events=(NewEvent("a", "b"),)))
    other = open_database(address)
    with other.writing("test") as connection:
        connection.execute(text("UPDATE machines SET state = 'dancing'"))
        connection.execute(text("UPDATE events SET fields = '{'"))
    other.close()
    async with opened(address) as records:
        for read in (records.machines, records.events):
            with pytest.raises(StateDamaged, match="cannot be understood") as found:
                await read()
            _in_words(found.value)


async def test_only_a_file_can_be_moved_aside(server: Server) -> None:
    with pytest.raises(UsageError):
        await Records.rebuild(this_machine(), server.fresh())


async def test_a_newer_one_is_refused(address: str) -> None:
    async with opened(address) as records:
        await records.apply(_EVENT)
    other = open_database(address)
    with other.writing("test") as connection:
        connection.execute(text("UPDATE meta SET value = '99' WHERE key = 'schema'"))
    with pytest.raises(StateError, match="newer Backstay: its version is 99") as found:
        await Records.open(this_machine(), address)
    _in_words(found.value)
    with other.writing("test") as connection:
        connection.execute(text("UPDATE meta SET value = 'x' WHERE key = 'schema'"))
    other.close()
    with pytest.raises(StateDamaged):
        await Records.open(this_machine(), address)


async def test_an_older_one_is_taken_forward(address: str) -> None:
    async with opened(address) as records:
        await records.apply(Change(audit=(audit(),)))
    taken: list[int] = []

    def second(connection: Connection) -> None:
        taken.append(2)
        connection.execute(text("ALTER TABLE machines ADD COLUMN more TEXT"))

    def third(connection: Connection) -> None:
        taken.append(3)
        connection.execute(text("ALTER TABLE machines DROP COLUMN more"))

    def broken(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE machines ADD COLUMN less TEXT"))
        connection.execute(text("ALTER TABLE nothing ADD COLUMN less TEXT"))

    database = open_database(address)
    with pytest.raises(StateError):
        migrate(database, version=3, steps={2: second, 3: broken})
    with database.reading("test") as connection:  # all of it or nothing
        assert connection.execute(text("SELECT value FROM meta WHERE key='schema'")).scalar() == "1"
        found = connection.execute(text("SELECT * FROM machines")).keys()
        assert not {"more", "less"} & set(found)
    migrate(database, version=3, steps={2: second, 3: third})
    migrate(database, version=3, steps={2: second, 3: third})
    assert taken == [2, 2, 3]
    with database.reading("test") as connection:
        assert connection.execute(text("SELECT value FROM meta WHERE key='schema'")).scalar() == "3"
    database.close()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateError) as found:
        await Records.open(this_machine(), str(tmp_path / "state/control.db"))
    _in_words(found.value)
