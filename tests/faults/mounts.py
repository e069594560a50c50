"""Small file systems and loop devices, for tests that may make them (root)."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.faults.world import World

ROOT_NEEDED = "root, loop devices and tmpfs"


@functools.cache
def available() -> bool:
    """True if this process may mount and has loop devices."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image"
        image.write_bytes(bytes(1 << 20))
        try:
            device = attach(image)
        except (OSError, subprocess.CalledProcessError):
            return False
        detach(device)
        try:
            call("mount", "-t", "tmpfs", "-o", "size=64k", "none", folder)
        except (OSError, subprocess.CalledProcessError):
            return False
        call("umount", folder)
    return True


def call(*command: str) -> str:
    """Run a tool; its output. Raises ``CalledProcessError``."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def attach(image: Path) -> str:
    """A loop device over an image."""
    return call("losetup", "-f", "--show", str(image))


def detach(device: str) -> None:
    """Give a loop device back."""
    call("losetup", "-d", device)


def umount(folder: Path) -> None:
    """Take a file system away."""
    call("umount", str(folder))


def loop(world: World, name: str) -> str:
    """A loop device over an image of the world, until ``mend``."""
    device = attach(world.path(name))
    world.undo.append(lambda: detach(device))
    world.names["device"] = device
    return device


def mounted(world: World, device: str, name: str) -> None:
    """A file system on a device, mounted in the world, until ``mend``."""
    call("mkfs.ext4", "-q", "-F", device)
    folder = world.path(name)
    folder.mkdir()
    call("mount", device, str(folder))
    world.undo.append(lambda: umount(folder))


def tmpfs(world: World, name: str, size: str, options: str = "") -> None:
    """An empty file system of a size over a new folder of the world, until ``mend``."""
    folder = world.path(name)
    folder.mkdir()
    call("mount", "-t", "tmpfs", "-o", f"size={size}{options}", "none", str(folder))
    world.undo.append(lambda: umount(folder))


def refit(world: World, name: str, size: str) -> None:
    """Put a folder of the world on a small file system; ``mend`` gives what is there more room."""
    folder, aside = world.path(name), world.path(f"{name}-aside")
    folder.rename(aside)
    tmpfs(world, name, size)
    call("cp", "-a", f"{aside}/.", str(folder))
    world.undo.pop()

    def roomier() -> None:
        call("rm", "-rf", str(aside))
        call("cp", "-a", str(folder), str(aside))
        umount(folder)
        folder.rmdir()
        aside.rename(folder)

    world.undo.append(roomier)


def fill(path: Path) -> None:
    """Write until the file system is full."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def hold(device: str) -> Callable[[], None]:
    """Open a device for oneself, as a volume manager does; returns what lets go of it."""
    descriptor = os.open(device, os.O_RDWR | os.O_EXCL)
    return lambda: os.close(descriptor)
