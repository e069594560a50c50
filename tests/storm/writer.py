"""What runs in the guest: threads that create, overwrite, append, replace, rename and delete files.

Run as ``python -m tests.storm.writer FOLDER SEED``. The first line of its standard input says which
files there are and the first operation's number; it goes on until that input ends, or until the
disk dies. Each operation is a line on its standard output before it begins and another one when it
has returned. Exit code 3: an I/O error.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.storm import blocks

THREADS = 3
FILES = 8  # of a thread, about
MOST = 24  # blocks of a file
FAILED = 3
_LAZY = 0.25  # of writes are not synced


def now_us() -> int:
    """The clock that intake reads too."""
    return time.time_ns() // 1000


class Told:
    """Numbers operations and tells of them; shared by the threads."""

    def __init__(self, first: int, first_file: int):
        self.ending = threading.Event()
        self.failed = ""
        self._lock = threading.Lock()
        self._next = first
        self._next_file = first_file

    def file(self) -> int:
        """A new one's number."""
        with self._lock:
            self._next_file += 1
            return self._next_file

    def begin(self, kind: str, file: int, name: str, first: int, count: int, synced: bool) -> int:
        """The number of an operation that begins."""
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._say("begin", number, kind, file, name, first, count, synced, now_us())
        return number

    def done(self, number: int) -> None:
        """It has returned."""
        when = now_us()
        with self._lock:
            self._say("done", number, when)

    def error(self, text: str) -> None:
        """The disk is dead."""
        with self._lock:
            self._say("failed", text)
        self.failed = text
        self.ending.set()

    def _say(self, *fields: object) -> None:
        os.write(1, json.dumps(fields).encode() + b"\n")


class Hand:
    """One thread's files: name and count of blocks, by number."""

    def __init__(self, root: Path, place: str, told: Told, seed: str):
        self.files: dict[int, tuple[str, int]] = {}
        self._root = root
        self._place = place
        self._told = told
        self._random = random.Random(seed)
        self._folders = (f"{place}/a", f"{place}/b")

    def run(self) -> None:
        """Until told to end."""
        try:
            for folder in self._folders:
                (self._root / folder).mkdir(parents=True, exist_ok=True)
            self._sync(self._place, *self._folders)
            while not self._told.ending.is_set():
                self._step()
        except OSError as error:
            self._told.error(str(error))

    def _step(self) -> None:
        draw = self._random
        if len(self.files) < 2 or (len(self.files) < FILES and draw.random() < 0.3):
            self._create()
            return
        file = draw.choice(list(self.files))
        kinds = (self._write, self._append, self._replace, self._rename, self._delete)
        draw.choices(kinds, (8, 4, 3, 2, 2))[0](file)

    def _create(self) -> None:
        file, count = self._told.file(), self._random.randint(1, 8)
        name = f"{self._random.choice(self._folders)}/{file}.0"
        with self._op("create", file, name, 0, count) as number:
            self._put(name, file, 0, count, number, os.O_CREAT | os.O_EXCL)
            self._sync(name.rpartition("/")[0])
        self.files[file] = name, count

    def _write(self, file: int) -> None:
        size = self.files[file][1]
        first = self._random.randrange(size)
        self._write_at(file, first, self._random.randint(1, size - first))

    def _append(self, file: int) -> None:
        size = self.files[file][1]
        if size < MOST:
            self._write_at(file, size, self._random.randint(1, MOST - size))

    def _write_at(self, file: int, first: int, count: int) -> None:
        name, size = self.files[file]
        synced = self._random.random() >= _LAZY
        with self._op("write", file, name, first, count, synced) as number:
            self._put(name, file, first, count, number, 0, synced=synced)
        self.files[file] = name, max(size, first + count)

    def _replace(self, file: int) -> None:
        name, count = self.files[file][0], self._random.randint(1, MOST)
        folder = name.rpartition("/")[0]
        aside = f"{folder}/{file}{blocks.TEMPORARY}"
        with self._op("replace", file, name, 0, count) as number:
            self._put(aside, file, 0, count, number, os.O_CREAT | os.O_TRUNC)
            (self._root / aside).rename(self._root / name)
            self._sync(folder)
        self.files[file] = name, count

    def _rename(self, file: int) -> None:
        name, count = self.files[file]
        serial = int(name.rpartition(".")[2]) + 1
        new = f"{self._random.choice(self._folders)}/{file}.{serial}"
        with self._op("rename", file, new):
            (self._root / name).rename(self._root / new)
            self._sync(new)
            self._sync(*self._folders)
        self.files[file] = new, count

    def _delete(self, file: int) -> None:
        name, _ = self.files.pop(file)
        with self._op("delete", file, name):
            (self._root / name).unlink()
            self._sync(name.rpartition("/")[0])

    @contextmanager
    def _op(
        self, kind: str, file: int, name: str, first: int = 0, count: int = 0, synced: bool = True
    ) -> Iterator[int]:
        number = self._told.begin(kind, file, name, first, count, synced)
        yield number
        self._told.done(number)

    def _put(
        self,
        name: str,
        file: int,
        first: int,
        count: int,
        number: int,
        flags: int,
        *,
        synced: bool = True,
    ) -> None:
        """Write blocks, in one call or in several."""
        descriptor = os.open(self._root / name, os.O_WRONLY | flags, 0o644)
        try:
            at, end = first, first + count
            while at < end:
                stop = self._random.randint(at + 1, end) if self._random.random() < 0.5 else end
                data = blocks.blocks(file, range(at, stop), number)
                if os.pwrite(descriptor, data, at * blocks.SIZE) != len(data):
                    raise OSError("a short write")
                at = stop
            if synced:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _sync(self, *names: str) -> None:
        for name in names:
            descriptor = os.open(self._root / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def main() -> int:
    """The process."""
    root, seed = Path(sys.argv[1]), sys.argv[2]
    found = json.loads(sys.stdin.readline())
    told = Told(found["first"], found["first_file"])
    hands = [Hand(root, f"d{at}", told, f"{seed}/{at}") for at in range(THREADS)]
    for name, size in found["files"]:
        hands[int(name.partition("/")[0][1:])].files[blocks.file_of(name)] = name, size
    threads = [threading.Thread(target=hand.run, daemon=True) for hand in hands]
    for thread in threads:
        thread.start()
    threading.Thread(target=_until_end, args=(told,), daemon=True).start()
    for thread in threads:
        thread.join()
    return FAILED if told.failed else 0


def _until_end(told: Told) -> None:
    while os.read(0, 4096):
        pass
    told.ending.set()


if __name__ == "__main__":
    sys.exit(main())
