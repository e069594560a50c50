"""How a site's replicas stand, as files beside their records tell whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.site.config import Replica, SiteConfig
from stages import durable
from stages.errors import BackstayError
from stages.ports import Files, Machine
from stages.replica import record
from stages.replica.record import Record

TROUBLE = "trouble"  # the last error, while it lasts
NOTES = "notes"  # what to know about the choice of the last goal, a line each
_MAX_TEXT = 16 << 10


@dataclass(frozen=True, slots=True)
class Standing:
    """A replica as it is. ``trouble``: the last error, if it was not got over yet; ``notes``: about
    the choice of the point where it should be, when it was looked for last."""

    machine: str
    folder: str
    record: Record | None
    trouble: str
    notes: tuple[str, ...]


def standing(files: Files, config: SiteConfig) -> list[Standing]:
    """All replicas as they are now. Blocks."""
    found = []
    for machine, settings in config.replicas.items():
        trouble, notes, kept = "", "", None
        try:
            trouble = _read(files, f"{settings.path}/{TROUBLE}")
            notes = _read(files, f"{settings.path}/{NOTES}")
            kept = record.read(files, settings.path)
        except (BackstayError, OSError) as error:
            trouble = trouble or str(error)
        found.append(Standing(machine, settings.path, kept, trouble, tuple(notes.splitlines())))
    return found


def note(ports: Machine, settings: Replica, text: str) -> None:
    """Keep the last error where ``standing`` finds it; "" forgets it. Blocks, best effort."""
    _keep(ports, f"{settings.path}/{TROUBLE}", text)


def keep_notes(ports: Machine, settings: Replica, notes: Sequence[str]) -> None:
    """The same for notes. A long list is cut. Blocks, best effort."""
    lines = (" ".join(each.splitlines()) for each in notes)
    _keep(ports, f"{settings.path}/{NOTES}", "\n".join(lines))


def _read(files: Files, path: str) -> str:
    if files.stat(path) is None:
        return ""
    return files.read(path, _MAX_TEXT).decode(errors="replace")


def _keep(ports: Machine, path: str, text: str) -> None:
    files, folder = ports.files, path.rpartition("/")[0]
    try:
        if text:
            durable.make_dirs(files, folder)
            data = text.encode()[:_MAX_TEXT]
            durable.replace(files, path, data, token=ports.entropy.token(8).hex())
        elif files.stat(path) is not None:
            durable.remove(files, path)
    except OSError:
        return  # it is in the log as well
