"""Logs made of nothing but commits, quickly, with any header one likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from stages.crypto.sign import Signer
from stages.ports import Buffer
from stages.store.memory import MemoryStore
from stages.store.port import ObjectInfo
from stages.vault import layout, rollup
from stages.vault.charter import Charter, Member
from stages.vault.commit import Header, encode_body
from stages.vault.container import Kind, build, parse
from stages.vault.log import Log
from stages.vault.sealing import EpochKeys, seal_body
from stages.vault.terms import KeyRing, Term, term_object
from tests.vault.support import START, People, SeededEntropy

PEOPLE = People.of("log")
SCOPE = PEOPLE.scope()
KEYS = EpochKeys(1, None, bytes(range(32)))
STRANGER = Signer(bytes(32))
OTHER = Signer(bytes(range(32)))
BOTH = PEOPLE.charter.with_writer(Member(OTHER.public, "other"))  # PEOPLE's daemon and OTHER


class CountingStore(MemoryStore):
    """Counts what is asked of it; ``tail`` lets it claim commits that it does not hold."""

    def __init__(self, tail: int = 0) -> None:
        super().__init__()
        self.tail = tail
        self.gets: list[str] = []
        self.infos = 0

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        self.gets.append(key)
        return await super().get(key, offset, length)

    async def info(self, key: str) -> ObjectInfo | None:
        self.infos += 1
        prefix, _, number = key.rpartition("/")
        if prefix.endswith("/log") and int(number) <= self.tail:
            return ObjectInfo(key, 1000, 0.0)
        return await super().info(key)

    async def replace(self, key: str, *parts: Buffer) -> None:
        """What no writer can do: change an object."""
        await self.delete(key)
        await self.put(key, parts)


def header(seq: int, previous: bytes, **change: Any) -> Header:
    """A header without content."""
    fields: dict[str, Any] = {
        "seq": seq,
        "epoch": 1,
        "previous": previous,
        "objects": (),
        "first_frame": 0,
        "frames": 0,
        "consistent": True,
        "last_consistent": seq - 1,
        "grade": "quiet",
        "stamp": START + seq,
        "wall": START,
        "checkpoint": 0,
        "machine": 1,
    }
    return Header(**(fields | change))


def commit(found: Header, signer: Signer = PEOPLE.daemon, *, tail: bytes = b"") -> bytes:
    """The object of a commit with an empty index."""
    plain = encode_body(())
    body = seal_body(SCOPE, Kind.COMMIT, KEYS, found.seq, plain, SeededEntropy(str(found.seq)))
    return b"".join(build(Kind.COMMIT, found.fields(SCOPE), signer, body, (tail,)))


def link_of(data: bytes) -> bytes:
    return parse(data, "the key", Kind.COMMIT).digest


@dataclass
class Chain:
    """Commits from 1 on, each following the one before."""

    objects: list[bytes] = field(default_factory=list)

    @property
    def link(self) -> bytes:
        return link_of(self.objects[-1]) if self.objects else bytes(32)

    def add(self, count: int = 1, **change: Any) -> Chain:
        for _ in range(count):
            found = header(len(self.objects) + 1, self.link, **change)
            self.objects.append(commit(found))
        return self

    async def store(self, *, rolled: bool = False) -> CountingStore:
        """A store with these commits, the term of epoch 1 and perhaps their rollups."""
        store = CountingStore()
        await put_term(store, 1)
        for seq, data in enumerate(self.objects, 1):
            await store.put(key_of(seq), [data])
        if rolled:
            for last in range(rollup.SPAN, len(self.objects) + 1, rollup.SPAN):
                heads = self.objects[last - rollup.SPAN : last]
                await store.put(layout.rollup(SCOPE.group, last), rollup.encode(heads))
        return store


@cache
def seventy() -> Chain:
    """Made once: do not ``add`` to it."""
    return Chain().add(70)


def key_of(seq: int) -> str:
    return layout.commit(SCOPE.group, seq)


async def put_term(store: MemoryStore, epoch: int, signer: Signer = PEOPLE.daemon) -> None:
    term = Term(epoch, signer.public, START)
    await store.put(layout.term(SCOPE.group, epoch), term_object(SCOPE, term, signer))


def log_of(store: MemoryStore, charter: Charter = PEOPLE.charter) -> Log:
    return Log(store, SCOPE, KeyRing(store, SCOPE, charter, PEOPLE.operator.box))


def stamped(stamps: Sequence[int]) -> Chain:
    """A chain with these stamps."""
    chain = Chain()
    for stamp in stamps:
        chain.add(stamp=stamp)
    return chain
