"""Which groups a vault has, by what lies in its folder, and which of them is newer."""

from __future__ import annotations

from collections.abc import Mapping

from stages.errors import MissingData, ObjectMissing
from stages.store.port import ObjectStore, walk
from stages.vault import layout
from stages.vault.charter import Charter
from stages.vault.container import HEAD_SIZE, MAX_HEADER, Kind, parse
from stages.vault.records import GroupRecord, read_group
from stages.vault.sealing import Scope
from stages.vault.terms import check_place, check_signer

MAX_GROUPS = 100_000
_MAX_LOG = 100_000_000  # commits looked through for the end of a log with holes


async def group_ids(store: ObjectStore, problems: list[str]) -> list[tuple[bytes, str]]:
    """All groups' ids, each with the name of its first object; ``problems`` hears of others.

    One short page for each group: what lies inside it is skipped by its name.
    """
    found: list[tuple[bytes, str]] = []
    after = ""
    while len(found) < MAX_GROUPS:
        page = await store.page(layout.GROUPS, after, 1)
        if not page:
            break
        name = page[0].key.split("/")[1]
        after = f"{layout.GROUPS}{name}0"  # "0" follows "/" in byte order
        try:
            found.append((bytes.fromhex(name), page[0].key))
        except ValueError:
            problems.append(f"{page[0].key}: not a group of this program")
    return found


async def last_listed(store: ObjectStore, group: bytes) -> int:
    """The number of a group's newest commit by what lies there, whatever is missing before it."""
    last = 0
    async for info in walk(store, layout.log_prefix(group), most=_MAX_LOG):
        number = info.key.rpartition("/")[2]
        last = int(number) if number.isdecimal() else last
    return last


async def read_record(store: ObjectStore, scope: Scope, charter: Charter) -> GroupRecord:
    """The record of a group. Raises ``Damage`` or ``NotAdmitted``."""
    key = layout.group_record(scope.group)
    try:
        data = await store.get(key, 0, HEAD_SIZE + MAX_HEADER)
    except ObjectMissing:
        raise MissingData("the group's record is missing", subject=key) from None
    found = parse(data, key, Kind.GROUP)
    check_signer(found, charter, operator=True)  # who opens branches
    check_place(found, scope)
    return read_group(found)


def ages_of(known: Mapping[bytes, GroupRecord]) -> dict[bytes, int]:
    """By group when it began (µs), of a branch at least a moment after its parent."""
    ages: dict[bytes, int] = {}
    for group in known:
        line = [group]  # up to a group whose age is known, or that begins with nothing
        while line[-1] not in ages:
            parent = known[line[-1]].parent
            if parent is None or parent.group not in known or parent.group in line:
                ages[line[-1]] = known[line[-1]].created
            else:
                line.append(parent.group)
        age = ages[line.pop()]
        while line:
            gid = line.pop()
            age = ages[gid] = max(known[gid].created, age + 1)
    return ages
