"""Another reader of the format, written from FORMAT.md and sharing nothing with the program.

It takes a mapping of object names to bytes. It is as plain as it can be: no limits, no errors but
``assert``, everything in memory. That it reads the golden vaults shows that FORMAT.md is complete.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgpack
import zstandard
from blake3 import blake3
from nacl import bindings, pwhash
from nacl.signing import VerifyKey

BLOCK = 4096
GROUP, MACHINE, TERM, WRAPPED, COMMIT, MANIFEST = 1, 2, 3, 4, 5, 6
FLOOR, PACK = 8, 10
INLINE = 1 << 63
NONCE = {"aegis256": 32, "xchacha20poly1305": 24}
DECRYPT = {
    "aegis256": bindings.crypto_aead_aegis256_decrypt,
    "xchacha20poly1305": bindings.crypto_aead_xchacha20poly1305_ietf_decrypt,
}


def canonical(fields: Any) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")


def open_sealed(cipher: str, key: bytes, sealed: bytes, associated: bytes) -> bytes:
    size = NONCE[cipher]
    plain: bytes = DECRYPT[cipher](sealed[size:], associated, sealed[:size], key)
    return plain


def private_key(data: bytes, passphrase: str) -> tuple[bytes, bytes]:
    """Ed25519 seed and X25519 secret of a private key file."""
    fields = json.loads(data)
    assert (fields["backstay"], fields["version"]) == ("private key", 1)
    secret, kdf = bytes.fromhex(fields.pop("secret")), fields["kdf"]
    if kdf is not None:
        salt = bytes.fromhex(kdf["salt"])
        key = pwhash.argon2id.kdf(32, passphrase.encode(), salt, kdf["ops"], kdf["memory"])
        secret = open_sealed("xchacha20poly1305", key, secret, canonical(fields))
    return secret[:32], secret[32:]


@dataclass(frozen=True)
class Object:
    header: dict[str, Any]
    body: bytes
    tail: bytes
    link: bytes


def container(data: bytes, kind: int) -> Object:
    """Take a signed object apart; a rollup's entry has no tail."""
    magic, version, found, zero, header_size, body_size, tail_size, zeros = struct.unpack_from(
        "<4sBBHIIQQ", data
    )
    assert (magic, version, found, zero, zeros) == (b"BSTY", 1, kind, 0, 0)
    signature, head = data[32:96], data[96 : 96 + header_size]
    body, tail = data[96 + header_size :][:body_size], data[96 + header_size + body_size :]
    header = msgpack.unpackb(head)
    signed = b"backstay signed object 1\0" + data[:32] + head
    VerifyKey(header["writer"]).verify(signed, signature)
    assert blake3(body).digest() == header["body_digest"]
    assert len(tail) in (0, tail_size)
    assert not tail or blake3(tail).digest() == header["tail_digest"]
    return Object(header, body, tail, blake3(signed + signature).digest())


class Reader:
    """One group of one vault, opened with an X25519 secret."""

    def __init__(self, objects: Mapping[str, bytes], group: str, secret: bytes):
        self.objects, self.secret = objects, secret
        self.charter = self._charter()
        self.vault = bytes.fromhex(self.charter["vault"])
        self.cipher = self.charter["cipher"]
        self.group = bytes.fromhex(group)
        self.folder = f"groups/{group}"
        self.recipient = bindings.crypto_scalarmult_base(secret)
        self.writers = {bytes.fromhex(each["key"]) for each in self.charter["writers"]}
        self.keepers = {bytes.fromhex(each["signer"]) for each in self.charter.get("keepers", ())}
        self.keepers.add(bytes.fromhex(self.charter["operator"]))

    def _charter(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        names = [name for name in sorted(self.objects) if name.startswith("charters/")]
        for number, name in enumerate(["vault.json", *names], 1):
            outer = json.loads(self.objects[name])
            found = outer["charter"]
            assert (found["format"], found["generation"], found["block_size"]) == (1, number, BLOCK)
            signed = b"backstay charter 1\0" + canonical(found)
            VerifyKey(bytes.fromhex(found["operator"])).verify(
                signed, bytes.fromhex(outer["signature"])
            )
        return found

    def object(self, name: str, kind: int) -> Object:
        found = container(self.objects[f"{self.folder}/{name}"], kind)
        admitted = self.keepers if kind in (FLOOR, PACK) else self.writers
        assert found.header["writer"] in admitted
        assert (found.header["vault"], found.header["group"]) == (self.vault, self.group)
        return found

    def unwrap(self, name: str) -> bytes:
        """A key wrapped for this recipient: libsodium's sealed box."""
        body = self.object(name, WRAPPED).body
        opened: bytes = bindings.crypto_box_seal_open(body, self.recipient, self.secret)
        return opened

    @lru_cache  # noqa: B019
    def key(self, epoch: int, use: str) -> bytes:
        term = self.object(f"epochs/{epoch:08d}/term", TERM)
        assert term.header["epoch"] == epoch
        return self.unwrap(f"epochs/{epoch:08d}/for/{self.recipient.hex()}/{use}")

    def body(self, found: Object, kind: int, number: int) -> dict[str, Any]:
        """Open the sealed body of a machine record, commit or manifest."""
        epoch = found.header["epoch"]
        associated = struct.pack(
            "<24s16s16sBIQ", b"backstay body 1", self.vault, self.group, kind, epoch, number
        )
        packed = open_sealed(self.cipher, self.key(epoch, "index"), found.body, associated)
        fields: dict[str, Any] = msgpack.unpackb(zstandard.decompress(packed))
        return fields

    @lru_cache  # noqa: B019
    def machine(self, number: int) -> dict[str, Any]:
        found = self.object(f"machine/{number:08d}", MACHINE)
        return self.body(found, MACHINE, number)

    def commits(self, last: int) -> Iterator[Object]:
        """Commits 1 to ``last`` from their own objects, each checked to follow the one before."""
        link = bytes(32)
        for seq in range(1, last + 1):
            found = self.object(f"log/{seq:015d}", COMMIT)
            assert (found.header["seq"], found.header["previous"]) == (seq, link)
            link = found.link
            yield found

    def floor(self) -> Object | None:
        """The newest floor."""
        names = [name for name in self.objects if name.startswith(f"{self.folder}/floors/")]
        if not names:
            return None
        found = self.object(f"floors/{len(names):08d}", FLOOR)
        assert (found.header["format"], found.header["number"]) == (1, len(names))
        return found

    def kept(self, floor: Object) -> dict[int, tuple[int, bytes]]:
        """What can be read under a floor up to its commit: by point its base and its link."""
        fields = msgpack.unpackb(floor.body)
        links = fields["links"]
        rows = struct.iter_unpack("<QQQQ", fields["points"])
        found = {seq: (base, links[32 * at :][:32]) for at, (seq, base, _, _) in enumerate(rows)}
        return found | {floor.header["seq"]: (floor.header["seq"], floor.header["link"])}

    def moved(self, floor: Object) -> dict[tuple[int, int], bytes]:
        """The frames in the packs of a floor, as they are stored; the higher number counts."""
        found: dict[tuple[int, int], bytes] = {}
        for number, first, last, size in struct.iter_unpack(
            "<QQQQ", msgpack.unpackb(floor.body)["packs"]
        ):
            pack = self.object(f"packs/{number:012d}", PACK)
            fields = msgpack.unpackb(pack.body)
            frames = [each for (each,) in struct.iter_unpack("<Q", fields["frames"])]
            assert (pack.header["number"], frames[0], frames[-1]) == (number, first, last)
            assert (frames == sorted(frames), len(pack.tail)) == (True, size)
            for each, (span,) in zip(
                frames, struct.iter_unpack("<Q", fields["spans"]), strict=True
            ):
                at, length = span >> 32, span & 0xFFFFFFFF
                found[each >> 32, each & 0xFFFFFFFF] = pack.tail[at : at + length]
        return found

    def rolled(self, last: int) -> list[Object]:
        """The 256 commits of a rollup."""
        data = self.objects[f"{self.folder}/rollups/{last:015d}"]
        assert struct.unpack_from("<4sBBHI", data) == (b"BROL", 1, 0, 0, 256)
        sizes = struct.unpack_from("<256I", data, 12)
        at, found = 12 + 4 * 256, []
        for size in sizes:
            found.append(container(data[at : at + size], COMMIT))
            at += size
        assert at == len(data)
        return found

    def frame(self, epoch: int, number: int, stored: bytes) -> bytes:
        magic, version, codec, blocks, found, its, sealed, zero = struct.unpack_from(
            "<4sBBHIIII", stored
        )
        assert (magic, version, found, its, zero) == (b"BFRM", 1, epoch, number, 0)
        associated = b"backstay frame 1" + self.vault + self.group + stored[:24]
        key = self.key(epoch, "data")
        packed = open_sealed(self.cipher, key, stored[24 : 24 + sealed], associated)
        content: bytes = zstandard.decompress(packed) if codec else packed
        assert len(content) == blocks * BLOCK
        return content


class Map:
    """Locations of blocks, and places of frames, folded from the log or read from a checkpoint."""

    def __init__(self, reader: Reader):
        self.reader = reader
        self.blocks: dict[tuple[int, int], int] = {}
        self.places: dict[tuple[int, int], tuple[int, int, int]] = {}
        self.sizes: dict[int, int] = {}
        floor = reader.floor()
        self.moved = {} if floor is None else reader.moved(floor)

    @staticmethod
    def under_floor(reader: Reader, seq: int) -> Map:
        """The map of a point that retention has left, or of one after the floor's commit."""
        floor = reader.floor()
        assert floor is not None
        base, link = reader.kept(floor)[min(seq, floor.header["seq"])]
        point = Map(reader)
        before = point.load(base) if base else bytes(32)
        at = base
        while at < seq:
            at += 1
            commit = reader.object(f"log/{at:015d}", COMMIT)
            assert (commit.header["seq"], commit.header["previous"]) == (at, before)
            before = commit.link
            assert at != min(seq, floor.header["seq"]) or before == link
            point.fold(commit)
        assert before == link or seq > floor.header["seq"]
        return point

    def fold(self, commit: Object) -> None:
        header = commit.header
        self._resize(self.reader.machine(header["machine"]))
        body = self.reader.body(commit, COMMIT, header["seq"])
        frame = header["first_frame"]
        for segment in body["segments"]:
            spans = list(struct.iter_unpack("<III", segment["spans"]))
            source = segment["source"]
            holder = header["objects"][source - 1]["number"] if source else header["seq"] | INLINE
            slots = []
            for offset, length, blocks in spans:
                self.places[header["epoch"], frame] = (holder, offset, length)
                slots += [header["epoch"] << 40 | frame << 8 | slot for slot in range(blocks)]
                frame += 1
            self._segment(segment["parts"], iter(slots))

    def _resize(self, machine: dict[str, Any]) -> None:
        for disk in machine["disks"]:
            number, blocks = disk["number"], -(-disk["size"] // BLOCK)
            if blocks < self.sizes.get(number, 0):
                for cut in [at for at in self.blocks if at[0] == number and at[1] >= blocks]:
                    del self.blocks[cut]
            self.sizes[number] = blocks

    def _segment(self, parts: list[dict[str, Any]], slots: Iterator[int]) -> None:
        for part in parts:
            for start, count in struct.iter_unpack("<QQ", part["data"]):
                for block in range(start, start + count):
                    self.blocks[part["disk"], block] = next(slots)
            for start, count in struct.iter_unpack("<QQ", part["zero"]):
                self.blocks |= {(part["disk"], start + at): 1 for at in range(count)}
        copies = {}
        for part in parts:
            for block, target, count in struct.iter_unpack("<QQQ", part["refs"]):
                for at in range(count):
                    other = (target + at) >> 48, (target + at) & (1 << 48) - 1
                    copies[part["disk"], block + at] = self.blocks.get(other, 0)
        self.blocks |= copies

    def load(self, seq: int) -> bytes:
        """Begin with the checkpoint at ``seq``; its link."""
        manifest = self.reader.object(f"checkpoints/{seq:015d}/manifest", MANIFEST)
        assert manifest.header["seq"] == seq
        body = self.reader.body(manifest, MANIFEST, seq)
        for disk in body["disks"]:
            self.sizes[disk["number"]] = disk["blocks"]
            rows = self._rows(1, disk["number"], disk["map"], disk["blocks"])
            self.blocks |= {(disk["number"], at): row[0] for at, row in enumerate(rows)}
            self._rows(2, disk["number"], disk["digests"], disk["blocks"])
        for epoch in body["epochs"]:
            rows = self._rows(3, epoch["epoch"], epoch["table"], epoch["frames"])
            for at, (holder, span) in enumerate(rows):
                self.places[epoch["epoch"], at] = (holder, span >> 32, span & 0xFFFFFFFF)
        link: bytes = manifest.header["link"]
        return link

    def _rows(self, what: int, owner: int, table: bytes, rows: int) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for page, (seq, place, length) in enumerate(struct.iter_unpack("<QQQ", table)):
            if length:
                content = self._page(what, owner, page, seq, place, length)
            else:
                content = [(place,) if what == 1 else (0, place)] * 8192
            columns = 1 if what == 1 else 2
            found += content + [(0,) * columns] * (8192 - len(content))
        return found[:rows]

    def _page(
        self, what: int, owner: int, page: int, seq: int, place: int, length: int
    ) -> list[tuple[int, ...]]:
        reader, part, offset = self.reader, place >> 24, place & 0xFFFFFF
        name = f"checkpoints/{seq:015d}/{part >> 16:08d}-{part & 0xFFFF:05d}"
        stored = reader.objects[f"{reader.folder}/{name}"][offset : offset + length]
        magic, version, *rest = struct.unpack_from("<4sBBHIIQII", stored)
        epoch = rest[2]
        assert (magic, version) == (b"BPAG", 1)
        assert rest == [what, 0, epoch, length - 32, seq, owner, page]
        associated = b"backstay page 1" + reader.vault + reader.group + stored[:32]
        key = reader.key(epoch, "index")
        raw = zstandard.decompress(open_sealed(reader.cipher, key, stored[32:], associated))
        rows = list(struct.iter_unpack("<Q" if what == 1 else "<QQ", raw))
        if what == 2:
            return rows
        sums, found = [0] * len(rows[0]), []
        for row in rows:
            sums = [(a + b) % (1 << 64) for a, b in zip(sums, row, strict=True)]
            found.append(tuple(sums))
        return found

    def disk(self, number: int, size: int) -> bytes:
        """All bytes of a disk."""
        content = bytearray(-(-size // BLOCK) * BLOCK)
        opened: dict[int, bytes] = {}
        for (disk, block), location in self.blocks.items():
            if disk == number and location > 1:
                frame = location >> 8
                if frame not in opened:
                    opened[frame] = self._fetch(frame >> 32, frame & 0xFFFFFFFF)
                slot = location & 0xFF
                piece = opened[frame][slot * BLOCK : (slot + 1) * BLOCK]
                content[block * BLOCK : (block + 1) * BLOCK] = piece
        return bytes(content[:size])

    def _fetch(self, epoch: int, number: int) -> bytes:
        reader = self.reader
        if (epoch, number) in self.moved:
            return reader.frame(epoch, number, self.moved[epoch, number])
        holder, offset, length = self.places[epoch, number]
        if holder & INLINE:
            data = reader.object(f"log/{holder & ~INLINE:015d}", COMMIT).tail
        else:
            data = reader.objects[f"{reader.folder}/data/{epoch:08d}/{holder:012d}"]
        return reader.frame(epoch, number, data[offset : offset + length])
