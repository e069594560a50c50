"""Disks that fail for real: small ones, ones that can be frozen, ones that are shut down. Root."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.cli.support import MIB, tool
from tests.daemon.running import died
from tests.waiting import until

_GOING_DOWN = 0x8004587D  # _IOR('X', 125, __u32): ext4's and xfs's shutdown
_NO_FLUSH = 2


def call(*command: str) -> str:
    """Run a tool that has to succeed; its output."""
    words = [tool(command[0]), *command[1:]]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.strip()


@contextmanager
def small(folder: Path, size: str) -> Iterator[None]:
    """A file system in memory of ``size`` over a folder."""
    folder.mkdir(exist_ok=True)
    call("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder))
    try:
        yield
    finally:
        call("umount", "-l", str(folder))


@contextmanager
def frozen(*paths: Path) -> Iterator[None]:
    """The kernel lets nobody write to these files and folders of an ext4, open or not."""
    call("chattr", "+i", *map(str, paths))
    try:
        yield
    finally:
        call("chattr", "-i", *map(str, paths))


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


@dataclass
class Ext4:
    """An ext4 on a loop device, mounted."""

    folder: Path
    device: str

    def shut_down(self) -> None:
        """As when its disk has died: what is not on it is lost, and every call fails."""
        opened = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(opened, _GOING_DOWN, struct.pack("<I", _NO_FLUSH))
        finally:
            os.close(opened)

    def again(self) -> None:
        """The same disk after a restart; nobody has files open on it."""
        call("umount", str(self.folder))
        call("mount", self.device, str(self.folder))


@contextmanager
def ext4(image: Path, folder: Path, size: int = 96 * MIB) -> Iterator[Ext4]:
    """Make one in an image (which may be on a device of its own)."""
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(size)
    call("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", str(image))
    device = call("losetup", "-f", "--show", str(image))
    folder.mkdir(exist_ok=True)
    try:
        call("mount", device, str(folder))
        try:
            yield Ext4(folder, device)
        finally:
            call("umount", "-l", str(folder))
    finally:
        call("losetup", "-d", device)


@dataclass
class Fuse:
    """An image behind a FUSE process, which may be frozen."""

    image: Path
    process: subprocess.Popen[bytes]

    def freeze(self) -> None:
        """From now on the disk does not answer."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It answers again."""
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def fuse(*server: str) -> Iterator[Fuse]:
    """The disk of an nbdkit ``server``, as a file. Its folder is not the tests' own: a frozen one
    must not be listed by what cleans up."""
    with TemporaryDirectory(prefix="bs-fuse-") as folder:
        nbd = f"{folder}/nbd"
        with Path(nbd).open("wb"):
            pass
        words = [nbd, "--command", "nbdkit", "-s", *server]
        process = subprocess.Popen(["nbdfuse", *words], start_new_session=True)
        try:
            until("nbdfuse's mount", lambda: process.poll() or os.path.ismount(nbd), pause=0.01)
            assert process.poll() is None, "nbdfuse has ended"
            yield Fuse(Path(nbd), process)
        finally:
            process.send_signal(signal.SIGCONT)
            call("umount", "-l", nbd)
            process.kill()
            died(process.pid)
            process.wait()
