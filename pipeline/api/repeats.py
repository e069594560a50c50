"""A request that is sent again because its answer was lost begins nothing a second time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from pipeline.api.problems import FieldProblem, Refused, refuse
from pipeline.control.views import JobView

HEADER = "idempotency-key"
_MAX_KEY = 128


@dataclass(slots=True)
class _Entry:
    fingerprint: bytes
    done: trio.Event = field(default_factory=trio.Event)
    answers: list[JobView | None] = field(default_factory=list)


class Repeats:
    """The answers to the newest requests that bore a key; each person's keys are their own."""

    def __init__(self, limit: int):
        self._limit = limit
        self._known: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    async def once(
        self, who: str, key: str, fingerprint: bytes, begin: Callable[[], Awaitable[JobView | None]]
    ) -> tuple[JobView | None, bool]:
        """The answer of ``begin``, and whether it was given before. Two at the same moment: one
        begins, the other waits for its answer. What fails is forgotten, and may be tried again."""
        while (entry := self._known.get((who, key))) is not None:
            if entry.fingerprint != fingerprint:
                raise used_for_another()
            await entry.done.wait()
            if entry.answers:
                return entry.answers[0], True
        entry = self._known[(who, key)] = _Entry(fingerprint)
        try:
            entry.answers.append(await begin())
        finally:
            entry.done.set()
            if not entry.answers:
                del self._known[(who, key)]
            self._forget()
        return entry.answers[0], False

    def _forget(self) -> None:
        """The oldest go; those under way are fewer than there may be connections."""
        for each in [each for each, entry in self._known.items() if entry.done.is_set()]:
            if len(self._known) <= self._limit:
                return
            del self._known[each]


def checked_key(value: str) -> str:
    """A key as it may be. ``Refused`` 422."""
    if len(value) <= _MAX_KEY and value.isascii() and value.isprintable():
        return value
    raise _refused(f"is not at most {_MAX_KEY} printable ASCII characters")


def used_for_another() -> Refused:
    """422 for a key that belongs to another request."""
    return _refused("was used for another request: only a repetition may use it again")


def _refused(message: str) -> Refused:
    problem = FieldProblem(field="Idempotency-Key", message=message)
    return refuse(422, f"Idempotency-Key {message}", errors=[problem])
