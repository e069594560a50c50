"""What the machine can do at most: each ceiling is a plain process that does nothing else.

``python -m bench.ceilings KIND IMAGE [--workers N]``, KIND one of ``KINDS``, prints one line of
JSON: seconds without start-up, and what it counted. ``write`` writes in the folder that it is
started in. Imports are kept to what a ceiling needs,
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


def aead(path: str, workers: int) -> dict[str, float]:
    """AEGIS-256, as this program seals, over frames of 256 KiB, on ``workers`` threads."""
    from concurrent.futures import ThreadPoolExecutor
    from itertools import islice

    from stages.crypto.aead import CIPHERS, KEY_SIZE
    from stages.system import SystemEntropy

    cipher, key, entropy = CIPHERS["aegis256"], os.urandom(KEY_SIZE), SystemEntropy()
    frames, total = _nonzero_frames(path), 0

    def seal(frame: bytes) -> int:
        return len(cipher.seal(key, frame, b"", entropy))

    with ThreadPoolExecutor(workers) as pool:
        while some := list(islice(frames, 8 * workers)):
            total += sum(pool.map(seal, some))
    return {"bytes": total}


def write(path: str, _workers: int) -> dict[str, float]:
    """Read all data, write it to another file, one fsync at the end."""
    source, total = os.open(path, os.O_RDONLY), 0
    target = os.open("written", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for offset, length in extents(source):
            data = os.pread(source, length, offset)
            if os.pwrite(target, data, offset) != len(data):
                raise SystemExit("the disk is full")
            total += len(data)
        os.fsync(target)
    finally:
        os.unlink("written")
    return {"bytes": total}


def socket_copy(path: str, _workers: int) -> dict[str, float]:
    """All data through a Unix socket from another process, 256 KiB at a time."""
    import socket

    mine, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        mine.close()
        source = os.open(path, os.O_RDONLY)
        for offset, length in extents(source):
            for at in range(offset, offset + length, FRAME):
                theirs.sendall(os.pread(source, min(FRAME, offset + length - at), at))
        os._exit(0)
    theirs.close()
    buffer, total = bytearray(FRAME), 0
    while got := mine.recv_into(buffer):
        total += got
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("the sending process failed")
    return {"bytes": total}


KINDS: dict[str, Callable[[str, int], dict[str, float]]] = {
    "read": read_only,
    "hash": hash_all,
    "hash-each": hash_each,
    "frames": frames,
    "aead": aead,
    "write": write,
    "socket": socket_copy,
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
