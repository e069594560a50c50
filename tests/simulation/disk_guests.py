"""What guests ask of disks that come and go, and what they hear."""

from __future__ import annotations

import random
from typing import Any

import trio
import trio.testing

from stages.model import BLOCK
from stages.nbd import wire
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.transmission import Request

HOT = 20  # blocks that guests like to write to


class Replies:
    """What a client hears."""

    def __init__(self) -> None:
        self.done_count = self.failed = 0
        self.moved = trio.Event()

    def done(self, request: Request) -> None:
        self.done_all([request])

    def done_all(self, requests: Any) -> None:
        self.done_count += len(requests)
        self.moved.set()

    def done_now(self, requests: Any) -> None:
        self.done_all(requests)

    def done_swiftly(self, cookies: Any) -> None:
        self.done_all(cookies)

    def place(self, length: int) -> memoryview | None:
        return memoryview(bytearray(length))

    def keep(self, cookie: int, offset: int, length: int) -> None:
        self.done_all([cookie])

    def data(self, request: Request, parts: Any) -> None:
        self.done_all([request])

    def extents(self, request: Request, extents: Any) -> None:
        self.done_all([request])

    def fail(self, request: Request, error: int, reason: str) -> None:
        self.failed += 1
        self.done_all([request])


def draw_request(dice: random.Random, buffer: ReceiveBuffer, size: int) -> Request:
    """What a guest asks: near the start, or near the end, where the disk may grow meanwhile."""
    command = dice.choice([wire.CMD_WRITE] * 6 + [wire.CMD_FLUSH, wire.CMD_TRIM])
    if command == wire.CMD_FLUSH:
        return Request(command, 0, 1, 0, 0, memoryview(b""), 0)
    last = max(0, size // BLOCK - 4)
    offset = min(dice.choice([0, last]) + dice.randrange(HOT), size // BLOCK) * BLOCK
    length = dice.randrange(1, 4) * BLOCK
    if dice.random() < 0.3:
        offset, length = offset + dice.choice([0, 100, 700]), dice.choice([1, 512, 5000])
    offset = min(offset, size - 1)
    length = min(length, size - offset)
    if command != wire.CMD_WRITE:
        return Request(command, 0, 1, offset, length, memoryview(b""), 0)
    buffer.view[28 : 28 + length] = dice.randbytes(length)
    payload = buffer.view[28 : 28 + length]
    return Request(command, 0, 1, offset, length, payload, 28)
