"""Reads from an export of a point, at random and in order, beside qemu-nbd of a compressed qcow2
and nbdkit of the raw image. A server's samples count only if all it serves is right."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench.capped import SOCKET, capped, of_bytes
from bench.context import Context, Gathered
from bench.inputs import warm
from bench.live import NBDKIT, NEEDS, Serving, nbdkit
from bench.load import COLUMNS, Load, put
from bench.measure import Command, checked
from bench.peers import QemuImg
from bench.qemu import QEMU_NBD, listening, qemu_nbd
from bench.results import Goal, Outcome, Sample, find, ratio
from bench.subjects import BACKSTAY, MACHINE, Backstay, BackstayCopy, Copy, Subject

TITLE = "random and sequential reads from an export"
QCOW2 = f"{QEMU_NBD} (qcow2, zstd)"
LOADS = (
    Load("4k random d1", "4k", 1, reads=True),
    Load("64k random d8", "64k", 8, reads=True),
    Load("in order, nbdcopy", str(1 << 20), 0, reads=True, copy=True),
)
GOAL = 1.0  # of qemu-nbd's rate


def run(context: Context, ours: Backstay | None = None) -> Outcome:
    """Copies are those of other scenarios, or made once; each turn serves each of them anew."""
    gathered, copies = Gathered(), dict[str, Copy]()
    lacking = [need for need in NEEDS if shutil.which(need) is None]
    for subject, name in ((ours or Backstay(), BACKSTAY), (QemuImg(), QCOW2)):
        if missing := subject.missing() or (name == QCOW2 and not shutil.which(QEMU_NBD)):
            lacking.append(missing if isinstance(missing, str) else QEMU_NBD)
        else:
            gathered.attempt(name, _kept, context, copies, name, subject)
    if any(need in lacking for need in NEEDS):
        note = f"left out: not installed: {', '.join(lacking)}"
        return Outcome("exported", TITLE, (), notes=(note,))
    for turn in range(context.repeat):
        gathered.add(SOCKET, capped(context, SOCKET, context.image()))
        for name in (NBDKIT, *copies):
            context.say(f"turn {turn + 1}: {name}")
            gathered.attempt(name, _one, context, gathered, name, copies.get(name), turn)
    entries = gathered.entries()

    def share(load: Load) -> float | None:
        mine, theirs = (find(entries, f"{load.name}: {name}") for name in (BACKSTAY, QCOW2))
        return ratio(
            mine.median("rate") if mine else None, theirs.median("rate") if theirs else None
        )

    return Outcome(
        scenario="exported",
        title=TITLE,
        entries=entries,
        goals=tuple(
            Goal(f"{load.name}, of {QCOW2}'s rate", share(load), GOAL, True) for load in LOADS
        ),
        notes=(
            context.image_note(),
            f"bursts of {context.scale.burst:g} s; image, vault and qcow2 in the page cache",
            *of_bytes(entries, SOCKET, BACKSTAY, [load.name for load in LOADS]),
            "afterwards all of each export was read and compared with the image",
            *(f"{name} is left out: not installed" for name in lacking),
        ),
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        columns=COLUMNS,
    )


def _kept(context: Context, copies: dict[str, Copy], name: str, subject: Subject) -> None:
    copies[name] = context.kept(subject)


def _one(context: Context, gathered: Gathered, name: str, copy: Copy | None, turn: int) -> None:
    image, folder = context.image(), context.folder("exported reads")
    warm(image, *([copy.repository] if copy else []))
    found: list[tuple[str, Sample]] = []
    with _served(copy, image) as server:
        for load in LOADS:
            before = server.cpu()
            done = put(load, server.uri, image.stat().st_size, context.scale.burst, folder, turn)
            cpu = server.cpu() - before
            found.append((load.name, Sample(done.seconds, cpu=cpu, figures=done.figures())))
        whole = folder / "whole"
        checked(Command(("nbdcopy", server.uri, str(whole))), folder)
    if gathered.check(image, whole, f"exported: what {name} served"):
        for load_name, sample in found:
            gathered.add(f"{load_name}: {name}", sample)
    shutil.rmtree(folder)


def _served(copy: Copy | None, image: Path) -> AbstractContextManager[Serving]:
    if copy is None:
        return nbdkit(image)
    if isinstance(copy, BackstayCopy):
        return _export(copy)
    return qemu_nbd(copy.repository, "qcow2", read_only=True)


@contextmanager
def _export(copy: BackstayCopy) -> Iterator[Serving]:
    """The newest point, as people export it. Raises ``CommandFailed``."""
    reach = ("--vault", copy.url, "--key", f"{copy.key}.key")

    def begin(socket: Path) -> subprocess.Popen[bytes]:
        run = copy.command("export", MACHINE, *reach, "--listen", f"unix:{socket}")
        return run.popen()

    with listening("backstay export", begin) as server:
        yield server
