"""Floors and holds: what retention has let go, and what it may not (R16).

A **floor** names the commit that the log begins at, the points before it that are still offered,
and the packs that frames were moved to. Nothing it says can change what a reader takes for
content: commits, checkpoints and frames prove themselves. It only tells "gone" from "damaged".
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from stages.crypto.sign import Signer
from stages.errors import DamagedObject, NotAdmitted, UnknownVersion
from stages.model import U64
from stages.ports import Buffer
from stages.vault import layout
from stages.vault.charter import Charter
from stages.vault.codec import Fields, pack
from stages.vault.container import Container, Kind, build, parse
from stages.vault.sealing import Scope
from stages.vault.terms import check_place

FORMAT = 1
MAX_FLOORS = 1_000_000
MAX_POINTS = 65_536
MAX_PACKS = 1_000_000
MAX_NOTE = 2000
MAX_WHO = 255
_POINT = 4  # columns of u64: seq, base, stamp, time
_PACK = 4  # number, first frame, last frame, bytes of frames


@dataclass(frozen=True, slots=True)
class KeptPoint:
    """A point before the floor that is still offered.

    ``base``: the checkpoint that it is read from, 0 for the beginning of the log. ``stamp``: µs,
    the commit's. ``time``: µs, when it was stored by the store's clock. ``link``: the commit's.
    """

    seq: int
    base: int
    stamp: int
    time: int
    link: bytes


@dataclass(frozen=True, slots=True)
class PackRef:
    """A pack in force: frames from ``first`` to ``last`` (``location.frame_of`` numbers), ``size``
    bytes of them."""

    number: int
    first: int
    last: int
    size: int


@dataclass(frozen=True, slots=True)
class Floor:
    """The log from ``seq`` on, and ``points`` before it, ascending. ``link``: of commit ``seq``.

    ``number`` as in the name; ``stamp``: the keeper's clock in µs.
    """

    number: int
    seq: int
    link: bytes
    stamp: int
    points: tuple[KeptPoint, ...] = ()
    packs: tuple[PackRef, ...] = ()
    _by_seq: dict[int, KeptPoint] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def kept(self, seq: int) -> KeptPoint | None:
        """The point ``seq`` before the floor, if it is offered."""
        if not self._by_seq:
            self._by_seq.update((point.seq, point) for point in self.points)
        return self._by_seq.get(seq)

    def offers(self, seq: int) -> bool:
        """May a point be restored?"""
        return seq >= self.seq or self.kept(seq) is not None

    def base(self, seq: int) -> int:
        """The checkpoint that a point which is offered can be read from; 0: the log's beginning."""
        point = self.kept(seq)
        if seq < self.seq:
            return point.base if point is not None else 0
        return self.seq if self.seq > 1 else 0


@dataclass(frozen=True, slots=True)
class Hold:
    """Keeps the commit ``seq`` with this ``link``, until it is released."""

    seq: int
    link: bytes
    stamp: int
    by: str
    note: str = ""


def floor_object(scope: Scope, floor: Floor, signer: Signer) -> list[Buffer]:
    """The object of a floor. ``ValueError`` for one that no reader would take."""
    wrong = _unfit(floor)
    if wrong:
        raise ValueError(wrong)
    points = np.array([(p.seq, p.base, p.stamp, p.time) for p in floor.points], "<u8")
    packs = np.array([(p.number, p.first, p.last, p.size) for p in floor.packs], "<u8")
    body = pack(
        {
            "points": points.tobytes(),
            "links": b"".join(point.link for point in floor.points),
            "packs": packs.tobytes(),
        }
    )
    fields = scope.fields() | {
        "format": FORMAT,
        "number": floor.number,
        "seq": floor.seq,
        "link": floor.link,
        "stamp": floor.stamp,
    }
    return build(Kind.FLOOR, fields, signer, body)


def read_floor(data: bytes, scope: Scope, charter: Charter, number: int) -> Floor:
    """The floor in object ``number``.

    Raises ``NotAdmitted`` if neither operator nor keeper signed it, ``DamagedObject``,
    ``UnknownVersion``.
    """
    found = checked(data, layout.floor(scope.group, number), Kind.FLOOR, scope, charter)
    fields = Fields.decode(found.check_body(data[found.body_at : found.tail_at]), found.key)
    points, packs = fields.array("points", "<u8", _POINT), fields.array("packs", "<u8", _PACK)
    links = fields.raw("links")
    if len(points) > MAX_POINTS or len(packs) > MAX_PACKS or len(links) != 32 * len(points):
        raise DamagedObject("a floor out of bounds", subject=found.key)
    header = found.header
    floor = Floor(
        header.number("number"),
        header.number("seq"),
        header.raw("link", 32),
        header.number("stamp"),
        tuple(
            KeptPoint(seq, base, stamp, time, links[32 * at : 32 * at + 32])
            for at, (seq, base, stamp, time) in enumerate(points.tolist())
        ),
        tuple(PackRef(*row) for row in packs.tolist()),
    )
    wrong = _unfit(floor) or (floor.number != number and "is the floor of another number")
    if wrong:
        raise DamagedObject(wrong, subject=found.key)
    return floor


def hold_object(scope: Scope, hold: Hold, signer: Signer) -> list[Buffer]:
    """The object of a hold. Raises ``ValueError`` for a name or note that is too long."""
    if len(hold.note) > MAX_NOTE or len(hold.by) > MAX_WHO:
        raise ValueError(f"a name of more than {MAX_WHO} or a note of more than {MAX_NOTE}")
    fields = scope.fields() | {
        "format": FORMAT,
        "seq": hold.seq,
        "link": hold.link,
        "stamp": hold.stamp,
        "by": hold.by,
        "note": hold.note,
    }
    return build(Kind.HOLD, fields, signer)


def read_hold(data: bytes, scope: Scope, charter: Charter, seq: int) -> Hold:
    """The hold of point ``seq``. Raises as ``read_floor`` does."""
    found = checked(data, layout.hold(scope.group, seq), Kind.HOLD, scope, charter)
    header = found.header
    if header.number("seq") != seq:
        raise DamagedObject("is the hold of another point", subject=found.key)
    return Hold(
        seq,
        header.raw("link", 32),
        header.number("stamp"),
        header.text("by", MAX_WHO),
        header.text("note", MAX_NOTE),
    )


def pack_object(
    scope: Scope, number: int, frames: U64, spans: U64, content: tuple[Buffer, ...], signer: Signer
) -> list[Buffer]:
    """The object of a pack: ``frames`` (n,) ascending, ``spans`` (n,): offset << 32 | length in
    the joined ``content``."""
    body = pack({"frames": frames.astype("<u8").tobytes(), "spans": spans.astype("<u8").tobytes()})
    fields = scope.fields() | {"format": FORMAT, "number": number}
    return build(Kind.PACK, fields, signer, body, content)


def read_pack(data: bytes, scope: Scope, charter: Charter, number: int) -> tuple[U64, U64]:
    """Frames (n,) and spans (n,) of a pack, from its bytes up to the tail. Raises as
    ``read_floor`` does."""
    found = checked(data, layout.pack(scope.group, number), Kind.PACK, scope, charter)
    if found.header.number("number") != number:
        raise DamagedObject("is the pack of another number", subject=found.key)
    fields = Fields.decode(found.check_body(data[found.body_at : found.tail_at]), found.key)
    frames, spans = fields.array("frames", "<u8"), fields.array("spans", "<u8")
    if not len(frames) or len(frames) != len(spans) or (frames[1:] <= frames[:-1]).any():
        raise DamagedObject("a pack's frames are out of order", subject=found.key)
    return frames, spans


def checked(data: bytes, key: str, kind: Kind, scope: Scope, charter: Charter) -> Container:
    """An object that only the operator or a keeper can sign. Raises as ``read_floor`` does."""
    found = parse(data, key, kind)
    signer = found.header.raw("writer", 32)
    if not found.signed_by(signer):
        raise DamagedObject("the signature does not verify", subject=key)
    if not charter.keeps(signer):
        raise NotAdmitted(
            f"signed by {signer.hex()[:16]}, who is neither operator nor keeper",
            subject=key,
            hint="it is ignored; someone with access to the store put it there",
        )
    check_place(found, scope)
    version = found.header.number("format")
    if version != FORMAT:
        raise UnknownVersion(
            f"{kind.name.lower()} format {version}, this program reads {FORMAT}",
            subject=key,
            hint="use the Backstay release that wrote it, or a newer one",
        )
    return found


def _unfit(floor: Floor) -> str | None:
    """Why a floor cannot be, or None."""
    if not 1 <= floor.number <= MAX_FLOORS or floor.seq < 1 or len(floor.link) != 32:
        return "a floor's number, commit or link is out of bounds"
    if len(floor.points) > MAX_POINTS or len(floor.packs) > MAX_PACKS:
        return f"more than {MAX_POINTS} points or {MAX_PACKS} packs"
    seqs = [0, *(point.seq for point in floor.points), floor.seq]
    if any(after <= before for before, after in itertools.pairwise(seqs)):
        return "a floor's points are not ascending, or not before it"
    if any(point.base > point.seq or len(point.link) != 32 for point in floor.points):
        return "a point's base lies after it"
    numbers = [0, *(each.number for each in floor.packs)]
    if any(after <= before for before, after in itertools.pairwise(numbers)):
        return "a floor's packs are not ascending"
    return None
