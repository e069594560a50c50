"""Leases: holds that end by themselves, for those who read a point for hours (R16).

An export or a restore puts one and, as objects never change, another before it ends. It counts for
so many seconds from when the store says it was stored: no clock but the store's has a say, and who
dies holds nothing for long. A keeper forgets those that have ended.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.crypto.sign import Signer
from stages.errors import DamagedObject, NotAdmitted, ObjectMissing
from stages.ports import Buffer
from stages.stage import together
from stages.store.port import ObjectInfo, ObjectStore, walk
from stages.vault import layout
from stages.vault.charter import Charter
from stages.vault.container import HEAD_SIZE, MAX_HEADER, Kind, build
from stages.vault.floors import FORMAT, MAX_WHO, checked
from stages.vault.sealing import Scope

LONGEST = 86_400  # seconds: what is damaged or forgotten stands in nobody's way for longer
MOST = 65_536
PARALLEL = 32  # that are read at a time
_NAME = re.compile(r"([0-9]{15})-([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Lease:
    """Keeps the commit ``seq`` with this ``link`` for ``seconds``. ``stamp``: µs, the clock of the
    one who made it, for people only. ``by``: who reads."""

    seq: int
    link: bytes
    stamp: int
    seconds: int
    by: str


@dataclass(frozen=True, slots=True)
class Running:
    """A lease that counts, and when it ends: µs by the store's clock."""

    lease: Lease
    until: int


@dataclass(frozen=True, slots=True)
class LeasesFound:
    """``running`` by point. ``ended``: objects that nothing needs any more.

    ``notes``: objects that are none. ``problems``: some that may be one and cannot be read: whoever
    deletes must not go on, for as long as they could count.
    """

    running: tuple[Running, ...] = ()
    ended: tuple[ObjectInfo, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def lease_object(scope: Scope, lease: Lease, signer: Signer) -> list[Buffer]:
    """The object of a lease. ``ValueError`` for one that no reader would take."""
    if not 1 <= lease.seconds <= LONGEST or len(lease.by) > MAX_WHO:
        raise ValueError(f"a lease of {lease.seconds} s, or a name of more than {MAX_WHO}")
    fields = scope.fields() | {
        "format": FORMAT,
        "seq": lease.seq,
        "link": lease.link,
        "stamp": lease.stamp,
        "seconds": lease.seconds,
        "by": lease.by,
    }
    return build(Kind.LEASE, fields, signer)


def read_lease(data: bytes, key: str, scope: Scope, charter: Charter, seq: int) -> Lease:
    """The lease in object ``key``, of point ``seq``.

    Raises ``NotAdmitted`` if neither operator nor keeper signed it, ``DamagedObject``,
    ``UnknownVersion``.
    """
    header = checked(data, key, Kind.LEASE, scope, charter).header
    if header.number("seq") != seq:
        raise DamagedObject("is the lease of another point", subject=key)
    return Lease(
        seq,
        header.raw("link", 32),
        header.number("stamp"),
        header.number("seconds", LONGEST),
        header.text("by", MAX_WHO),
    )


async def load_leases(store: ObjectStore, scope: Scope, charter: Charter, now: int) -> LeasesFound:
    """All leases of a group; ``now``: µs by the store's clock. Raises ``UnknownVersion``, store
    errors."""
    prefix = layout.leases_prefix(scope.group)
    infos = [info async for info in walk(store, prefix, most=MOST)]

    async def look(info: ObjectInfo) -> Running | ObjectInfo | str | DamagedObject | None:
        """What it is: one that counts, one that has ended, a note, a problem, or none any more."""
        name = _NAME.fullmatch(info.key.removeprefix(prefix))
        if name is None:
            return f"{info.key}: not a lease"
        stored = round(info.modified * 1e6)
        if stored + LONGEST * 1_000_000 <= now:  # whatever it says
            return info
        try:
            data = await store.get(info.key, 0, HEAD_SIZE + MAX_HEADER)
            lease = read_lease(data, info.key, scope, charter, int(name[1]))
        except ObjectMissing:
            return None  # given back meanwhile
        except NotAdmitted as error:
            return str(error)
        except DamagedObject as error:
            return error
        until = stored + lease.seconds * 1_000_000
        return Running(lease, until) if until > now else info

    found = await together(infos, look, at_once=PARALLEL)
    return LeasesFound(
        tuple(each for each in found if isinstance(each, Running)),
        tuple(each for each in found if isinstance(each, ObjectInfo)),
        tuple(each for each in found if isinstance(each, str)),
        tuple(str(each) for each in found if isinstance(each, DamagedObject)),
    )
