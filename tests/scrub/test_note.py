"""The scrub's note and its judgement."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.capture.examiner import Examined
from stages.capture.live.scrub import Host, Scrub
from stages.capture.live.scrub_note import Note, NoteFile
from stages.capture.live.scrub_region import judged
from stages.model import CHUNK_BLOCKS, U64, UNKNOWN, ZERO, Bools
from stages.stream import REGION
from stages.system import this_machine


async def test_a_note_is_read_again(tmp_path: Path) -> None:
    file = NoteFile(this_machine(), str(tmp_path / "scrub"))
    assert await file.load() == Note()
    note = Note(disk=3, region=7, passes=2, mismatches=9, last="root: 1 block")
    await file.save(note)
    assert await file.load() == note
    assert this_machine().files.listdir(str(tmp_path)) == ["scrub"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"disk": "1"}',
        b'{"region": -1}',
        b'{"region": true}',
        b"1" * (65 << 10),
        b'{"last": null}',
    ],
)
async def test_a_note_that_cannot_be_read_begins_anew(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "scrub").write_bytes(data)
    assert await NoteFile(this_machine(), str(tmp_path / "scrub")).load() == Note()


async def test_a_note_of_another_version(tmp_path: Path) -> None:
    known = asdict(Note(region=4))
    del known["last"]
    (tmp_path / "scrub").write_text(json.dumps(known | {"more": 1}))
    assert (await NoteFile(this_machine(), str(tmp_path / "scrub")).load()).region == 4


def test_what_was_found_is_doubted_until_a_whole_pass_finds_nothing() -> None:
    note = Note(began_us=10, found_now=3)
    note.pass_ends(20)
    assert (note.passes, note.completed_us, note.clean_us, note.doubted) == (1, 20, 0, 3)
    note.began_us = 30
    note.pass_ends(40)
    assert (note.clean_us, note.doubted) == (30, 0)


@dataclass
class _Disk:
    name: str
    size: int

    def locked(self, first: int, count: int) -> Bools | None:
        return None


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 3 * REGION), min_size=1, max_size=4))
def test_every_region_is_looked_at_once_in_a_pass(sizes: dict[int, int]) -> None:
    disks = {number: _Disk(str(number), size) for number, size in sizes.items()}
    nothing = cast(Any, None)
    host = Host(
        lambda: True, lambda: cast(Any, disks), nothing, nothing, nothing, nothing, nothing,
        nothing, nothing,
    )  # fmt: skip
    scrub = Scrub(this_machine(), host, "/nowhere", 60)
    seen = []
    last = -1
    while (place := scrub._next()) is not None:
        seen.append(place)
        scrub.note.disk, scrub.note.region = place[0], place[1] + 1
        assert last <= scrub.status().done <= scrub.status().total
        last = scrub.status().done
    expected = [(n, r) for n, size in sorted(sizes.items()) for r in range(-(-size // REGION))]
    assert seen == expected
    assert scrub.status().done == scrub.status().total == sum(sizes.values())


@dataclass
class _Seen:
    chunks: U64
    blocks: U64


DIGESTS = st.sampled_from([UNKNOWN, ZERO, (1, 1), (2, 2)])


@given(st.integers(1, 40), st.data())
def test_only_what_is_known_and_was_not_written_can_differ(count: int, data: st.DataObject) -> None:
    """Blocks hold content 1 or 2 or zeros; digests are those, or not known."""
    chunks = -(-count // CHUNK_BLOCKS)

    def draw(kind: Any) -> U64:
        return np.array(data.draw(st.lists(kind, min_size=count, max_size=count)), np.uint64)

    held = draw(DIGESTS.filter(lambda one: one != UNKNOWN))
    vault = draw(DIGESTS)
    doubt = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), np.bool_)

    def chunk_digests(blocks: U64) -> U64:
        """Known if all its blocks are: a number that is different for different content."""
        found = np.zeros((chunks, 2), np.uint64)
        for at in range(count // CHUNK_BLOCKS):
            rows = blocks[at * CHUNK_BLOCKS : (at + 1) * CHUNK_BLOCKS]
            if (rows == 0).all(axis=1).any():
                continue
            code = hash(rows.tobytes()) & 0xFFFF_FFFF
            found[at] = (7, code)
        return found

    seen = cast(Examined, _Seen(chunk_digests(held), held))
    differs, unproven = judged(seen, chunk_digests(vault), vault, doubt)
    known = (vault != 0).any(axis=1)
    wrong = (vault != held).any(axis=1)
    assert (differs == (known & wrong & ~doubt)).all()
    assert unproven <= np.count_nonzero(doubt | ~known)
