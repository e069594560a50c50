"""The daemon's state folder: its lock, its signing key, one folder for each machine and vault."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from stages import durable
from stages.crypto.sign import Signer
from stages.errors import StateDamaged, StateError, StateLocked
from stages.ports import Files, Machine, OpenFile
from stages.ship.trouble import in_words

_MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """Which group of the vault a machine's state belongs to, and the group's digest key."""

    group: bytes
    digest_key: bytes


class StateFolder:
    """An opened and locked state folder. Close it to release the lock."""

    def __init__(self, machine: Machine, path: str, lock: OpenFile | None):
        self._machine = machine
        self._files: Files = machine.files
        self.path = path
        self._lock = lock

    @staticmethod
    def open(machine: Machine, path: str, *, lock: bool = True) -> StateFolder:
        """Create the folder if it is missing (mode 0700) and lock it; or only look, without lock.

        Raises ``StateLocked`` if another process has it, ``StateError`` if it cannot be used.
        """
        if not lock:
            return StateFolder(machine, path, None)
        with in_words("open state", path):
            durable.make_dirs(machine.files, path)
            held = machine.files.open_write(f"{path}/lock", create=True)
            try:
                if held.lock():
                    _settle(machine.files, path)
                    return StateFolder(machine, path, held)
            except BaseException:
                _release(held)
                raise
            _release(held)
        raise StateLocked(
            "another Backstay process is using it",
            operation="open state",
            subject=path,
            hint="wait for that run to end, or give this config a state folder of its own",
        )

    def signer(self) -> Signer:
        """The daemon's signing key, made on first use."""
        path = f"{self.path}/writer.key"
        if not self._is_there(path):
            fresh = self._machine.entropy.token(32).hex()
            self._write(path, {"backstay": "writer key", "version": 1, "seed": fresh})
        fields = self._read(path)
        try:
            seed = bytes.fromhex(fields["seed"])
        except (KeyError, TypeError, ValueError):
            seed = b""
        if len(seed) != 32:
            raise self._damaged(path)
        return Signer(seed)

    def machine_folder(self, name: str, vault: bytes) -> str:
        """Where the record of one machine in one vault is kept; created."""
        path = f"{self.path}/machines/{name}/{vault.hex()}"
        with in_words("open state", path):
            durable.make_dirs_below(self._files, self.path, path, set())
            durable.sweep(self._files, durable.parent(path))
        return path

    def record_of(self, name: str, vault: bytes) -> bytes | None:
        """The group that this folder has a record in force of, for a machine in a vault."""
        path = f"{self.path}/machines/{name}/{vault.hex()}"
        return self.identity(path).group if self._is_there(f"{path}/identity") else None

    def new_machine_folder(self, name: str, vault: bytes, *, retire: bool) -> str:
        """An empty folder in which a record of a machine is made that is not in force yet.

        Raises ``StateError`` if there is one in force, unless that is to ``retire``.
        """
        taken = f"{self.path}/machines/{name}/{vault.hex()}"
        if self._files.listdir(taken) and not retire:
            raise StateError(
                "this state folder protects the machine in this vault already",
                operation="begin branch",
                subject=taken,
                hint="if that is over, move this folder away; earlier points stay restorable",
            )
        path = self._coming(name, vault)
        with in_words("open state", path):
            durable.make_dirs_below(self._files, self.path, path, set())
            for file in self._files.listdir(path):  # what an interrupted attempt has left
                self._files.unlink(f"{path}/{file}")
        return path

    def keep_identity(self, folder: str, identity: Identity) -> None:
        """Say which group a folder writes."""
        fields = {"group": identity.group.hex(), "digest_key": identity.digest_key.hex()}
        self._write(f"{folder}/identity", fields)

    def take_machine_folder(self, name: str, vault: bytes) -> None:
        """Put the record made in a new folder in force. Whoever does holds the machine.

        One that was in force is kept beside it, under ``retired``. First a note says so: cut short
        at any step, ``finish_exchange`` finishes it, and before that nobody begins another record.
        """
        group = self.identity(self._coming(name, vault)).group
        self.note(_exchange(name), {"vault": vault.hex(), "group": group.hex()})
        self._exchange(name, vault)

    def exchange(self, name: str) -> tuple[bytes, bytes] | None:
        """The vault of which a machine's record is being exchanged, and the group that it goes on
        with; None if none is."""
        found = self.noted(_exchange(name))
        if found is None:
            return None
        try:
            return bytes.fromhex(found["vault"]), bytes.fromhex(found["group"])
        except (KeyError, TypeError, ValueError):
            raise self._damaged(f"{self.path}/{_exchange(name)}") from None

    def finish_exchange(self, name: str) -> None:
        """What was begun is done. Whoever calls this holds the machine; again it does nothing."""
        found = self.exchange(name)
        if found is None:
            return
        self._exchange(name, found[0])
        with in_words("keep state", self.path):
            durable.remove(self._files, f"{self.path}/{_exchange(name)}")

    def _exchange(self, name: str, vault: bytes) -> None:
        path, coming = f"{self.path}/machines/{name}/{vault.hex()}", self._coming(name, vault)
        with in_words("keep state", path):
            if self._files.stat(coming) is None:  # it has its name already
                return
            above = durable.parent(path)
            durable.make_dirs_below(self._files, self.path, above, set())
            if self._files.listdir(path):
                before = self.identity(path).group.hex()
                kept = f"{self.path}/retired/{name}-{vault.hex()}-{before}"
                durable.make_dirs_below(self._files, self.path, durable.parent(kept), set())
                self._files.rename(path, kept)
                self._files.sync_dir(durable.parent(kept))
                self._files.sync_dir(above)
            self._files.rename(coming, path)
            self._files.sync_dir(above)
            self._files.sync_dir(f"{self.path}/branching")

    def _coming(self, name: str, vault: bytes) -> str:
        return f"{self.path}/branching/{name}-{vault.hex()}"

    def journal_folder(self, name: str) -> str:
        """Where the journal of a machine that is captured live is."""
        return f"{self.intake_folder(name)}/journal"

    def intake_folder(self, name: str) -> str:
        """Where intake keeps what it must remember of a machine."""
        return f"{self.path}/intake/{name}"

    def identity(self, folder: str) -> Identity:
        """The group this folder writes; a new random one on first use."""
        path = f"{folder}/identity"
        if not self._is_there(path):
            entropy = self._machine.entropy
            fields = {"group": entropy.token(16).hex(), "digest_key": entropy.token(32).hex()}
            self._write(path, fields)
        fields = self._read(path)
        try:
            found = Identity(bytes.fromhex(fields["group"]), bytes.fromhex(fields["digest_key"]))
        except (KeyError, TypeError, ValueError):
            raise self._damaged(path) from None
        if len(found.group) != 16 or len(found.digest_key) != 32:
            raise self._damaged(path)
        return found

    def note(self, path: str, fields: dict[str, Any]) -> None:
        """Durably keep a small JSON note (last run, last drill) at ``path`` below the folder."""
        self._write(f"{self.path}/{path}", fields)

    def noted(self, path: str) -> dict[str, Any] | None:
        """The note at ``path``, or None if there is none."""
        full = f"{self.path}/{path}"
        return self._read(full) if self._is_there(full) else None

    def machine_vaults(self, name: str) -> list[str]:
        """Ids of the vaults that this folder has a record of a machine for."""
        return self._files.listdir(f"{self.path}/machines/{name}")

    def used_by(self, name: str) -> int:
        """Bytes on disk of a machine's records."""
        used = 0
        for vault in self.machine_vaults(name):
            folder = f"{self.path}/machines/{name}/{vault}"
            found = [self._files.stat(f"{folder}/{file}") for file in self._files.listdir(folder)]
            used += sum(stat.allocated for stat in found if stat is not None)
        return used

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            _release(self._lock)

    def _is_there(self, path: str) -> bool:
        with in_words("open state", path):
            return self._files.stat(path) is not None

    def _write(self, path: str, fields: dict[str, Any]) -> None:
        data = json.dumps(fields, indent=1).encode() + b"\n"
        with in_words("keep state", path):
            durable.make_dirs(self._files, durable.parent(path))
            durable.replace(self._files, path, data, token=self._machine.entropy.token(8).hex())

    def _read(self, path: str) -> dict[str, Any]:
        with in_words("open state", path):
            data = self._files.read(path, _MAX_FILE)
        try:
            fields = json.loads(data)
        except ValueError:
            raise self._damaged(path) from None
        if not isinstance(fields, dict):
            raise self._damaged(path)
        return fields

    @staticmethod
    def _damaged(path: str) -> StateDamaged:
        return StateDamaged(
            "cannot be read as what it should be",
            operation="open state",
            subject=path,
            hint="put back the file from a copy, or move the folder away: the next run then "
            "begins a new base, and all earlier points stay restorable",
        )


def _exchange(name: str) -> str:
    """The note that says that a machine's record is being exchanged."""
    return f"exchanges/{name}"


def _settle(files: Files, path: str) -> None:
    """Make durable what an earlier life may have made and not synced; remove what it left."""
    files.sync_dir(path)
    durable.sweep(files, path)
    with suppress(OSError):  # a folder above that cannot be opened is somebody else's
        files.sync_dir(durable.parent(path))


def _release(lock: OpenFile) -> None:
    """Closing unlocks, whatever it returns."""
    with suppress(OSError):
        lock.close()
