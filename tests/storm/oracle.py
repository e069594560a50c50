"""What a file system may look like at a time, told by what was done to it.

**The clock.** All stamps are µs of one host's wall clock. A point's stamp is the time at which
intake captured the point's newest record; that time is read just before the record gets its place
in the stream.

- *Lower bound, strict*: an fsync that returned at ``t`` was answered after all its records had
  their places, and their times were read before that, so they are at most ``t``. If ``t < stamp``,
  the point's newest record was stamped later than all of them, and stands behind them. With
  ``t == stamp`` both fell into one µs, and nothing follows.
- *Upper bound, not strict*: what was begun at ``b`` is captured at ``b`` or later. If ``b > stamp``
  the point must not show it: a time asked for gives what there was at that time, no later.

A stamp may be raised by 1 µs for each commit in a row that was captured in one µs; no write passes
through a file system, two processes and an fsync in that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tests.storm.blocks import EMPTY, INVALID, TEMPORARY, file_of

NEVER = 0
FOREVER = 1 << 62  # as a time: after everything
Tree = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class State:
    """A file: its name ("" if there is none) and its blocks' generations."""

    name: str = ""
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Op:
    """An operation on one file; ``number`` is the generation that it writes.

    ``kind``: create, write, replace (by renaming a synced temporary file), rename, delete.
    ``name``: the file's from then on. ``synced``: it ends with an fsync of file and folders;
    ``done``: when that returned.
    """

    number: int
    kind: str
    file: int
    name: str
    first: int
    count: int
    synced: bool
    begun: int
    done: int = NEVER

    def covers(self, index: int) -> bool:
        """May it have written that block?"""
        writes = self.kind in ("create", "write", "replace")
        return writes and self.first <= index < self.first + self.count

    def apply(self, state: State) -> State:
        """The file afterwards."""
        if self.kind == "delete":
            return State()
        if self.kind == "rename":
            return replace(state, name=self.name)
        old = () if self.kind == "replace" else state.blocks
        size = max(len(old), self.first + self.count)
        padded = old + (EMPTY,) * (size - len(old))
        new = (self.number if self.covers(at) else was for at, was in enumerate(padded))
        return State(self.name, tuple(new))


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found after a crash, and written on from: one of the allowed states."""

    state: State
    begun: int

    def apply(self, state: State) -> State:
        """What was found."""
        return self.state


@dataclass
class History:
    """All that was done, by file, in order."""

    files: dict[int, list[Op | Seen]] = field(default_factory=dict)
    newest: int = 0
    _places: dict[int, tuple[int, int]] = field(default_factory=dict)

    def begin(self, op: Op) -> None:
        """It may have an effect from now on."""
        steps = self.files.setdefault(op.file, [])
        self._places[op.number] = op.file, len(steps)
        steps.append(op)
        self.newest = max(self.newest, op.number)

    def done(self, number: int, when: int) -> None:
        """It has returned."""
        file, at = self._places[number]
        op = self.files[file][at]
        assert isinstance(op, Op)
        self.files[file][at] = replace(op, done=when)

    def adopt(self, found: Tree, when: int) -> None:
        """Go on from what was found, which has been checked."""
        states = {file_of(name): State(name, found[name]) for name in _lasting(found)}
        for file, steps in self.files.items():
            steps.append(Seen(states.get(file, State()), when))

    def states(self) -> dict[int, State]:
        """All files as they are if everything was done."""
        found = {file: _after(steps) for file, steps in self.files.items()}
        return {file: state for file, state in found.items() if state.name}

    def durable(self, when: int = FOREVER) -> int:
        """How many operations had become durable before a time."""
        return sum(_is_durable(step, when) for steps in self.files.values() for step in steps)

    def complaints(self, found: Tree, when: int = FOREVER) -> list[str]:
        """What is wrong with a file system that was captured at ``when``."""
        by_file: dict[int, list[str]] = {}
        for name in _lasting(found):
            by_file.setdefault(file_of(name), []).append(name)
        wrong = [f"{name}: nobody made it" for name in found if file_of(name) not in self.files]
        for file, steps in self.files.items():
            names = by_file.get(file, [])
            wrong += _Expected.at(steps, when).complaints(file, names, found)
        for name in found:
            if name.endswith(TEMPORARY):
                wrong += _temporary(self.files.get(file_of(name), []), name, found[name], when)
        return wrong


@dataclass(frozen=True, slots=True)
class _Expected:
    """``base`` is durable; each of ``maybe`` may have had all, some or no effect."""

    base: State
    maybe: tuple[Op, ...]

    @staticmethod
    def at(steps: list[Op | Seen], when: int) -> _Expected:
        begun = [step for step in steps if step.begun <= when]
        durable = max((at for at, step in enumerate(begun) if _is_durable(step, when)), default=-1)
        later = (step for step in begun[durable + 1 :] if isinstance(step, Op))
        return _Expected(_after(begun[: durable + 1]), tuple(later))

    def complaints(self, file: int, names: list[str], found: Tree) -> list[str]:
        if not names:
            gone = not self.base.name or any(op.kind == "delete" for op in self.maybe)
            return [] if gone else [f"{self.base.name}: is not there"]
        if len(names) > 1:
            return [f"file {file} is there as {' and '.join(names)}"]
        (name,) = names
        allowed = {self.base.name, *(op.name for op in self.maybe)}
        if name not in allowed:
            return [f"{name}: must not be there; allowed: {sorted(allowed)}"]
        texts = list(self._content(found[name]))
        if len(texts) > 2:
            texts[1:] = [f"and {len(texts) - 1} more"]
        return (
            [f"{name}: {', '.join(texts)} (durable {self.base}, then {self.maybe})"]
            if texts
            else []
        )

    def _content(self, blocks: tuple[int, ...]) -> Iterable[str]:
        size = len(self.base.blocks)
        least = min([size, *(op.count for op in self.maybe if op.kind == "replace")])
        most = max([size, *(op.first + op.count for op in self.maybe)])
        if not least <= len(blocks) <= most:
            yield f"has {len(blocks)} blocks, not {least} to {most}"
        for at, generation in enumerate(blocks):
            allowed = {op.number for op in self.maybe if op.covers(at)}
            # Behind what is durable a file may have grown before its content was written.
            allowed.add(self.base.blocks[at] if at < size else EMPTY)
            if generation not in allowed:
                yield f"block {at} is {_word(generation)}, not of {sorted(allowed)}"


def _temporary(steps: list[Op | Seen], name: str, blocks: tuple[int, ...], when: int) -> list[str]:
    """A temporary file may be there at any time, but holds nothing of the future."""
    allowed = {step.number for step in steps if isinstance(step, Op) and step.begun <= when}
    return [
        f"{name}: block {at} is {_word(found)}"
        for at, found in enumerate(blocks)
        if found not in allowed | {EMPTY}
    ]


def _lasting(found: Tree) -> list[str]:
    return [name for name in found if not name.endswith(TEMPORARY)]


def _is_durable(step: Op | Seen, when: int) -> bool:
    return isinstance(step, Op) and step.synced and step.done != NEVER and step.done < when


def _after(steps: Iterable[Op | Seen]) -> State:
    state = State()
    for step in steps:
        state = step.apply(state)
    return state


def _word(generation: int) -> str:
    return {INVALID: "garbage", EMPTY: "empty"}.get(generation, f"of generation {generation}")
