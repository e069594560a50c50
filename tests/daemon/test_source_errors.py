"""Errors of the source reach the guest as they are, and the vault holds what the source holds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cli.support import KEYS, MIB, Place
from tests.daemon.disks import fill, fuse, small
from tests.daemon.running import PATIENCE, comes_back, prepare, replicating, running

SIZE = 4 * MIB
FAILED = "it failed"


@pytest.fixture
def folder() -> Iterator[Path]:
    """One with a short path: sockets need one."""
    with TemporaryDirectory(prefix="bs-") as made:
        yield Path(made)


def failing_disk(folder: Path) -> list[str]:
    """An nbdkit server of ``disk.raw``: writes fail with EIO while ``no-write`` exists, reads while
    ``no-read`` does, flushes while ``no-flush`` does."""
    raw = folder / "disk.raw"
    raw.write_bytes(b"\1" * SIZE)

    def unless(name: str, then: str) -> str:
        drop = "cat >/dev/null; " if name == "no-write" else ""
        return f"if [ -e {folder}/{name} ]; then echo EIO >&2; {drop}exit 1; fi; {then}"

    count = "iflag=count_bytes,skip_bytes,fullblock status=none"
    pread = f"dd if={raw} skip=$4 count=$3 {count}"
    pwrite = f"dd of={raw} seek=$4 oflag=seek_bytes conv=notrunc status=none"
    return [
        "eval", f"get_size=echo {SIZE}", "can_write=exit 0", "can_flush=exit 0",
        f"pread={unless('no-read', pread)}", f"pwrite={unless('no-write', pwrite)}",
        f"flush={unless('no-flush', 'exit 0')}",
    ]  # fmt: skip


def told(place: Place, *commands: str) -> str:
    """What a guest hears that does something which fails."""
    words = [word for each in commands for word in ("-c", each)]
    done = subprocess.run(
        ["qemu-io", "-f", "raw", *words, "nbd+unix:///root?socket=root.sock"],
        cwd=place.root, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr + (FAILED if done.returncode else "")  # a flush is silent


def serve(place: Place, path: Path) -> None:
    text = (place / "c.yaml").read_text()
    (place / "c.yaml").write_text(text.replace("./root.img", str(path)))


def restored(place: Place) -> bytes:
    place.json("restore", "web1", *KEYS, "--to", "back")
    return (place / "back/web1-root.img").read_bytes()


def test_no_space(folder: Path) -> None:
    """A sparse file on a full file system: old blocks can be written, holes cannot."""
    with small(folder / "disks", "3m"):
        place = prepare(folder)
        image = place / "disks/root.img"
        with image.open("wb") as file:
            file.truncate(SIZE)
            file.write(b"\1" * MIB)
        serve(place, image)
        with running(place) as daemon:
            replicating(place)
            fill(place / "disks/much")
            full = "No space left on device"
            assert full not in told(place, "write -P 2 0 1M", "flush")
            assert full in told(place, "write -P 3 2M 64k")
            assert full in told(place, "write -P 3 960k 256k")  # the first blocks of it are there
            assert full in told(place, "write -P 4 3000k 700")
            assert full not in told(place, "write -P 5 512 700", "flush", "read 0 4M")
            comes_back(place)
            replicating(place)
            assert restored(place) == image.read_bytes()
            daemon.end()


def test_input_output_error(folder: Path) -> None:
    place = prepare(folder)
    with fuse(*failing_disk(folder)) as disk:
        serve(place, disk.image)
        with running(place) as daemon:
            replicating(place)
            failed = "Input/output error"
            (place / "no-write").touch()
            assert failed in told(place, "write -P 2 0 64k")
            assert failed in told(place, "write -P 2 130k 700")
            (place / "no-read").touch()  # what the failed write has left is not known then
            assert failed in told(place, "write -P 3 1M 64k")
            (place / "no-write").unlink()
            (place / "no-read").unlink()
            assert failed not in told(place, "write -P 4 2M 64k", "flush")
            (place / "no-flush").touch()
            assert told(place, "write -P 5 3M 64k", "flush").endswith(FAILED)
            assert told(place, "flush").endswith(FAILED)
            (place / "no-flush").unlink()
            assert not told(place, "write -P 6 3M 4k", "flush").endswith(FAILED)
            comes_back(place)
            replicating(place)
            assert restored(place) == (place / "disk.raw").read_bytes()
            daemon.end()
