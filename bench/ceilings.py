"""What the machine can do at most: each ceiling is a plain process that does nothing else.

``python -m bench.ceilings read|hash|hash-each|frames IMAGE [--workers N]`` prints one line of
JSON: seconds without start-up, and what it counted. Imports are kept to what a ceiling needs,
because its start-up is part of what is compared.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator

BLOCK = 4096
BATCH = 4 << 20
FRAME = 64 * BLOCK


def extents(fd: int) -> Iterator[tuple[int, int]]:
    """Ranges of a file that hold data, cut into batches: offset, length."""
    at, size = 0, os.fstat(fd).st_size
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        for offset in range(start, at, BATCH):
            yield offset, min(BATCH, at - offset)


def read_only(path: str, _workers: int) -> dict[str, float]:
    """Read all data into one buffer."""
    fd, buffer, total = os.open(path, os.O_RDONLY), bytearray(BATCH), 0
    for offset, length in extents(fd):
        total += os.preadv(fd, [memoryview(buffer)[:length]], offset)
    return {"bytes": total}


def hash_all(path: str, _workers: int) -> dict[str, float]:
    """Read and hash all data in this process."""
    return {"bytes": _hash_share(path, 0, 1)}


def hash_each(path: str, workers: int) -> dict[str, float]:
    """One process for each worker; batches are dealt out in turn."""
    import blake3  # noqa: F401 - loaded once, before the processes part

    children = []
    for which in range(1, workers):
        pid = os.fork()
        if not pid:
            _hash_share(path, which, workers)
            os._exit(0)
        children.append(pid)
    total = _hash_share(path, 0, workers)
    for pid in children:
        if os.waitpid(pid, 0)[1]:
            raise SystemExit("a hashing process failed")
    return {"bytes_of_first": total}


def _hash_share(path: str, which: int, of: int) -> int:
    from blake3 import blake3

    fd, buffer, total = os.open(path, os.O_RDONLY), bytearray(BATCH), 0
    view = memoryview(buffer)
    for number, (offset, length) in enumerate(extents(fd)):
        if number % of == which:
            got = os.preadv(fd, [view[:length]], offset)
            for at in range(0, got, BLOCK):
                blake3(view[at : at + BLOCK]).digest()
            total += got
    return total


def frames(path: str, workers: int) -> dict[str, float]:
    """zstd level 1 over frames of 256 KiB of what is not zero, on ``workers`` threads."""
    import threading
    from queue import SimpleQueue

    import zstandard

    todo: SimpleQueue[bytes | None] = SimpleQueue()
    places = threading.Semaphore(4 * workers)
    sizes: list[int] = []

    def compress() -> None:
        compressor = zstandard.ZstdCompressor(level=1)  # one for each thread: not shareable
        while (frame := todo.get()) is not None:
            places.release()
            sizes.append(min(len(frame), len(compressor.compress(frame))))

    threads = [threading.Thread(target=compress) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for frame in _nonzero_frames(path):
        places.acquire()
        todo.put(frame)
    for _ in threads:
        todo.put(None)
    for thread in threads:
        thread.join()
    return {"stored": sum(sizes), "frames": len(sizes)}


def _nonzero_frames(path: str) -> Iterator[bytes]:
    import numpy as np

    fd, held = os.open(path, os.O_RDONLY), b""
    for offset, length in extents(fd):
        data = os.pread(fd, length, offset)
        data += bytes(-len(data) % BLOCK)
        blocks = np.frombuffer(data, np.uint64).reshape(-1, BLOCK // 8)
        held += blocks[blocks.any(axis=1)].tobytes()
        whole = len(held) // FRAME * FRAME
        for at in range(0, whole, FRAME):
            yield held[at : at + FRAME]
        held = held[whole:]
    if held:
        yield held


KINDS: dict[str, Callable[[str, int], dict[str, float]]] = {
    "read": read_only,
    "hash": hash_all,
    "hash-each": hash_each,
    "frames": frames,
}


def main(argv: list[str]) -> None:
    """Run one ceiling in this process."""
    kind, path = argv[0], argv[1]
    workers = int(argv[argv.index("--workers") + 1]) if "--workers" in argv else 1
    started = time.perf_counter()
    counted = KINDS[kind](path, workers)
    print(json.dumps({"seconds": time.perf_counter() - started, **counted}))


if __name__ == "__main__":
    main(sys.argv[1:])
