"""Real NBD clients write through the splitter, and what they wrote is on the source."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from pipeline import intake_disks as module
from pipeline.intake import MachineIntake
from pipeline.intake_disks import IntakeDisk
from stages.cache.journal.reader import JournalReader
from stages.capture.examiner import Examiners, InlineExaminers
from stages.capture.group.limits import Limits
from stages.capture.pool import ProcessExaminers
from stages.nbd import wire
from stages.nbd.outbox import Outbox
from stages.stream import ORIGIN, ZERO_ROW, Kind
from stages.system import this_machine
from tests.nbd.serving import Client
from tests.nbd.spoken import request, write

SIZE = (24 << 20) + 512  # the last block is cut short


@asynccontextmanager
async def served(folder: Path, limit: int = 1 << 30) -> AsyncIterator[tuple[MachineIntake, str]]:
    """A disk being captured, without delivery, and its URI."""
    image = folder / "disk.img"
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(SIZE)
    disks = [IntakeDisk("root", str(image), f"unix:{folder}/r.sock")]
    intake = await MachineIntake.open(
        this_machine(), str(folder / "state"), "m", disks, Limits(limit)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(intake.run)
        yield intake, f"nbd+unix:///root?socket={folder}/r.sock"
        intake.stop()


def applied(folder: Path, intake: MachineIntake) -> bytes:
    """A disk of zeros, with everything done to it that the journal says."""
    disk = bytearray(-(-SIZE // 4096) * 4096)
    reader, position = JournalReader(this_machine().files, f"{folder}/state/journal"), ORIGIN
    while records := reader.read(position, intake.joint.durable, 1 << 20):
        for record in records:
            if record.kind is Kind.WRITE:
                for block, count, at in record.rows.tolist():
                    size = count * 4096
                    found = bytes(size) if at == ZERO_ROW else record.payload[at : at + size]
                    disk[block * 4096 : block * 4096 + size] = found
        position = records[-1].end
    reader.close()
    return bytes(disk[:SIZE])


async def call(*command: str) -> str:
    done = await trio.run_process(
        command, capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )
    assert not done.returncode, done.stdout.decode()
    return done.stdout.decode()


async def test_fio_verifies_over_several_connections(tmp_path: Path) -> None:
    async with served(tmp_path) as (intake, uri):
        job = ["--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bsrange=4k-64k"]
        await call(
            "fio", "--name=x", *job, "--iodepth=16", "--numjobs=3", "--size=8M",
            "--offset_increment=8M", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
            "--verify_state_save=0", "--fsync=20",
        )  # fmt: skip
    assert applied(tmp_path, intake) == (tmp_path / "disk.img").read_bytes()


async def test_a_large_disk_that_is_added_is_scanned_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was there from the start: hashing must not hold up guests."""
    async with served(tmp_path) as (intake, _):
        before: Examiners = intake.group.comparing.examiners
        monkeypatch.setattr(module, "_LARGE", SIZE)
        (tmp_path / "data.img").write_bytes(bytes(SIZE))
        added = IntakeDisk("data", str(tmp_path / "data.img"), f"unix:{tmp_path}/d.sock")
        to_come = await intake.prepare([*intake.disks, added])
        await to_come.apply()
        after: Examiners = intake.group.comparing.examiners
    assert isinstance(before, InlineExaminers)
    assert isinstance(after, ProcessExaminers)


async def test_odd_writes_trims_and_zeroes(tmp_path: Path) -> None:
    steps = [
        "write -P 7 1M 64k", "write -P 8 1000 700", f"write -P 9 {SIZE - 1024} 1024",
        "write -z 1100k 64k", "write -z -u 5k 3k", "discard 2M 1M", "write -P 5 2500k 100",
        "aio_write -P 1 4M 1M", "aio_write -P 2 4500k 1M", "aio_flush", "flush",
        "read -P 8 1000 700", f"read -P 9 {SIZE - 1024} 1024", "read -P 0 5k 3k",
    ]  # fmt: skip
    async with served(tmp_path) as (intake, uri):
        said = await call("qemu-io", "-f", "raw", *(f"-c{step}" for step in steps), uri)
        assert "failed" not in said
    assert applied(tmp_path, intake) == (tmp_path / "disk.img").read_bytes()


async def test_nbdcopy_in_and_out(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * (SIZE // 256) + bytes(SIZE % 256))
    async with served(tmp_path) as (intake, uri):
        await call("nbdcopy", "--connections=4", "--flush", str(source), uri)
        await call("nbdcopy", uri, str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert applied(tmp_path, intake) == source.read_bytes()


async def test_a_clean_end_compares_nothing_and_a_change_meanwhile_everything(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (intake, uri):
        await call("qemu-io", "-f", "raw", "-c", "write 0 4k", uri)
        regions = len(intake.group.activity.pending[0])
        intake.group.activity.pending[0][:] = False  # as after a scan
    async with served(tmp_path) as (intake, uri):
        assert intake.compared == ()
    with (tmp_path / "disk.img").open("r+b") as file:
        file.write(b"somebody else")
    async with served(tmp_path) as (intake, uri):
        assert intake.compared == ("root: may have been written to while it was detached",)
        assert intake.group.to_scan() == (regions, regions)


async def test_a_full_journal_tracks_and_does_not_stop_guests(tmp_path: Path) -> None:
    async with served(tmp_path, limit=2 << 20) as (intake, uri):
        await call("qemu-io", "-f", "raw", "-c", "write -P 3 0 12M", "-c", "flush", uri)
        assert intake.status().state == "tracking"
        assert intake.status().reason == "the journal is full"
    assert (tmp_path / "disk.img").read_bytes()[: 12 << 20] == b"\3" * (12 << 20)


async def test_reads_at_once_and_later_are_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the page cache holds is answered at once; what it does not, what is large and what is
    refused goes the long way: a client sees no difference."""
    kept: list[int] = []
    keep = Outbox.keep

    def watched(self: Outbox, cookie: int, offset: int, length: int) -> None:
        kept.append(cookie)
        keep(self, cookie, offset, length)

    monkeypatch.setattr(Outbox, "keep", watched)
    content = random.Random(9).randbytes(2 << 20)
    async with served(tmp_path):
        with (tmp_path / "disk.img").open("rb") as image:
            client = Client(await trio.open_unix_socket(f"{tmp_path}/r.sock"))
            await client.go("root")
            for at in range(0, len(content), 1 << 20):
                await client.ask(write(at, content[at : at + (1 << 20)], cookie=at))
            os.fsync(image.fileno())
            os.posix_fadvise(image.fileno(), 1 << 20, 1 << 20, os.POSIX_FADV_DONTNEED)
            fresh = random.Random(10).randbytes(4096)
            reads = [
                (1, 0, 4096), (2, 777, 70), (3, 65_536, 64 << 10), (4, 8192, (64 << 10) + 1),
                (5, (1 << 20) + 8192, 4096), (6, SIZE - 500, 500), (7, 1 << 19, 4096),
            ]  # fmt: skip
            said = [request(wire.CMD_READ, at, length, cookie=n) for n, at, length in reads]
            bad = [
                request(wire.CMD_READ, SIZE - 499, 500, cookie=20),
                request(wire.CMD_READ, 0, 0, cookie=21),
                request(wire.CMD_READ, 1 << 63, 4096, cookie=22),
            ]
            behind = request(wire.CMD_READ, 1 << 19, 4096, cookie=30)
            parts = [*said, write(1 << 19, fresh, cookie=10), behind, *bad]
            await client.stream.send_all(b"".join(parts))
            found = {}
            for _ in parts:
                reply = await client.reply()
                found[reply.cookie] = (reply.error, reply.data[8:])
            await client.stream.aclose()
    for number, at, length in reads[:-2]:
        assert found[number] == (0, content[at : at + length])
    assert found[6] == (0, bytes(500))
    assert found[7][1] in (content[1 << 19 : (1 << 19) + 4096], fresh)  # as it came, or later
    assert found[10][0] == 0
    assert found[30] == (0, fresh)  # in its place behind the write
    assert [found[number][0] for number in (20, 21, 22)] == [wire.EINVAL] * 3
    assert set(kept) <= {1, 2, 3, 5, 6, 7, 30}
    assert {1, 2, 3} <= set(kept)
