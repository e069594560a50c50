"""Group and machine records: what a reader takes from them ends in paths and in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.crypto.sign import Signer
from stages.errors import DamagedObject, SourceError
from stages.model import Disk
from stages.vault import layout
from stages.vault.codec import pack
from stages.vault.container import Kind, build, parse
from stages.vault.records import (
    MAX_MACHINE_BYTES,
    GroupRecord,
    MachineRecord,
    Parent,
    group_object,
    machine_object,
    read_group,
    read_machine,
)
from stages.vault.sealing import EpochKeys, Scope, seal_body
from tests.vault.support import SeededEntropy

SCOPE = Scope(bytes(16), bytes(range(16)), "aegis256")
KEYS = EpochKeys(3, None, bytes(range(32)))
SIGNER = Signer(bytes(32))
RECORD = MachineRecord(4, "web1", (Disk(0, "root", 12345), Disk(7, "Data.2_b-c", 0)))
KEY = layout.machine(SCOPE.group, 4)


@pytest.mark.parametrize("parent", [None, Parent(bytes(16), 7, bytes(range(32)))])
def test_a_group_record_comes_back(parent: Parent | None) -> None:
    record = GroupRecord(1_700_000_000_000_000, parent)
    data = b"".join(group_object(SCOPE, record, SIGNER))
    assert read_group(parse(data, "the key", Kind.GROUP)) == record


def test_a_parent_must_be_whole() -> None:
    fields = SCOPE.fields() | {"created": 1, "parent": {"group": bytes(16), "seq": 7}}
    data = b"".join(build(Kind.GROUP, fields, SIGNER))
    with pytest.raises(DamagedObject, match="digest"):
        read_group(parse(data, "the key", Kind.GROUP))


def read(data: bytes, key: str = KEY) -> MachineRecord:
    found = parse(data, key, Kind.MACHINE)
    return read_machine(found, SCOPE, KEYS, data[found.body_at : found.tail_at])


def made(fields: dict[str, Any]) -> bytes:
    """A record with any body, sealed and signed as it should be."""
    body = seal_body(SCOPE, Kind.MACHINE, KEYS, 4, pack(fields), SeededEntropy("machine"))
    return b"".join(build(Kind.MACHINE, SCOPE.fields() | {"number": 4, "epoch": 3}, SIGNER, body))


def test_a_machine_record_comes_back() -> None:
    data = b"".join(machine_object(SCOPE, KEYS, RECORD, SIGNER, SeededEntropy("machine")))
    assert read(data) == RECORD
    assert RECORD.disk(7) == RECORD.disks[1]
    assert RECORD.disk(1) is None


def test_a_machine_record_is_read_in_its_place_only() -> None:
    data = b"".join(machine_object(SCOPE, KEYS, RECORD, SIGNER, SeededEntropy("machine")))
    with pytest.raises(DamagedObject, match="another number"):
        read(data, layout.machine(SCOPE.group, 5))


def disk(**change: object) -> dict[str, object]:
    return {"number": 0, "name": "root", "size": 1} | change


UNFIT: dict[str, dict[str, Any]] = {
    "a machine named like a path": {"name": "../../etc/cron.d/web1", "disks": []},
    "a machine without a name": {"name": "", "disks": []},
    "a hidden machine": {"name": ".web1", "disks": []},
    "a machine with a long name": {"name": "w" * 65, "disks": []},
    "a disk named like a path": {"name": "web1", "disks": [disk(name="a/b")]},
    "a disk with a line break": {"name": "web1", "disks": [disk(name="a\n")]},
    "a disk with a NUL": {"name": "web1", "disks": [disk(name="a\0b")]},
    "two disks of one name": {"name": "web1", "disks": [disk(), disk(number=1)]},
    "two disks of one number": {"name": "web1", "disks": [disk(), disk(name="data")]},
    "a disk too large": {"name": "web1", "disks": [disk(size=MAX_MACHINE_BYTES + 1)]},
    "disks too large together": {
        "name": "web1",
        "disks": [disk(size=MAX_MACHINE_BYTES), disk(number=1, name="data", size=1)],
    },
    "a disk without a size": {"name": "web1", "disks": [{"number": 0, "name": "root"}]},
    "a number beyond all disks": {"name": "web1", "disks": [disk(number=4096)]},
    "too many disks": {
        "name": "web1",
        "disks": [disk(number=at % 4096, name=f"d{at}") for at in range(4097)],
    },
    "no disks field": {"name": "web1"},
}


@pytest.mark.parametrize("fields", UNFIT.values(), ids=UNFIT)
def test_records_that_would_harm_a_reader_are_damage(fields: dict[str, Any]) -> None:
    with pytest.raises(DamagedObject) as caught:
        read(made(fields))
    assert caught.value.subject == KEY


@pytest.mark.parametrize(
    "record",
    [
        replace(RECORD, name="web/1"),
        replace(RECORD, disks=(Disk(0, "a", 1), Disk(1, "a", 1))),
        replace(RECORD, disks=(Disk(0, "a", MAX_MACHINE_BYTES), Disk(1, "b", 1))),
    ],
)
def test_they_are_not_written_either(record: MachineRecord) -> None:
    with pytest.raises(SourceError):
        machine_object(SCOPE, KEYS, record, SIGNER, SeededEntropy("machine"))


@given(st.binary(max_size=60))
def test_any_sealed_body_is_damage_or_a_record(plain: bytes) -> None:
    body = seal_body(SCOPE, Kind.MACHINE, KEYS, 4, plain, SeededEntropy("machine"))
    fields = SCOPE.fields() | {"number": 4, "epoch": 3}
    with pytest.raises(DamagedObject):
        read(b"".join(build(Kind.MACHINE, fields, SIGNER, body)))
