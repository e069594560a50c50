"""A guest's side of its disks: NBD clients, loop devices, a mounted ext4, and a writer in it.

Every NBD disk becomes a file (nbdfuse), the file a block device (loop). When the server dies, so
does nbdfuse, and the guest sees a dead disk. ``pull`` leaves nothing behind whatever happened.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.cli.support import ROOT
from tests.storm.oracle import History, Op
from tests.storm.writer import FAILED

PATIENCE = 60.0  # seconds: never reached unless something is wrong
JOURNAL = "journal"  # the disk with the file system's journal, if it is not inside
DATA = "root"


class StormError(AssertionError):
    """Something is not as promised."""


def call(*command: str, codes: tuple[int, ...] = (0,)) -> str:
    """Run a tool; what it printed. Raises ``StormError`` for another exit code."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode not in codes:
        said = f"{done.stdout}{done.stderr}".strip()
        raise StormError(f"{' '.join(command)}: exit code {done.returncode}: {said}")
    return done.stdout.strip()


def attempt(*command: str) -> None:
    """Run a tool that may fail: what it takes away may not be there."""
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            command, capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False
        )


def until(what: str, found: Callable[[], bool]) -> None:
    """Wait for something that nobody tells us of."""
    end = time.monotonic() + PATIENCE
    while not found():
        if time.monotonic() > end:
            raise StormError(f"waited in vain: {what}")
        select.select([], [], [], 0.01)  # leave the processor to it


def make_file_system(images: Mapping[str, Path]) -> None:
    """An empty ext4 in disk images, with its journal in a disk of its own if there is one."""
    with Loops(images) as devices:
        options = []
        if JOURNAL in devices:
            call("mke2fs", "-q", "-F", "-b", "4096", "-O", "journal_dev", devices[JOURNAL])
            options = ["-J", f"device={devices[JOURNAL]}"]
        # Not "lazy": what a kernel thread would go on writing says nothing here.
        extended = "lazy_itable_init=0,lazy_journal_init=0"
        call("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", extended, *options, devices[DATA])


def mount(devices: Mapping[str, str], folder: Path, *options: str) -> None:
    """Mount the file system, which replays its journal."""
    words = list(options)
    if JOURNAL in devices and "noload" not in options:
        words.append(f"journal_path={devices[JOURNAL]}")
    call("mount", "-t", "ext4", "-o", ",".join(words) or "defaults", devices[DATA], str(folder))


class Loops:
    """Loop devices over files, by disk."""

    def __init__(self, files: Mapping[str, Path]):
        self._files = files
        self.devices: dict[str, str] = {}

    def __enter__(self) -> dict[str, str]:
        try:
            for disk, path in self._files.items():
                self.devices[disk] = call("losetup", "-f", "--show", str(path))
        except BaseException:
            self.close()
            raise
        return self.devices

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give them back."""
        while self.devices:
            attempt("losetup", "-d", self.devices.popitem()[1])


class Guest:
    """Disks attached and mounted at ``mounted``, once; ``uris`` by disk."""

    def __init__(self, folder: Path, uris: Mapping[str, str]):
        folder.mkdir()
        self.mounted = folder / "mounted"
        self.mounted.mkdir()
        self._folder = folder
        self._uris = uris
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._loops: Loops | None = None
        self._is_mounted = False

    def attach(self) -> None:
        """From URIs to a mounted file system."""
        for disk, uri in self._uris.items():
            place = self._folder / disk
            place.mkdir()
            process = subprocess.Popen(
                ["nbdfuse", f"{place}/nbd", uri],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._servers[disk] = process
            until("nbdfuse", partial(_serves, place, process))
        self._loops = Loops({disk: self._folder / disk / "nbd" for disk in self._uris})
        devices = self._loops.__enter__()
        mount(devices, self.mounted)
        self._is_mounted = True

    def detach(self) -> None:
        """As a guest that shuts down."""
        call("umount", str(self.mounted))
        self._is_mounted = False
        assert self._loops is not None
        devices = list(self._loops.devices.values())
        self._loops.close()
        for device in devices:
            until("a loop device is let go of", partial(_is_free, device))
        for disk, process in self._servers.items():
            call("fusermount3", "-u", str(self._folder / disk))
            process.wait(PATIENCE)
        self._servers.clear()

    def died(self) -> None:
        """Wait until its NBD clients have given up: their server is gone."""
        for process in self._servers.values():
            process.wait(PATIENCE)

    def pull(self) -> None:
        """Take everything away, in whatever state it is."""
        for process in self._servers.values():
            process.kill()  # what waits for this disk fails from now on
            process.wait()
        if self._is_mounted:
            attempt("umount", "-l", str(self.mounted))
            self._is_mounted = False
        if self._loops is not None:
            self._loops.close()
        for disk in self._servers:
            attempt("umount", "-l", str(self._folder / disk))
        self._servers.clear()


def _serves(place: Path, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise StormError(f"nbdfuse ended with {process.returncode}")
    return (place / "nbd").exists()


def _is_free(device: str) -> bool:
    return not Path(f"/sys/block/{Path(device).name}/loop/backing_file").exists()


class Writer:
    """The writer's process; what it tells goes into ``history``."""

    def __init__(self, mounted: Path, seed: str, history: History):
        self._history = history
        self._heard = threading.Condition()
        self._ended = False
        self.failed = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.storm.writer", str(mounted), seed],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        files = [[state.name, len(state.blocks)] for state in history.states().values()]
        first_file = max(history.files, default=0)
        start = {"first": history.newest + 1, "first_file": first_file, "files": files}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(start).encode() + b"\n")
        self.process.stdin.flush()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def reached(self, number: int) -> None:
        """Wait for an operation. Raises ``StormError`` if the writer ended, or stands still."""
        with self._heard:
            while self._history.newest < number and not self._ended:
                before = self._history.newest
                if not self._heard.wait(PATIENCE) and self._history.newest == before:
                    raise StormError(f"the writer stands still at operation {before}")
        if self._ended:
            raise StormError(f"the guest noticed: {self.failed or 'the writer ended'}")

    def end(self) -> None:
        """Let it finish what it is doing: nothing may have failed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        if code:
            raise StormError(f"the guest noticed: {self.failed or f'exit code {code}'}")

    def died(self) -> None:
        """Wait for its end on a dead disk."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        if code != FAILED:
            raise StormError(f"the disk was dead, and the writer ended with {code}")

    def kill(self) -> None:
        """Whatever state it is in; its disk is gone already."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            what, *fields = json.loads(line)
            with self._heard:
                if what == "begin":
                    self._history.begin(Op(*fields))
                elif what == "done":
                    self._history.done(*fields)
                else:
                    self.failed = fields[0]
                self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()
