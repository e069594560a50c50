"""What the API, and through it the command line, may ask of the supervisor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from pipeline.control.model import Caller, JobAction, Operation, Stake
from pipeline.control.views import DaemonView, EventView, JobView, MachineView


class Control(Protocol):
    """The supervisor, seen from outside. Views are immutable and cost nothing to make; errors are
    ``BackstayError`` (``NotFound``, ``IllegalOperation`` naming the state and what is allowed).

    ``operate``, ``act`` and ``reload`` write the audit themselves, whatever comes of them; what is
    refused before it reaches them is audited by whoever refuses it."""

    def daemon(self) -> DaemonView:
        """The daemon as a whole."""

    def machines(self) -> Sequence[MachineView]:
        """All machines, by name."""

    def machine(self, name: str) -> MachineView:
        """One machine. ``NotFound``."""

    async def stake(
        self, operation: Operation, machine: str, parameters: Mapping[str, Any]
    ) -> Stake:
        """What ``operate`` would do now: a dry run. Raises what ``operate`` would."""

    async def operate(
        self,
        operation: Operation,
        machine: str,
        parameters: Mapping[str, Any],
        caller: Caller,
    ) -> JobView | None:
        """Begin an operation; the job that carries it out, or None if it is done already.

        Durable on return: a daemon that is killed goes on with it. ``IllegalOperation``, also for
        a machine that has a job which excludes it; ``UsageError`` for parameters. A job bears
        ``caller.key``.
        """

    async def jobs(
        self, *, machine: str = "", active: bool = False, before: int = 0, limit: int = 100
    ) -> Sequence[JobView]:
        """Jobs, newest first; ``before``: with lower ids than this."""

    async def job(self, number: int) -> JobView:
        """One job. ``NotFound``."""

    async def act(self, number: int, action: JobAction, note: str, caller: Caller) -> JobView:
        """Cancel, restart or resume a job. ``IllegalOperation`` names what is allowed."""

    async def events(
        self, *, machine: str = "", after: int = 0, limit: int = 100
    ) -> Sequence[EventView]:
        """Events with higher ids than ``after``, oldest first."""

    def follow(self, *, after: int = 0) -> AsyncIterator[EventView]:
        """Events from ``after`` on, and those to come; a follower that is too slow is cut off."""

    async def audit(self, *, before: int = 0, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        """The audit chain, newest first, each with its digest and the one before."""

    async def reload(self, caller: Caller) -> Sequence[str]:
        """Read the configuration again; what changed, a line each. ``ConfigError``: nothing."""
