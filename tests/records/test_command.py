"""``records verify`` and ``records rebuild``, as a person gives them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from pipeline.records.model import Change, NewEvent
from pipeline.state import StateFolder
from stages.system import this_machine
from tests.cli.support import Place
from tests.records.support import audit, opened

CONFIG = """\
daemon: {state: ./state}
vaults:
  standby: {url: "file:./vault", trust: ./op.pub}
machines:
  web1: {vault: standby, disks: {root: {path: ./root.img, capture: scan}}}
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    (made / "c.yaml").write_text(CONFIG)
    made.json("keygen", "--out", "op", "--no-passphrase")
    (made / "root.img").write_bytes(bytes(4096))

    async def fill() -> None:
        async with opened(str(made / "state/control.db")) as records:
            for number in range(3):
                await records.apply(Change(events=(NewEvent("state", str(number)),)))
                await records.audited(audit(number))

    trio.run(fill)
    return made


def test_a_whole_audit_and_one_that_was_changed(place: Place) -> None:
    assert place.json("records", "verify", "c.yaml") == {"checked": 3}
    with closing(sqlite3.connect(place / "state/control.db")) as database:
        database.execute("UPDATE audit SET operation = 'nothing' WHERE seq = 2")
        database.commit()
    said = place.backstay("records", "verify", "c.yaml")
    assert said.code == 14
    assert "entry #2" in said.err


def test_a_damaged_one_is_begun_again(place: Place) -> None:
    database = place / "state/control.db"
    database.write_bytes(b"no database" * 1000)
    for name in ("control.db-wal", "control.db-shm"):
        (place / f"state/{name}").unlink(missing_ok=True)
    said = place.backstay("records", "verify", "c.yaml")
    assert said.code == 14
    assert "records rebuild" in said.err
    assert place.json("records", "rebuild", "c.yaml") == {"rebuilt": True}
    assert place.json("records", "verify", "c.yaml") == {"checked": 0}
    (aside,) = (place / "state").glob("control.db.damaged-*")
    assert aside.read_bytes().startswith(b"no database")


def test_not_beside_a_daemon(place: Place) -> None:
    ports = this_machine()
    state = StateFolder.open(ports, str(place / "state"))
    try:
        assert place.backstay("records", "rebuild", "c.yaml").code == 14
        assert place.json("records", "verify", "c.yaml") == {"checked": 3}
    finally:
        state.close()
