"""The guest of the demonstration: a machine with an ext4 file system on a disk reached over NBD.

It changes files in a working image, which is its page cache, and writes each block that differs
to its disk; at a flush it knows what the disk holds. Changes are made with debugfs, so that no
step takes root. ::

    files ──debugfs──▶ working image ──blocks that differ──▶ NBD     known image = what was flushed
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.demo.client import NbdClient
from pipeline.demo.commands import Tools
from stages.errors import DamagedObject, SourceIO
from stages.model import BLOCK

_DEPTH = 16  # writes in flight
_FLUSH_EVERY = 512  # writes
_CHUNK = 1 << 20  # compared or read at once
_KEPT_ROUNDS = 3  # folders with files; older ones are deleted


@dataclass(frozen=True, slots=True)
class Moment:
    """What the guest knows of its disk at one moment: the whole image, and files in it.

    ``files``: digests by path; ``gone``: paths that were deleted before.
    """

    image: Path
    files: dict[str, bytes]
    gone: tuple[str, ...]


@dataclass
class Found:
    """What a comparison of the whole disk found. Blocks: written, but not flushed; of those, on the
    disk."""

    unflushed: int = 0
    there: int = 0


@dataclass
class Guest:
    """``library``: text for its files. ``acknowledged`` counts writes, ``flushes`` flushes."""

    folder: Path
    tools: Tools
    library: list[Path]
    acknowledged: int = 0
    flushes: int = 0
    _round: int = 0
    _files: dict[str, bytes] = field(default_factory=dict)
    _gone: list[str] = field(default_factory=list)
    _unflushed: dict[int, bytes] = field(default_factory=dict)  # by block

    @property
    def working(self) -> Path:
        """The file system as the guest sees it."""
        return self.folder / "guest.img"

    @property
    def known(self) -> Path:
        """What the guest has flushed to its disk."""
        return self.folder / "guest-flushed.img"

    def starts_with(self, disk: Path) -> None:
        """Its disk as it is before anything is written."""
        self.tools.copy(disk, self.working)
        self.tools.copy(disk, self.known)

    def change(self, count: int) -> None:
        """Make a folder with ``count`` files of 1 MiB, half of it noise, and delete an old one."""
        self._round += 1
        said = [f"mkdir r{self._round}"]
        for number in range(count):
            path = f"r{self._round}/f{number}"
            text = self.library[(self._round * 31 + number) % len(self.library)].read_bytes()
            content = os.urandom(1 << 19) + (text * (1 + (1 << 19) // len(text)))[: 1 << 19]
            fresh = self.folder / f"fresh-{number}"
            fresh.write_bytes(content)
            self._files[path] = hashlib.sha256(content).digest()
            said.append(f"write {fresh.name} {path}")
        old = f"r{self._round - _KEPT_ROUNDS}/"
        for path in [path for path in self._files if path.startswith(old)]:
            del self._files[path]
            self._gone.append(path)
            said.append(f"rm {path}")
        self.tools.debugfs(self.working, said, self.folder, write=True)
        for number in range(count):
            (self.folder / f"fresh-{number}").unlink()

    def write(
        self,
        disk: NbdClient,
        *,
        each: Callable[[], None] = lambda: None,
        last_flush: bool = True,
    ) -> int:
        """Write what differs, in order, with flushes; return how many blocks. ``each`` is called
        after each acknowledgement. The file system on the disk is clean when this has flushed."""
        count = 0
        for block, data in self._differing():
            while disk.in_flight >= _DEPTH:
                self._finish(disk, each)
            self._unflushed[block] = data
            disk.begin_write(block * BLOCK, data)
            count += 1
            if count % _FLUSH_EVERY == 0:
                self.flush(disk, each)
        if last_flush:
            self.flush(disk, each)
        return count

    def flush(self, disk: NbdClient, each: Callable[[], None] = lambda: None) -> None:
        """Everything that was written is on stable storage, and known to be."""
        while disk.in_flight:
            self._finish(disk, each)
        disk.flush()
        self.flushes += 1
        with self.known.open("r+b") as known:
            for block, data in self._unflushed.items():
                known.seek(block * BLOCK)
                known.write(data)
        self._unflushed.clear()

    def check(self, disk: NbdClient) -> Found:
        """Read the whole disk: what was flushed is there, and of what was not, each block as it was
        before or after. Raises ``SourceIO``."""
        found = Found(unflushed=len(self._unflushed))
        with self.known.open("rb") as known:
            for offset in range(0, disk.size, _CHUNK):
                expected = known.read(_CHUNK)
                data = disk.read(offset, len(expected))
                if data != expected:
                    self._explain(offset, data, expected, found)
        return found

    def mark(self, name: str) -> Moment:
        """Remember this moment; everything is flushed."""
        image = self.folder / f"reference-{name}.img"
        self.tools.copy(self.known, image)
        return Moment(image, dict(self._files), tuple(self._gone))

    def _finish(self, disk: NbdClient, each: Callable[[], None]) -> None:
        disk.finish_write()
        self.acknowledged += 1
        each()

    def _differing(self) -> Iterator[tuple[int, bytes]]:
        """Number and content of each block of the working image that is not known to be on the
        disk, in order."""
        with self.working.open("rb") as working, self.known.open("rb") as known:
            for at in range(0, self.working.stat().st_size, _CHUNK):
                new, old = working.read(_CHUNK), os.pread(known.fileno(), _CHUNK, at)
                if new == old:
                    continue
                for block in _unequal(new, old):
                    yield at // BLOCK + block, new[block * BLOCK : (block + 1) * BLOCK]

    def _explain(self, offset: int, data: bytes, expected: bytes, found: Found) -> None:
        for block in _unequal(data, expected):
            number = offset // BLOCK + block
            if data[block * BLOCK : (block + 1) * BLOCK] != self._unflushed.get(number):
                raise SourceIO(
                    f"block {number} is not what the guest flushed to it",
                    operation="demo",
                    subject="the guest's disk",
                )
            found.there += 1


def check_files(moment: Moment, image: Path, tools: Tools, folder: Path) -> int:
    """Read the files of a moment out of an image, into ``folder``; how many there are. Raises
    ``DamagedObject``."""
    folder.mkdir()
    wanted = [*moment.files, *moment.gone]
    names = {path: path.replace("/", "-") for path in wanted}
    tools.debugfs(image, [f"dump {path} {names[path]}" for path in wanted], folder)
    for path, digest in moment.files.items():
        out = folder / names[path]
        if not out.exists() or hashlib.sha256(out.read_bytes()).digest() != digest:
            raise DamagedObject("is not the file of that moment", operation="demo", subject=path)
    for path in moment.gone:
        if (folder / names[path]).exists():
            raise DamagedObject("was deleted before that moment", operation="demo", subject=path)
    shutil.rmtree(folder)
    return len(moment.files)


def first_difference(one: Path, other: Path) -> int | None:
    """The byte at which two files begin to differ; None if they are the same."""
    with one.open("rb") as left, other.open("rb") as right:
        at = 0
        while True:
            mine, theirs = left.read(_CHUNK), right.read(_CHUNK)
            if mine != theirs:
                pairs = zip(mine, theirs, strict=False)
                same = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
                return at + (min(len(mine), len(theirs)) if same is None else same)
            if not mine:
                return None
            at += len(mine)


def _unequal(one: bytes, other: bytes) -> list[int]:
    """Numbers of the blocks in which two equally long pieces differ."""
    left, right = (
        np.frombuffer(piece, np.uint64).reshape(-1, BLOCK // 8) for piece in (one, other)
    )
    return [int(number) for number in np.flatnonzero((left != right).any(axis=1))]
