"""Replicas on files in memory, and what their record promises held against the model."""

from __future__ import annotations

from collections.abc import Iterable

from stages.ports import Files
from stages.recover.opened import Group, open_vault
from stages.recover.points import Point, choose
from stages.replica import record
from stages.replica.bounds import Bounds, Brought
from stages.replica.record import Record, Status, path_of
from stages.replica.replica import Replica
from tests.branches.support import Branch, Forest
from tests.ports.watched import Around, WatchedFiles
from tests.recover.past import PEOPLE, machine
from tests.whole.memfiles import MemFiles

FOLDER = "/srv/replica"
SMALL = Bounds(window=16, changes=8)
ON_THE_WAY = (Status.COMPARING, Status.CHANGING)


async def opened(files: Files, around: Around | None = None, bounds: Bounds = SMALL) -> Replica:
    """As a process begins."""
    ports = machine(WatchedFiles(around, files) if around else files)
    return await Replica.open(ports, FOLDER, PEOPLE.charter.vault, "web1", bounds)


async def point_of(forest: Forest, branch: Branch, seq: int | None) -> tuple[Group, Point]:
    """A point as the replica's own key finds it: it is no operator's."""
    vault = await open_vault(forest.store, PEOPLE.second)
    group = await vault.group(branch.gid)
    return group, (await choose(group, "web1", seq)).point


async def follow(
    forest: Forest,
    branch: Branch,
    files: Files,
    *,
    seq: int | None = None,
    around: Around | None = None,
    bounds: Bounds = SMALL,
    found: tuple[Group, Point] | None = None,
) -> Brought:
    """One life of a process, which brings the files to a point (``found``, if it was looked up)."""
    group, point = found or await point_of(forest, branch, seq)
    replica = await opened(files, around, bounds)
    try:
        while True:
            brought = await replica.bring(group, point)
            if brought.at.seq == point.seq:
                return brought
    finally:
        replica.close()


def promised(files: MemFiles, branches: Iterable[Branch]) -> Record | None:
    """The record, after what it promises was held against the model: byte for byte."""
    found = record.read(files, FOLDER)
    if found is None or found.status in ON_THE_WAY:
        return found
    assert found.at is not None
    branch = next(each for each in branches if each.gid == found.at.group)
    moment = branch.moments[found.at.seq]
    assert branch.links[found.at.seq] == found.at.link
    assert {each.number for each in found.disks} == {each.number for each in moment.disks}
    for disk in found.disks:
        places = [path_of(FOLDER, disk.number)]
        if found.to:
            places.append(f"{found.to}/web1-{disk.name}.img")
        there = [path for path in places if files.stat(path) is not None]
        assert there, disk
        if found.status is Status.GIVEN:
            assert there == places[1:]
        assert files.read(there[-1], 1 << 30) == moment.image(disk.number)
    return found
