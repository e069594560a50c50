"""What the rolling scrub remembers across restarts: a small file that is replaced as a whole.

Nothing depends on it but how far the present pass is: without it, or if it cannot be read, a pass
begins anew.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import partial

from stages import durable
from stages.errors import BackstayError
from stages.ports import Machine

_MOST = 64 << 10  # bytes


@dataclass
class Note:
    """``disk``, ``region``: the next to look at. Times in µs since 1970, 0 for never; the others
    are counts of blocks: ``mismatches`` of all passes, ``doubted`` of this and the last one,
    ``unproven`` in this one (written meanwhile, or not known of the vault)."""

    disk: int = 0
    region: int = 0
    passes: int = 0
    began_us: int = 0
    completed_us: int = 0  # the last pass that looked at everything
    clean_us: int = 0  # when the last pass began that found nothing
    mismatches: int = 0
    found_now: int = 0
    found_before: int = 0
    unproven: int = 0
    last: str = ""
    last_us: int = 0

    @property
    def doubted(self) -> int:
        """Blocks found to differ since the last pass that found nothing."""
        return self.found_now + self.found_before

    def pass_ends(self, wall_us: int) -> None:
        """Everything was looked at once."""
        if not self.found_now:
            self.clean_us = self.began_us
        self.passes += 1
        self.completed_us = wall_us
        self.found_before, self.found_now, self.unproven = self.found_now, 0, 0
        self.disk = self.region = self.began_us = 0


class NoteFile:
    """Where the note is kept."""

    def __init__(self, machine: Machine, path: str):
        self._machine = machine
        self._path = path

    async def load(self) -> Note:
        """A new one if there is none that can be read."""
        return await self._machine.offload.run(self._load)

    async def save(self, note: Note) -> None:
        """Durably. ``OSError``, ``BackstayError``."""
        token = self._machine.entropy.token(8).hex()
        data = json.dumps(asdict(note)).encode()
        replace = partial(durable.replace, self._machine.files, self._path, data, token=token)
        await self._machine.offload.run(replace)

    def _load(self) -> Note:
        try:
            if self._machine.files.stat(self._path) is None:
                return Note()
            found = json.loads(self._machine.files.read(self._path, _MOST))
        except (OSError, ValueError, BackstayError):
            return Note()
        if not isinstance(found, dict):
            return Note()
        note = Note()
        for one in fields(Note):
            value = found.get(one.name, one.default)
            if type(value) is not type(one.default) or (isinstance(value, int) and value < 0):
                return Note()
            setattr(note, one.name, value)
        return note
