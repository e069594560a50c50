"""Every way in which one object of a vault is spoilt, and what recovery must still keep to."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.vault.container import HEAD_SIZE, PREFIX
from tests.faults.world import ACCESS, DISKS, Said, World

_KINDS = (
    ("charter", r"vault\.json|charters/.*"),
    ("group record", r"groups/[^/]+/group"),
    ("digest key", r".*/for/[^/]+/digest"),
    ("machine record", r".*/machine/.*"),
    ("term", r".*/term"),
    ("data key", r".*/for/[^/]+/data"),
    ("index key", r".*/for/[^/]+/index"),
    ("data", r".*/data/.*"),
    ("commit", r".*/log/.*"),
    ("rollup", r".*/rollups/.*"),
    ("manifest", r".*/manifest"),
    ("checkpoint pages", r".*/checkpoints/.*"),
)
FRAME_BYTES = 64 * 4096


def kind_of(key: str) -> str:
    """Which kind of object a key names."""
    return next(kind for kind, pattern in _KINDS if re.fullmatch(pattern, key))


@dataclass(frozen=True)
class Spoilt:
    """An object, what was done to it, and its bytes afterwards (None: deleted)."""

    key: str
    how: str
    data: bytes | None


def ways(key: str, data: bytes) -> list[Spoilt]:
    """Deleted, emptied, cut short, and a byte inverted in each field or part."""
    found = [
        Spoilt(key, "deleted", None),
        Spoilt(key, "emptied", b""),
        Spoilt(key, "cut", data[: len(data) * 2 // 3]),
    ]
    for name, offset in _places(key, data):
        flipped = bytearray(data)
        flipped[offset] ^= 0xFF
        found.append(Spoilt(key, f"{name} flipped", bytes(flipped)))
    return found


def _places(key: str, data: bytes) -> Iterator[tuple[str, int]]:
    kind = kind_of(key)
    if kind == "charter":
        places = {"start": 0, "format": data.index(b'"format"') + 10}
        places |= {"id": data.index(b'"vault"') + 12, "recipient": data.index(b'"key"') + 10}
        yield from (places | {"signature": len(data) - 20}).items()
    elif kind in ("data", "checkpoint pages", "rollup"):
        yield from {"magic": 0, "version": 4, "field": 5, "epoch": 8, "length": 17}.items()
        yield from {"content": len(data) // 2, "end": len(data) - 1}.items()
    else:
        _, _, _, _, header, body, tail, _ = PREFIX.unpack_from(data)
        yield from {"magic": 0, "version": 4, "kind": 5, "header length": 8}.items()
        yield from {"body length": 12, "tail length": 16, "signature": 40}.items()
        yield from {"header": HEAD_SIZE + 3, "header middle": HEAD_SIZE + header // 2}.items()
        yield "writer", data.index(b"writer") + 12
        if body:
            yield "body", HEAD_SIZE + header + body // 2
        if tail:
            yield "frame head", HEAD_SIZE + header + body + 9
            yield "frame", len(data) - tail // 2


def spread(found: list[list[Spoilt]], least: int) -> Iterator[Spoilt]:
    """Of many objects of a kind, each is spoilt in ``least`` ways, and each way is tried."""
    for number, all_ways in enumerate(found):
        count = max(least, -(-len(all_ways) // len(found)))
        picked = range(number * count, number * count + count)
        chosen = {at % len(all_ways) for at in picked} | {0}
        yield from (all_ways[at] for at in sorted(chosen))


class Judge:
    """Holds what the commands did with a spoilt vault against the promises."""

    def __init__(self, world: World):
        self.world = world
        newest = int(world.names["third"])
        self.newest = newest
        self.likes = {newest: ""}
        self.likes |= {int(world.names[name]): f"{name}-" for name in ("first", "second")}

    def is_unseen(self, spoilt: Spoilt) -> bool:
        """A log that ends earlier is a good log: ``--expect`` is for that."""
        newest = self.world.commit(self.newest).removeprefix("vault/")
        return spoilt.key == newest and spoilt.data is None

    def forget(self) -> None:
        """Remove what was restored."""
        shutil.rmtree(self.world.path("out"), ignore_errors=True)

    def restores(self, spoilt: Spoilt, *more: str) -> bool:
        """Exactly right bytes of the point it names, or a refusal that leaves no file behind."""
        said = self.world.restore("out", *more)
        try:
            assert "Traceback" not in said.err, said
            if said.code:
                self._refused(spoilt, said)
                return False
            point = int(re.search(r"^point #(\d+) ", said.err, re.MULTILINE)[1])  # type: ignore[index]
            # A long log has points between the named ones, at which nothing had changed yet.
            like = self.likes[max(seq for seq in self.likes if seq <= point)]
            assert self.world.is_as_protected("out", like=like), (spoilt.key, said)
            if not more and point != self.newest and not self.is_unseen(spoilt):
                assert self._names(spoilt, said.err), (spoilt, said)
            return point == self.newest
        finally:
            self.forget()

    def verifies(self, spoilt: Spoilt) -> tuple[bool, bool]:
        """Whole, or it names the object and exits 6; and whether it names it."""
        said = self.world.backstay("verify", "web1", *ACCESS, "--at", f"#{self.newest}")
        assert "Traceback" not in said.err
        named = self._names(spoilt, said.out + said.err)
        if said.code == 0:
            assert "whole: it can be restored" in said.out
            return True, named
        assert said.code in self._codes(spoilt), (spoilt.key, spoilt.how, said)
        assert named, (spoilt.key, spoilt.how, said)
        return False, named

    def salvages(self, spoilt: Spoilt) -> int | None:
        """Bytes listed as damaged: all others are right. None if nothing can be had."""
        arguments = ("--at", f"#{self.newest}", "--salvage", "--json")
        said = self.world.restore("out", *arguments)
        try:
            assert "Traceback" not in said.err, said
            if not self.world.path("out/web1-root.img").exists():
                self._refused(spoilt, said)
                return None
            report = json.loads(said.out)
            assert said.code == (6 if report["damage"] else 0), said
            self._right_elsewhere(spoilt, report)
            return sum(int(extent["length"]) for extent in report["damage"])
        finally:
            self.forget()

    def _right_elsewhere(self, spoilt: Spoilt, report: dict[str, Any]) -> None:
        for disk, image in DISKS.items():
            source = bytearray(self.world.path(image).read_bytes())
            restored = bytearray(self.world.path(f"out/web1-{disk}.img").read_bytes())
            assert len(source) == len(restored)
            for extent in report["damage"]:
                if extent["disk"] == disk:
                    end = extent["offset"] + extent["length"]
                    source[extent["offset"] : end] = bytes(extent["length"])
                    restored[extent["offset"] : end] = bytes(extent["length"])
            assert restored == source, (spoilt.key, spoilt.how)

    def _refused(self, spoilt: Spoilt, said: Said) -> None:
        assert said.code in self._codes(spoilt), (spoilt.key, spoilt.how, said)
        assert not list(self.world.path("out").glob("*.img")), (spoilt.key, said)
        assert self._names(spoilt, said.err), (spoilt.key, spoilt.how, said)

    def _names(self, spoilt: Spoilt, text: str) -> bool:
        if spoilt.key == "charters/00000002" and spoilt.data is None:
            return "charter" in text
        if spoilt.key == "vault.json" and spoilt.data is None:
            return "there is no vault here" in text
        return spoilt.key in text

    @staticmethod
    def _codes(spoilt: Spoilt) -> tuple[int, ...]:
        if kind_of(spoilt.key) == "charter":
            return (4, 5, 6)
        # A version byte that is not known cannot be told from one that is damaged.
        return (5, 6) if spoilt.how == "version flipped" else (6,)
