"""Every point of a vault, brought back and looked at: fsck, mount, and the oracle's word."""

from __future__ import annotations

import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.support import KEYS, Place, same
from tests.storm.blocks import read_tree
from tests.storm.guest import DATA, JOURNAL, Loops, StormError, attempt, call, mount
from tests.storm.storm import Storm

_MODIFIED = 1  # e2fsck's exit code
# What e2fsck may say while it replays a journal. It has to clear what was deleted while open, and
# to count again what is free in all, since that is not journalled; and an external journal is on
# another device now. Anything else is a repair.
_REPLAY = re.compile(
    r"""e2fsck\s1\.|Pass\s\d|.*:\srecovering\sjournal$|(.*:\s)?Clearing\sorphaned\sinode
    |.*:\s\*+\sFILE\sSYSTEM\sWAS\sMODIFIED|.*:\s\d+/\d+\sfiles|\s*$
    |Free\s(blocks|inodes)\scount\swrong\s\(\d+,\scounted=\d+\)\.$|Fix\?\syes$
    |Superblock\shint\sfor\sexternal\ssuperblock\sshould\sbe\s0x[0-9a-f]+\.\s+Fix\?\syes$""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Checked:
    """How many points there were, and were looked at; operations durable before the newest."""

    points: int
    consistent: int
    looked_at: int
    operations: int


def check(storm: Storm, sample: int | None) -> Checked:
    """The sources, and consistent points: all, or the marked ones, those next to each kill, the
    first, the newest, and ``sample`` others. Raises ``StormError`` with all that is wrong."""
    place = storm.place
    listed = place.json("points", "web1", *KEYS, "--all", "--count", "100000")["points"]
    points = listed[::-1]  # oldest first
    consistent = [point for point in points if point["consistent"]]
    wrong = _marks(storm, consistent) + _files(storm, place.root, "the source")
    chosen = consistent if sample is None else _chosen(storm, consistent, sample)
    for point in chosen:
        wrong += look_at(storm, point, newest=point is consistent[-1])
    if wrong:
        raise StormError("\n  ".join([f"{len(wrong)} things are wrong:", *wrong]))
    done = storm.history.durable(int(consistent[-1]["stamp"]))
    return Checked(len(points), len(consistent), len(chosen), done)


def _marks(storm: Storm, consistent: list[dict[str, Any]]) -> list[str]:
    found = {point["seq"] for point in consistent}
    return [f"marked point #{seq} is not there" for seq in storm.marks if seq not in found]


def _chosen(storm: Storm, consistent: list[dict[str, Any]], sample: int) -> list[dict[str, Any]]:
    wanted = {consistent[0]["seq"], consistent[-1]["seq"], *storm.marks}
    for when, _ in storm.killed:
        before = [point["seq"] for point in consistent if point["stamp"] < when]
        after = [point["seq"] for point in consistent if point["stamp"] >= when]
        wanted |= {*before[-1:], *after[:1]}
    others = [point["seq"] for point in consistent if point["seq"] not in wanted]
    draw = random.Random(f"{storm.seed}/sample")
    wanted |= set(draw.sample(others, min(sample, len(others))))
    return [point for point in consistent if point["seq"] in wanted]


def look_at(storm: Storm, point: dict[str, Any], *, newest: bool = False) -> list[str]:
    """What is wrong with one point. ``newest``: it must be what the sources are."""
    place, name = storm.place, f"point #{point['seq']} of {point['time']}"
    folder = place / f"back{point['seq']}"
    try:
        place.json("restore", "web1", *KEYS, "--at", f"#{point['seq']}", "--to", folder.name)
        images = {disk: folder / f"web1-{disk}.img" for disk in storm.disks}
        wrong = []
        if newest:
            wrong = [
                f"{name}, the newest, has another content than the source: {disk}"
                for disk, image in images.items()
                if not same(image, place / f"{disk}.img")
            ]
        return wrong + _file_system(storm, images, name, int(point["stamp"]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(storm: Storm, folder: Path, name: str) -> list[str]:
    """What is wrong with the sources, of which copies are looked at."""
    aside = Place(folder) / "aside"
    aside.mkdir()
    try:
        images = {disk: aside / f"{disk}.img" for disk in storm.disks}
        for disk, image in images.items():
            shutil.copyfile(folder / f"{disk}.img", image)
        return _file_system(storm, images, name, None)
    finally:
        shutil.rmtree(aside)


def _file_system(storm: Storm, images: dict[str, Path], name: str, stamp: int | None) -> list[str]:
    try:
        with Loops(images) as devices:
            _replay(devices)
            call("e2fsck", "-fn", *_devices(devices))
            found = _read(devices, images[DATA].parent / "mounted")
    except StormError as error:
        return [f"{name}: {error}"]
    history = storm.history
    complaints = history.complaints(found) if stamp is None else history.complaints(found, stamp)
    shown = complaints[:3]
    if len(complaints) > 3:
        shown.append(f"and {len(complaints) - 3} more files")
    return [f"{name}: {text}" for text in shown]


def _replay(devices: dict[str, str]) -> None:
    said = call("e2fsck", "-fy", *_devices(devices), codes=(0, _MODIFIED))
    repairs = [line for line in said.splitlines() if not _REPLAY.match(line)]
    if repairs:
        raise StormError("e2fsck had to repair: " + "; ".join(repairs))


def _devices(devices: dict[str, str]) -> list[str]:
    outside = ["-j", devices[JOURNAL]] if JOURNAL in devices else []
    return [*outside, devices[DATA]]


def _read(devices: dict[str, str], folder: Path) -> dict[str, tuple[int, ...]]:
    folder.mkdir()
    try:
        mount(devices, folder, "ro", "noload")
        return read_tree(folder)
    finally:
        attempt("umount", str(folder))
        folder.rmdir()
