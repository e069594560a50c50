"""What the tests of the vault share: seeded randomness, a clock that is set, people with keys."""

from __future__ import annotations

from dataclasses import dataclass

import trio
from blake3 import blake3

from stages.crypto.sign import Signer
from stages.model import BLOCK
from stages.ports import Machine
from stages.store.port import ObjectStore
from stages.vault import layout
from stages.vault.charter import Charter, Member, encode
from stages.vault.keyfile import PrivateKey, generate
from stages.vault.sealing import Scope
from tests.ports.watched import InlineOffload, WatchedFiles, unsynced

START = 1_700_000_000_000_000  # µs
SECOND = 1_000_000


class SeededEntropy:
    """A stream of bytes from a seed."""

    def __init__(self, seed: str):
        self._stream = blake3(seed.encode())
        self._at = 0

    def token(self, size: int) -> bytes:
        self._at += size
        return self._stream.digest(size, seek=self._at - size)


class SetClock:
    """Stands still until it is set."""

    def __init__(self, wall: int = START):
        self.wall = wall

    def monotonic(self) -> float:
        return self.wall / SECOND

    def wall_us(self) -> int:
        return self.wall

    async def sleep(self, seconds: float) -> None:
        self.wall += round(seconds * SECOND)
        await trio.lowlevel.checkpoint()


def seeded_machine(seed: str) -> Machine:
    """Ports without threads, waits or fsync."""
    return Machine(SetClock(), InlineOffload(), SeededEntropy(seed), WatchedFiles(unsynced))


@dataclass(frozen=True)
class People:
    """Everyone who holds a key of a vault."""

    operator: PrivateKey
    second: PrivateKey
    daemon: Signer
    charter: Charter

    @staticmethod
    def of(seed: str, cipher: str = "aegis256") -> People:
        """An operator, a second recipient, one admitted daemon; generation 1."""
        entropy = SeededEntropy(f"people {seed}")
        operator, second = generate("operator", entropy), generate("second", entropy)
        daemon = Signer(entropy.token(32))
        charter = Charter(
            vault=entropy.token(16),
            operator=operator.signer.public,
            generation=1,
            cipher=cipher,
            recipients=tuple(Member(key.box.public, key.name) for key in (operator, second)),
            writers=(Member(daemon.public, "daemon"),),
        )
        pin = charter.pin()
        return People(operator.pinned(pin), second.pinned(pin), daemon, charter)

    def scope(self, group: bytes = bytes(range(16))) -> Scope:
        """A group of this vault."""
        return Scope(self.charter.vault, group, self.charter.cipher)


def text_block(word: str) -> bytes:
    """A block that compresses well."""
    return (word.encode() + b"\n") * (BLOCK // (len(word) + 1)) + bytes(BLOCK % (len(word) + 1))


def noise_block(seed: str) -> bytes:
    """A block that does not compress."""
    return blake3(seed.encode()).digest(BLOCK)


async def put_charter(store: ObjectStore, charter: Charter, operator: Signer) -> None:
    """Store a charter in its place."""
    first = charter.generation == 1
    key = layout.VAULT if first else layout.charter(charter.generation)
    await store.put(key, [encode(charter, operator)])
