"""A write that a killed process has left in the kernel changes nothing of what was recovered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stages.cache.journal.files import JournalFile
from stages.cache.journal.record import FILE_HEAD
from tests.daemon.disks import Ext4, ext4, fuse
from tests.journal.in_flight import entry

RUN = JournalFile(1, 0)


def start(role: str, folder: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.journal.in_flight", role, str(folder)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def on_disk(disk: Ext4, folder: Path) -> bytes:
    """The file as the disk has it, not the page cache."""
    disk.again()
    return Path(RUN.path(str(folder))).read_bytes()


def test_it_is_in_before_recovery_looks_or_is_cut_off(tmp_path: Path) -> None:
    """Its disk hangs while the process is killed and the next one begins: the kernel writes later,
    beside recovery. What recovery has kept is then on the disk, and nothing else."""
    two, three = (sum(entry(number).size for number in range(1, last)) for last in (3, 4))
    with fuse("memory", "256M") as behind, ext4(behind.image, tmp_path / "m") as disk:
        folder = tmp_path / "m/journal"
        with start("write", folder) as writer:
            assert heard(writer) == "durable"
            ahead = Path(RUN.path(str(folder))).stat().st_size
            assert ahead > FILE_HEAD + three  # else a thread writes, and outlives no process
            behind.freeze()
            try:
                assert writer.stdin is not None
                writer.stdin.write("go\n")
                writer.stdin.flush()
                assert heard(writer) == "on its way"
                writer.kill()
                follower = start("open", folder)
                assert heard(follower) == "opening"
            finally:
                behind.thaw()
        with follower:
            kept = int(heard(follower))
        assert follower.returncode == 0
        assert kept in (two, three)
        assert len(on_disk(disk, folder)) == FILE_HEAD + kept
        with start("open", folder) as again:
            assert heard(again) == "opening"
            assert int(heard(again)) == kept
