"""What the vault holds, followed commit by commit with nothing but the store and the key."""

from __future__ import annotations

from dataclasses import dataclass, field

import zstandard

from stages.model import BLOCK, Runs
from stages.recover.opened import Group, open_vault
from stages.store.port import ObjectStore
from stages.vault import frame, layout
from stages.vault.commit import Header, Part, SegmentIndex
from stages.vault.keyfile import PrivateKey
from tests.whole.reading import open_group


@dataclass
class Image:
    """Disks by name as of commit ``seq``."""

    store: ObjectStore
    key: PrivateKey
    seq: int = 0
    disks: dict[str, bytearray] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    link: bytes = bytes(32)
    group: Group | None = None

    async def tail(self) -> int:
        """The newest commit; 0 if the vault has none yet, and perhaps no whole group."""
        keys = (
            ["/log/"] if self.group else [info.key for info in await self.store.page(layout.GROUPS)]
        )
        if not any("/log/" in key for key in keys):
            return 0
        if self.group is None:
            self.group = await open_group(self.store, self.key)
        else:  # by its id: a failover's branch is the same machine
            vault = await open_vault(self.store, self.key)
            self.group = await vault.group(self.group.scope.group)
        return self.group.tail

    async def advance(self) -> tuple[Header, bytes]:
        """Take the next commit; its header, and its object as stored."""
        assert self.group is not None
        group, seq = self.group, self.seq + 1
        commit = await group.log.signed(seq)
        header = commit.header
        assert header.previous == self.link, f"#{seq} does not follow #{self.seq}"
        whole = await self.store.get(layout.commit(group.scope.group, seq))
        keys = await group.ring.keys(header.epoch)
        assert keys.data is not None
        names = await self._disks(header)
        number = header.first_frame
        for segment in commit.index(group.scope, keys):
            source = whole[commit.container.tail_at :]
            if segment.source >= 0:
                ref = header.objects[segment.source]
                source = await self.store.get(
                    layout.data(group.scope.group, header.epoch, ref.number)
                )
            content = self._content(segment, source, keys.data, header.epoch, number)
            self._apply(segment.parts, content, names)
            number += len(segment.spans)
        self.seq, self.link = seq, commit.link
        return header, whole

    def content(self, name: str) -> bytes:
        """A disk, without the padding of its last block."""
        return bytes(memoryview(self.disks[name])[: self.sizes[name]])

    def block(self, name: str, number: int) -> bytes:
        """One block of it, the same way."""
        stop = min((number + 1) * BLOCK, self.sizes[name])
        return bytes(memoryview(self.disks[name])[number * BLOCK : stop])

    async def _disks(self, header: Header) -> dict[int, str]:
        assert self.group is not None
        found = (await self.group.machine(header.machine)).disks
        for disk in found:
            self.disks.setdefault(disk.name, bytearray(disk.blocks * BLOCK))
            self.sizes[disk.name] = disk.size
        return {disk.number: disk.name for disk in found}

    def _content(
        self, segment: SegmentIndex, source: bytes, key: bytes, epoch: int, number: int
    ) -> bytes:
        assert self.group is not None
        expander = zstandard.ZstdDecompressor()
        found = []
        for at, (offset, length, _) in enumerate(segment.spans.tolist()):
            stored = source[offset : offset + length]
            head, packed = frame.unseal(
                self.group.scope, key, epoch, number + at, stored, f"#{self.seq + 1}"
            )
            found.append(frame.expand(head, packed, expander, f"#{self.seq + 1}"))
        return b"".join(found)

    def _apply(self, parts: tuple[Part, ...], content: bytes, names: dict[int, str]) -> None:
        at = 0
        for part in parts:
            disk = self.disks[names[part.disk]]
            assert not len(part.refs)
            for start, count in _pairs(part.data):
                size = count * BLOCK
                disk[start * BLOCK : start * BLOCK + size] = content[at : at + size]
                at += size
            for start, count in _pairs(part.zero):
                disk[start * BLOCK : (start + count) * BLOCK] = bytes(count * BLOCK)
        assert at == len(content)


def _pairs(runs: Runs) -> list[tuple[int, int]]:
    return list(zip(runs.start.tolist(), runs.count.tolist(), strict=True))
