"""A helper process that examines batches: ``python -m stages.capture.worker``, or a copy of a
process that has imported this (``stages.system_workers.fork_ahead``).

It is told everything over its standard input, the digest keys included: never on a command line,
where other users could read them. Slots are memory shared with the parent, disks are descriptors
inherited from it. It ends when its input does.

The conversation, little-endian: one ``HELLO`` followed by one ``DISK`` per disk; then a ``REPLY``
for every ``REQUEST``, in order.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from stages.capture.examine import READ, Readable, ReadFailed, examine
from stages.capture.slots import Layout, Slot
from stages.digests import DigestKeys
from stages.system_workers import InheritedFile, Mailbox, SharedMemory, fork_ahead

# block key, chunk key, bytes of a batch, slots, descriptor of the memory, disks
HELLO = struct.Struct("<32s32sIIii")
DISK = struct.Struct("<i")  # descriptor
REQUEST = struct.Struct("<IIQQ")  # slot, disk, offset, length
REPLY = struct.Struct("<IIqQ")  # slot, changed chunks, errno or -1, bytes read or failing offset

MODULE = "stages.capture.worker"
READ_WELL = -1


@dataclass(frozen=True, slots=True)
class Request:
    """Examine ``length`` bytes from ``offset`` of disk number ``disk`` in slot ``slot``."""

    slot: int
    disk: int
    offset: int
    length: int

    def pack(self) -> bytes:
        """As sent."""
        return REQUEST.pack(self.slot, self.disk, self.offset, self.length)


def hello(keys: DigestKeys, layout: Layout, memory: int, disks: Sequence[int]) -> bytes:
    """The first message: ``memory`` and ``disks`` are descriptors."""
    head = HELLO.pack(keys.block, keys.chunk, layout.batch, layout.count, memory, len(disks))
    return head + b"".join(DISK.pack(fd) for fd in disks)


def answer(
    request: Request,
    disks: Sequence[Readable],
    slots: Sequence[Slot],
    scratch: memoryview,
    keys: DigestKeys,
) -> bytes:
    """Carry out one request."""
    disk, slot = disks[request.disk], slots[request.slot]
    try:
        outcome = examine(disk, request.offset, request.length, slot, scratch, keys)
    except ReadFailed as failed:
        return REPLY.pack(request.slot, 0, failed.code, failed.offset)
    return REPLY.pack(request.slot, outcome.changed, READ_WELL, outcome.read)


def serve(mail: Mailbox) -> None:
    """Until the input ends."""
    head = mail.read(HELLO.size)
    if len(head) < HELLO.size:
        return
    block_key, chunk_key, batch, count, memory, disks = HELLO.unpack(head)
    keys = DigestKeys(block_key, chunk_key)
    layout = Layout(batch, count)
    slots = layout.carve(SharedMemory(layout.size, memory).view)
    scratch = memoryview(bytearray(READ))
    files = [InheritedFile(DISK.unpack(mail.read(DISK.size))[0]) for _ in range(disks)]
    while len(message := mail.read(REQUEST.size)) == REQUEST.size:
        request = Request(*REQUEST.unpack(message))
        if not mail.write(answer(request, files, slots, scratch, keys)):
            return


def start_ahead(count: int) -> None:
    """Have some ready before they are wanted, as far as that can be (``fork_ahead``)."""
    fork_ahead(count, MODULE, serve)


if __name__ == "__main__":
    serve(Mailbox())
