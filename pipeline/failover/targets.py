"""Where a replica is offered: the ``Target`` port, and its first two kinds.

``export`` only says where the disks are; ``command`` hands them to a script. What boots a machine
from them comes in through the same port.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

import trio

from pipeline.commands import run_command
from stages.errors import TargetError

TIMEOUT = 300.0
_MAX_LINES = 200


@dataclass(frozen=True, slots=True)
class ReplicaDisk:
    """A disk of a replica: where NBD clients find it; bytes."""

    name: str
    size: int
    uri: str


@dataclass(frozen=True, slots=True)
class Replica:
    """A served point. ``branch``: the group that the failover opened, "" for a test.

    ``folder`` holds what the replica writes; ``stamp`` in µs.
    """

    machine: str
    group: str
    branch: str
    point: int
    stamp: int
    planned: bool
    test: bool
    folder: str
    disks: tuple[ReplicaDisk, ...]

    def as_fields(self, action: str) -> dict[str, object]:
        """For JSON. ``action``: ``start`` or ``stop``."""
        return {"action": action} | asdict(self)


class Target(Protocol):
    """Makes use of a replica that is being served, from ``start`` to ``stop``.

    ``start`` returns when the replica is in use, or raises ``TargetError``: then serving ends.
    ``stop`` is called while the disks are still served; it bounds itself.
    """

    async def start(self, replica: Replica) -> None:
        """The disks accept connections."""

    async def stop(self, replica: Replica) -> None:
        """They will not much longer."""


@dataclass(frozen=True)
class ExportTarget:
    """Offers the sockets and leaves the rest to a person."""

    tell: Callable[[Replica], None]

    async def start(self, replica: Replica) -> None:
        """Say where the disks are."""
        self.tell(replica)

    async def stop(self, replica: Replica) -> None:
        """Nothing was started."""


@dataclass(frozen=True)
class CommandTarget:
    """Runs a program with the sockets and the list of disks, as JSON on its standard input.

    And in its environment: ``BACKSTAY_ACTION`` (``start``, ``stop``), ``BACKSTAY_MACHINE``,
    ``BACKSTAY_BRANCH``, ``BACKSTAY_POINT``, ``BACKSTAY_TEST`` (0 or 1), ``BACKSTAY_FOLDER``,
    ``BACKSTAY_DISKS`` (names), and ``BACKSTAY_DISK_<n>`` for the URI of each, from 0. It has to end
    within ``timeout`` seconds; what it leaves running keeps running. ``log`` gets the last of what
    it printed, line by line.
    """

    command: str
    log: Callable[[str], None]
    timeout: float = TIMEOUT
    tell: Callable[[Replica], None] | None = None  # once it has started

    async def start(self, replica: Replica) -> None:
        """Run it with ``start``. Raises ``TargetError`` if it fails or hangs."""
        await self._run(replica, "start")
        if self.tell is not None:
            self.tell(replica)

    async def stop(self, replica: Replica) -> None:
        """Run it with ``stop``; its failure is logged, the disks end all the same."""
        try:
            await self._run(replica, "stop")
        except TargetError as error:
            self.log(f"{error} ({error.hint})" if error.hint else str(error))

    async def _run(self, replica: Replica, action: str) -> None:
        given = json.dumps(replica.as_fields(action)).encode()
        try:
            with trio.fail_after(self.timeout):
                code, said = await run_command(
                    self.command, os.environ | environment(replica, action), given
                )
        except trio.TooSlowError:
            raise self._failed(
                action, f"took longer than {self.timeout:g} s and was ended"
            ) from None
        except OSError as error:
            raise self._failed(action, f"cannot be run: {error.strerror}") from None
        for line in said.splitlines()[-_MAX_LINES:]:
            self.log(f"{action}: {line}")
        if code:
            raise self._failed(action, f"failed with exit code {code}: {said[-500:]}")

    def _failed(self, action: str, what: str) -> TargetError:
        return TargetError(
            f"the target's command {what}",
            operation=f"{action} replica",
            subject=self.command,
            hint="the failover stands as it is recorded: mend the command, then give 'backstay "
            "failover serve' again; what the replica wrote is kept",
        )


def environment(replica: Replica, action: str) -> dict[str, str]:
    """What a command finds in its environment, beside what this process has."""
    found = {
        "BACKSTAY_ACTION": action,
        "BACKSTAY_MACHINE": replica.machine,
        "BACKSTAY_BRANCH": replica.branch,
        "BACKSTAY_POINT": str(replica.point),
        "BACKSTAY_TEST": str(int(replica.test)),
        "BACKSTAY_FOLDER": replica.folder,
        "BACKSTAY_DISKS": " ".join(disk.name for disk in replica.disks),
    }
    return found | {f"BACKSTAY_DISK_{at}": disk.uri for at, disk in enumerate(replica.disks)}
