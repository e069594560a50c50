"""FORMAT.md says what the program does, where both can be compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stages.crypto import passphrase
from stages.model import BLOCK, FRAME_BLOCKS, MAX_DISKS
from stages.recover.listing import MAX_GROUPS
from stages.recover.points import COMPLETE_WINDOW
from stages.store import canary
from stages.vault import (
    charter,
    checkpoint,
    commit,
    container,
    failovers,
    floor_log,
    floors,
    frame,
    keyfile,
    layout,
    leases,
    records,
    rollup,
    sealing,
    terms,
)

TEXT = (Path(charter.__file__).parent / "FORMAT.md").read_text()
GID, KEY = bytes(16), b"k" * 32


def limit(what: str) -> str:
    """The right-hand side of a row of the table of limits."""
    table = TEXT[TEXT.index("## Limits") :]
    found = re.search(rf"^\| {re.escape(what)} \| (.*) \|$", table, re.MULTILINE)
    assert found, what
    return found[1]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("charter, key file", f"{charter.MAX_SIZE >> 20} MiB each"),
        ("charter, key file", f"{keyfile.MAX_SIZE >> 20} MiB each"),
        (
            "recipients, writers",
            f"{charter.MAX_MEMBERS} each; names {charter.MAX_NAME} characters",
        ),
        ("generation", f"{charter.MAX_GENERATION:,}".replace(",", " ")),
        ("vaults in a key file", f"{keyfile.MAX_PINS}"),
        (
            "Argon2id",
            f"`ops` 1–{passphrase.MAX_OPS}, `memory` 8 KiB – {passphrase.MAX_MEMORY >> 30} GiB",
        ),
        ("header", f"{container.MAX_HEADER >> 20} MiB; text in it 4096 characters"),
        ("body, tail", f"{container.MAX_BODY >> 20} MiB each"),
        ("body, tail", f"{container.MAX_TAIL >> 20} MiB each"),
        ("body opened", f"{sealing.MAX_PLAIN >> 20} MiB"),
        ("epoch", "2²⁴ − 1" if terms.MAX_EPOCH == (1 << 24) - 1 else ""),
        ("frame number", "2³² − 1" if commit.FRAME_NUMBERS == 1 << 32 else ""),
        ("frame", f"{FRAME_BLOCKS} blocks; sealed {2 * FRAME_BLOCKS * BLOCK >> 10} KiB"),
        (
            "commit",
            (
                f"{commit.MAX_OBJECTS} objects, 2²⁴ frames, {commit.MAX_SEGMENTS} segments, "
                "65 536 parts in a segment"
            ),
        ),
        (
            "disks",
            f"{MAX_DISKS}; names 64 characters; 2⁴⁷ bytes all together"
            if records.MAX_MACHINE_BYTES == 1 << 47
            else "",
        ),
        ("rollup", f"{rollup.MAX_SIZE >> 20} MiB"),
        ("page", f"262 144 bytes stored, {checkpoint.PAGE_ROWS} rows"),
        (
            "floor",
            f"{floors.MAX_POINTS:_} points, {floors.MAX_PACKS:_} packs; "
            f"{floors.MAX_FLOORS:_} floors of a group".replace("_", " "),
        ),
        (
            "hold",
            f"`by` {floors.MAX_WHO} characters, `note` {floors.MAX_NOTE}; "
            f"{floor_log.MOST_HOLDS:_} holds of a group".replace("_", " "),
        ),
        ("deletion record", f"`host`, `by` {floors.MAX_WHO} characters each"),
        (
            "lease",
            f"{leases.LONGEST} s, `by` {floors.MAX_WHO} characters; "
            f"{leases.MOST:_} leases of a group".replace("_", " "),
        ),
        ("failover records of a group", f"{failovers.MAX_RECORDS}"),
        ("groups in a vault", f"{MAX_GROUPS:,}".replace(",", " ")),
    ],
)
def test_limits(what: str, says: str) -> None:
    assert limit(what) == says


def test_limits_that_are_written_as_powers() -> None:
    assert (commit.MAX_FRAMES, commit.MAX_PARTS) == (1 << 24, 65_536)
    assert (commit.MAX_SEGMENT_BLOCKS, checkpoint.MAX_STORED) == (1 << 23, 262_144)
    assert "2²³ blocks of content and references together" in limit("segment")
    assert f"the last {COMPLETE_WINDOW} commits" in TEXT


def test_names() -> None:
    """Every name that the program makes is a row of the table, digits and keys as letters."""
    names = {
        layout.VAULT,
        layout.charter(2),
        layout.group_record(GID),
        layout.digest_key(GID, KEY),
        layout.machine(GID, 1),
        layout.term(GID, 1),
        layout.wrapped_key(GID, 1, KEY, "data"),
        layout.wrapped_key(GID, 1, KEY, "index"),
        layout.data(GID, 1, 1),
        layout.commit(GID, 1),
        layout.rollup(GID, 256),
        layout.checkpoint_part(GID, 1, 1 << 16),
        layout.manifest(GID, 1),
        layout.failover(GID, 1),
        layout.floor(GID, 1),
        layout.hold(GID, 1),
        layout.lease(GID, 1, GID),
        layout.pack(GID, 1),
        layout.deleted(GID),
        canary.KEY,
    }
    shaped = set()
    for name in names:
        shape = name.replace(f"-{GID.hex()}", "-X").replace(GID.hex(), "G")
        shape = shape.replace(KEY.hex(), "R")
        shaped.add(re.sub(r"\d+", lambda digits: "#" * len(digits[0]), shape))
    section = TEXT[TEXT.index("## Objects") : TEXT.index("## Charter")]
    rows = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    widths = {re.sub(r"N{3,}|E{3,}|P{3,}", lambda run: "#" * len(run[0]), row) for row in rows}
    assert shaped == widths


@pytest.mark.parametrize(
    "constant",
    [
        container.MAGIC,
        frame.MAGIC,
        b"BPAG",
        b"BROL",
        b"backstay signed object 1",
        b"backstay charter 1",
        b"backstay body 1",
        b"backstay frame 1",
        b"backstay page 1",
        b"Backstay 1 digest of a 4 KiB block",
    ],
)
def test_magics_and_contexts(constant: bytes) -> None:
    assert f"`{constant.decode()}" in TEXT


@pytest.mark.parametrize("kind", list(container.Kind))
def test_kinds(kind: container.Kind) -> None:
    words = kind.name.lower().replace("_", " ")
    assert re.search(rf"^### Kind {kind.value}: .*{words.split()[0]}", TEXT, re.MULTILINE)
