from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import ProtocolError
from stages.nbd import wire
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.device import BlockSizes, DeviceFlags, DeviceInfo
from stages.nbd.transmission import Batch, RequestParser, Rules
from tests.nbd.memory import info
from tests.nbd.spoken import request, write

POOLED = 64 << 10
WRITABLE = Rules(info(size=1 << 20), structured=True, allocation=True)


class Taken(NamedTuple):
    command: int
    flags: int
    cookie: int
    offset: int
    length: int
    payload: bytes


class Feeder:
    """Feeds a parser as a session does, with buffers that are counted."""

    def __init__(self, rules: Rules = WRITABLE):
        self.parser = RequestParser(rules)
        self.made: list[int] = []
        self.recycled = 0
        self.keep: Callable[[Batch], None] = self.copy
        self.copied: list[Taken] = []
        self.refused: list[tuple[int, int]] = []

    def _recycle(self, _buffer: ReceiveBuffer) -> None:
        self.recycled += 1

    def feed(self, data: bytes, *, most: int = 1000, room: int = 1 << 30) -> None:
        while data:
            wanted = self.parser.wants(POOLED)
            if wanted:
                self.made.append(wanted)
                self.parser.attach(ReceiveBuffer(wanted, self._recycle))
            space = self.parser.room()
            count = min(len(space), len(data))
            assert count
            space[:count] = data[:count]
            data = data[count:]
            self.parser.filled(count)
            while (batch := self.parser.take(most, room)) is not None:
                self.keep(batch)

    def copy(self, batch: Batch) -> None:
        for r in batch.requests:
            assert batch.buffer.view[r.at : r.at + len(r.payload)] == r.payload
            payload = bytes(r.payload)
            self.copied.append(Taken(r.command, r.flags, r.cookie, r.offset, r.length, payload))
        self.refused += [(refusal.cookie, refusal.error) for refusal in batch.refusals]
        batch.buffer.release()


def parse(stream: bytes, rules: Rules = WRITABLE) -> Feeder:
    feeder = Feeder(rules)
    feeder.feed(stream)
    return feeder


def refusal(said: bytes, rules: Rules = WRITABLE) -> int:
    """The error that ``said`` is answered with, 0 if it is executed; it must not end there."""
    feeder = parse(said + request(wire.CMD_FLUSH, cookie=99), rules)
    assert feeder.copied[-1].cookie == 99
    assert len(feeder.copied) + len(feeder.refused) == 2
    return feeder.refused[0][1] if feeder.refused else 0


def test_all_requests_of_a_buffer_come_together() -> None:
    feeder = Feeder()
    feeder.parser.attach(ReceiveBuffer(POOLED, lambda _: None))
    said = b"".join(write(i * 4096, bytes([i]) * 4096, cookie=i) for i in range(10))
    feeder.parser.room()[: len(said)] = said
    feeder.parser.filled(len(said))
    batch = feeder.parser.take(100, 1 << 30)
    assert batch is not None
    assert [r.cookie for r in batch.requests] == list(range(10))
    assert [bytes(r.payload) for r in batch.requests] == [bytes([i]) * 4096 for i in range(10)]
    assert batch.held_bytes == 10 * 4096
    assert batch.read_bytes == 0
    assert feeder.parser.take(100, 1 << 30) is None


def test_counts_and_bytes_are_bounded() -> None:
    feeder = Feeder()
    feeder.parser.attach(ReceiveBuffer(POOLED, lambda _: None))
    said = b"".join(request(wire.CMD_READ, 0, 1000, cookie=i) for i in range(10))
    feeder.parser.room()[: len(said)] = said
    feeder.parser.filled(len(said))
    taken = []
    for most, room in ((3, 1 << 30), (9, 2500), (9, 999), (9, 1000), (99, 1 << 30)):
        batch = feeder.parser.take(most, room)
        taken.append(len(batch.requests) if batch else 0)
        assert feeder.parser.blocked == (room in (2500, 999, 1000))
    assert taken == [3, 2, 0, 1, 4]


def test_a_large_payload_is_received_in_one_buffer_of_its_size() -> None:
    data = bytes(range(256)) * 4096
    feeder = Feeder()
    said = write(0, data) + request(wire.CMD_FLUSH)
    for at in range(0, len(said), 10_000):
        feeder.feed(said[at : at + 10_000])
    assert feeder.copied[0].payload == data
    assert feeder.copied[1].command == wire.CMD_FLUSH
    assert feeder.made == [POOLED, len(data) + wire.REQUEST.size, POOLED]
    assert feeder.recycled == 2


def test_no_byte_moves_more_than_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = 0
    move = RequestParser._move

    def counting(parser: RequestParser, source: memoryview, target: memoryview) -> None:
        nonlocal moved
        moved += parser._end - parser._start
        move(parser, source, target)

    monkeypatch.setattr(RequestParser, "_move", counting)
    said = b"".join(write(0, bytes(size)) for size in (60_000, 300_000, 9, 60_000, 1 << 20) * 3)
    feeder = Feeder()
    for at in range(0, len(said), 777):
        feeder.feed(said[at : at + 777])
    assert len(feeder.copied) == 15
    assert moved < 2 * len(said)


def test_a_buffer_in_use_is_not_written_over() -> None:
    feeder = Feeder()
    kept: list[Batch] = []
    feeder.keep = kept.append
    blocks = [bytes([i]) * 4096 for i in range(100)]
    for i, block in enumerate(blocks):
        feeder.feed(write(i * 4096, block))
    payloads = [bytes(r.payload) for batch in kept for r in batch.requests]
    assert payloads == blocks
    for batch in kept:
        batch.buffer.release()
    feeder.parser.detach()
    assert feeder.recycled == len(feeder.made)


def test_an_idle_buffer_is_used_from_its_front() -> None:
    feeder = Feeder()
    for i in range(200):
        feeder.feed(write(0, bytes([i]) * 4096))
    assert feeder.made == [POOLED]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (request(wire.CMD_READ, 0, 1 << 20), 0),
        (request(wire.CMD_READ, 1 << 20, 1), wire.EINVAL),
        (request(wire.CMD_READ, (1 << 64) - 1, 1), wire.EINVAL),
        (request(wire.CMD_READ, 0, 0), wire.EINVAL),
        (request(wire.CMD_READ, 0, 1, flags=wire.FLAG_DF), 0),
        (request(wire.CMD_READ, 0, 1, flags=wire.FLAG_FUA), 0),
        (request(wire.CMD_READ, 0, 1, flags=wire.FLAG_NO_HOLE), wire.EINVAL),
        (write((1 << 20) - 4, b"12345"), wire.ENOSPC),
        (write(0, b"x", flags=wire.FLAG_DF), wire.EINVAL),
        (write(0, b"x" * 100, flags=1 << 15), wire.EINVAL),
        (write(0, b""), wire.EINVAL),
        (write(0, b"x", flags=wire.FLAG_FUA), 0),
        (request(wire.CMD_TRIM, 0, 1 << 20), 0),
        (request(wire.CMD_TRIM, 1, 1 << 20), wire.EINVAL),
        (request(wire.CMD_WRITE_ZEROES, 1, 1 << 20), wire.ENOSPC),
        (request(wire.CMD_WRITE_ZEROES, 0, 1 << 20, flags=wire.FLAG_NO_HOLE), 0),
        (request(wire.CMD_WRITE_ZEROES, 0, 1 << 20, flags=wire.FLAG_FAST_ZERO), wire.ENOTSUP),
        (request(wire.CMD_BLOCK_STATUS, 0, 1 << 20, flags=wire.FLAG_REQ_ONE), 0),
        (request(wire.CMD_FLUSH, 1, 0), wire.EINVAL),
        (request(wire.CMD_CACHE, 0, 512), wire.EINVAL),
        (request(12345, 0, 512), wire.EINVAL),
    ],
)
def test_what_is_refused_and_with_what(said: bytes, error: int) -> None:
    assert refusal(said) == error


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (write(0, b"x" * 4096), wire.EPERM),
        (request(wire.CMD_TRIM, 0, 4096), wire.EPERM),
        (request(wire.CMD_WRITE_ZEROES, 0, 4096), wire.EPERM),
        (request(wire.CMD_READ, 0, 4096), 0),
        (request(wire.CMD_BLOCK_STATUS, 0, 4096), wire.EINVAL),
        (request(wire.CMD_READ, 0, 1, flags=wire.FLAG_DF), wire.EINVAL),
    ],
)
def test_a_read_only_export_without_extensions(said: bytes, error: int) -> None:
    rules = Rules(info(size=1 << 20, read_only=True), structured=False, allocation=False)
    assert refusal(said, rules) == error


def test_a_device_that_can_do_nothing_more() -> None:
    plain = DeviceInfo("d", 4096, read_only=False, flags=DeviceFlags(flush=True))
    rules = Rules(plain, structured=True, allocation=False)
    for command in (wire.CMD_TRIM, wire.CMD_WRITE_ZEROES, wire.CMD_BLOCK_STATUS):
        assert refusal(request(command, 0, 4096), rules) == wire.EINVAL
    assert refusal(write(0, b"x", flags=wire.FLAG_FUA), rules) == wire.EINVAL
    assert refusal(write(0, b"x"), rules) == 0


def test_block_sizes_are_kept_to() -> None:
    about = DeviceInfo("d", 8192, flags=DeviceFlags(flush=True), blocks=BlockSizes(512, 4096, 4096))
    rules = Rules(about, structured=True, allocation=False)
    assert refusal(request(wire.CMD_READ, 512, 512), rules) == 0
    assert refusal(request(wire.CMD_READ, 1, 512), rules) == wire.EINVAL
    assert refusal(request(wire.CMD_READ, 0, 100), rules) == wire.EINVAL
    assert refusal(request(wire.CMD_READ, 0, 8192), rules) == wire.EINVAL


def test_a_refused_payload_is_skipped_without_a_buffer_for_it() -> None:
    feeder = Feeder()
    payload = b"\x25\x60\x95\x13" * (1 << 18)  # looks like requests
    for _ in range(3):
        said = write(1 << 20, payload, cookie=5) + request(wire.CMD_FLUSH, cookie=6)
        for at in range(0, len(said), 50_000):
            feeder.feed(said[at : at + 50_000])
    assert feeder.refused == [(5, wire.ENOSPC)] * 3
    assert [taken.cookie for taken in feeder.copied] == [6] * 3
    assert set(feeder.made) == {POOLED}


@pytest.mark.parametrize(
    "bad",
    [
        b"\0" * 28,
        request(wire.CMD_WRITE, 0, (32 << 20) + 1),
        request(wire.CMD_WRITE, 0, (1 << 32) - 1),
        wire.REQUEST.pack(wire.SIMPLE_REPLY_MAGIC, 0, 0, 0, 0, 1),
    ],
)
def test_nonsense_ends_it_after_what_came_before(bad: bytes) -> None:
    feeder = Feeder()
    with pytest.raises(ProtocolError):
        feeder.feed(write(0, b"good") + bad + write(0, b"never"))
    assert [taken.payload for taken in feeder.copied] == [b"good"]


def test_nothing_after_a_disconnect() -> None:
    feeder = parse(write(0, b"x") + request(wire.CMD_DISC) + b"anything at all" * 9)
    assert feeder.parser.disconnected
    assert len(feeder.copied) == 1


def test_inside_tells_whether_a_request_has_begun() -> None:
    feeder = Feeder()
    whole, refused = write(0, b"x" * 4096), write(1 << 20, b"x" * 4096)
    seen = []
    for data in (b"", whole[:100], whole[100:], refused[:100], refused[100:], whole[:5]):
        feeder.feed(data)
        seen.append(feeder.parser.inside)
    assert seen == [False, True, False, True, False, True]


REQUESTS = st.one_of(
    st.builds(
        request,
        st.integers(0, 9).filter(lambda command: command not in (wire.CMD_WRITE, wire.CMD_DISC)),
        st.integers(0, 1 << 21),
        st.integers(0, 1 << 21),
        cookie=st.integers(0, (1 << 64) - 1),
        flags=st.integers(0, 31),
    ),
    st.builds(
        lambda offset, length, fill: write(offset, bytes([fill]) * length, cookie=fill),
        st.integers(0, 1 << 20),
        st.one_of(st.integers(0, 9000), st.integers(60_000, 140_000)),
        st.integers(0, 255),
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(REQUESTS, max_size=12), st.lists(st.integers(1, 30_000), max_size=60))
def test_any_split_gives_the_same_requests(said: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(said)
    whole = parse(stream)
    feeder = Feeder()
    rest = stream
    for cut in cuts:
        feeder.feed(rest[:cut])
        rest = rest[cut:]
    feeder.feed(rest)
    assert feeder.copied == whole.copied
    assert feeder.refused == whole.refused
    assert len(feeder.copied) + len(feeder.refused) == len(said)


@settings(max_examples=200)
@given(st.lists(st.one_of(st.binary(max_size=80), REQUESTS), max_size=10))
def test_garbage_gives_requests_or_a_protocol_error(said: list[bytes]) -> None:
    feeder = Feeder()
    try:
        for data in said:
            feeder.feed(data)
    except ProtocolError:
        pass
    for taken in feeder.copied:
        assert WRITABLE.refuse(taken.command, taken.flags, taken.offset, taken.length) is None
