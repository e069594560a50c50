"""The copy one would write first: asyncio, aiofiles, a thread for each frame, one at a time.

``python -m bench.naive copy|back SOURCE TARGET KEYFILE``. Frames of 256 KiB, zstd level 1, the same
cipher as Backstay's, no deduplication; zero frames are left out. It shows what a pipeline that is
not one costs.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from pathlib import Path

import aiofiles  # type: ignore[import-untyped]
import zstandard

from stages.crypto.aead import CIPHERS, KEY_SIZE
from stages.system import SystemEntropy

FRAME = 256 << 10
_LENGTH = struct.Struct("<II")  # plain and sealed; a sealed length of 0 stands for zeros
_CIPHER = CIPHERS["aegis256"]
_ENTROPY = SystemEntropy()


async def copy(source: Path, target: Path, key: bytes) -> None:
    """Compress and seal a file, frame by frame."""
    zeros = bytes(FRAME)
    async with aiofiles.open(source, "rb") as reader, aiofiles.open(target, "wb") as writer:
        while data := await reader.read(FRAME):
            sealed = b""
            if data != zeros[: len(data)]:
                sealed = await asyncio.to_thread(_seal, data, key)
            await writer.write(_LENGTH.pack(len(data), len(sealed)) + sealed)
        await writer.flush()
        await asyncio.to_thread(os.fsync, writer.fileno())


async def back(source: Path, target: Path, key: bytes) -> None:
    """Undo ``copy``; zeros become holes."""
    size = 0
    async with aiofiles.open(source, "rb") as reader, aiofiles.open(target, "wb") as writer:
        while head := await reader.read(_LENGTH.size):
            plain, length = _LENGTH.unpack(head)
            if length:
                await writer.seek(size)
                await writer.write(await asyncio.to_thread(_open, await reader.read(length), key))
            size += plain
        await writer.truncate(size)


def _seal(data: bytes, key: bytes) -> bytes:
    return _CIPHER.seal(key, zstandard.ZstdCompressor(level=1).compress(data), b"", _ENTROPY)


def _open(sealed: bytes, key: bytes) -> bytes:
    packed = _CIPHER.open(key, sealed, b"")
    return zstandard.ZstdDecompressor().decompress(packed, max_output_size=FRAME)


def new_key(path: Path) -> None:
    """Write a fresh key."""
    path.write_bytes(_ENTROPY.token(KEY_SIZE))


def main(argv: list[str]) -> None:
    """Copy, or bring back."""
    kind, source, target, key = argv[0], Path(argv[1]), Path(argv[2]), Path(argv[3])
    work = {"copy": copy, "back": back}[kind]
    asyncio.run(work(source, target, key.read_bytes()))


if __name__ == "__main__":
    main(sys.argv[1:])
