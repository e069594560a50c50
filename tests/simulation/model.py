"""The reference model: what was written where in the stream, what was answered, what was flushed.

Every change of a source is recorded at the moment it happens. ``low`` is the stream's head then:
the change stands nowhere before it. ``high`` is the head when its request was answered: the change
stands before that, in the stream or, while writes are tracked, in what a scan sends. So a point at
a position holds all changes with ``high`` at or before it, none with ``low`` at or behind it, and
of the few in between, per block, the first ones or none: that is Base + a prefix.

A **life** is one start of intake. Its base is what the source holds at its beginning: after a power
cut, every flushed write and any subset of the others, per sector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from stages.model import BLOCK
from stages.stream import ORIGIN, Position
from tests.whole.platter import SECTOR

MANY = 512  # versions of one sector; more are not told apart


@dataclass(slots=True)
class Op:
    """One change: ``data`` at ``offset`` of ``disk``. ``kept``: a flush that was answered well
    covers it. ``doubtful``: an fsync failed after it, which the guest was told."""

    number: int
    disk: str
    offset: int
    data: bytes
    low: Position
    high: Position | None = None
    kept: bool = False
    doubtful: bool = False


@dataclass
class Life:
    """``first`` is its first run; ``flushed``: how far the journal must be durable.

    ``rots``: ops that nobody wrote. ``beside``: what blocks held without those of earlier lives.
    Until the scrub has come to them nobody can know of such a change, so points may hold that.
    """

    first: int
    base: dict[str, bytes]
    ops: list[Op] = field(default_factory=list)
    flushed: Position = ORIGIN
    rots: list[Op] = field(default_factory=list)
    beside: dict[tuple[str, int], frozenset[bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flush:
    """A flush under way: what was answered before it began, and where the head was."""

    head: Position
    covers: tuple[Op, ...]


class Model:
    """All lives of one machine. ``head`` is where the stream is now."""

    def __init__(self) -> None:
        self.lives: list[Life] = []
        self.head: Callable[[], Position] = lambda: ORIGIN
        self.changes = 0
        self._loose: dict[int, Op] = {}  # answered, and not covered by a flush yet
        self._since_cut: list[Op] = []
        self._at_cut: dict[str, bytes] = {}

    @property
    def life(self) -> Life:
        """The present one."""
        return self.lives[-1]

    def begin(self, run: int, sources: dict[str, bytes]) -> None:
        """Intake has started with this run, and this is what its sources hold."""
        beside = _unseen(self.life, sources) if self.lives else {}
        self.lives.append(Life(run, sources, beside=beside))
        if not self._at_cut:
            self._at_cut = sources

    def wrote(self, disk: str, offset: int, data: bytes) -> Op:
        """The source was changed."""
        op = Op(self.changes, disk, offset, data, self.head())
        self.changes += 1
        self.life.ops.append(op)
        self._since_cut.append(op)
        return op

    def rotted(self, disk: str, offset: int, data: bytes) -> None:
        """A block was changed by nobody: it may be in any point from now on, and need not."""
        self.life.rots.append(self.wrote(disk, offset, data))

    def answered(self, ops: Iterable[Op]) -> None:
        """Their request was answered."""
        for op in ops:
            op.high = self.head()
            self._loose[op.number] = op

    def flush_begins(self, disk: str) -> Flush:
        """A guest asks for a flush of a disk."""
        return Flush(self.head(), tuple(op for op in self._loose.values() if op.disk == disk))

    def flushed(self, flush: Flush, *, journalled: bool) -> None:
        """It was answered well. ``journalled``: it was not in track mode."""
        for op in flush.covers:
            op.kept = not op.doubtful
            self._loose.pop(op.number, None)
        if journalled:
            self.life.flushed = max(self.life.flushed, flush.head)

    def fsync_failed(self, disk: str) -> None:
        """The source may have lost what was not durable, and the guest will hear of it."""
        for op in self._since_cut:
            op.doubtful |= op.disk == disk and not op.kept

    def power_cut(self, sources: dict[str, bytes]) -> str:
        """The sources as the cut has left them; returns what is wrong with that, if anything."""
        wrong = ""
        for disk, now in sources.items():
            for at, versions in self._versions(disk).items():
                if versions is not None and now[at : at + SECTOR] not in versions:
                    wrong = f"{disk}: the sector at {at} holds none of its {len(versions)} versions"
        self._since_cut.clear()
        self._loose.clear()
        self._at_cut = sources
        return wrong

    def _versions(self, disk: str) -> dict[int, set[bytes] | None]:
        """What each sector written since the last cut may hold: from the newest flushed on."""
        found: dict[int, set[bytes] | None] = {}
        base = self._at_cut[disk]
        for op in self._since_cut:
            if op.disk != disk:
                continue
            end = op.offset + len(op.data)
            for at in range(op.offset // SECTOR * SECTOR, end, SECTOR):
                before = found.get(at, {base[at : at + SECTOR]})
                if before is None:
                    continue
                after = {_patched(one, at, op) for one in before}
                found[at] = after if op.kept else _few(before | after)
        return found

    def life_of(self, run: int) -> Life:
        """In which life this run was."""
        return [life for life in self.lives if life.first <= run][-1]


class Expected:
    """What points of one life must hold, asked for in the order of their positions."""

    def __init__(self, life: Life):
        self.content = {disk: bytearray(base) for disk, base in life.base.items()}
        self._beside = dict(life.beside)
        self._life = life
        self._at = 0  # ops before it are in ``content``

    def advance(self, position: Position) -> list[Op]:
        """Bring ``content`` to ``position``, as far as that is certain; returns what follows, in
        order, up to the last op that must or may be in the point."""
        ops = self._life.ops
        while self._at < len(ops) and _must(ops[self._at], position):
            op = ops[self._at]
            _apply(self.content[op.disk], op)
            for (disk, block), versions in self._beside.items():
                if disk == op.disk:
                    self._beside[disk, block] = _all_patched(versions, block, op)
            self._at += 1
        rest = ops[self._at :]
        return [op for op in rest if _must(op, position) or op.low < position]

    def versions(self, disk: str, block: int, rest: list[Op], position: Position) -> set[bytes]:
        """What one block may hold at ``position``."""
        begin = block * BLOCK
        newest = frozenset((bytes(self.content[disk][begin : begin + BLOCK]),))
        newest |= self._beside.get((disk, block), frozenset())
        found = set(newest)
        for op in rest:
            if op.disk == disk and op.offset < begin + BLOCK and begin < op.offset + len(op.data):
                newest = _all_patched(newest, block, op)
                found = set(newest) if _must(op, position) else found | newest
        return found

    def unsure(self, rest: list[Op]) -> set[tuple[str, int]]:
        """The blocks that ``rest`` touches."""
        return {
            (op.disk, block)
            for op in rest
            for block in range(op.offset // BLOCK, -(-(op.offset + len(op.data)) // BLOCK))
        }


def _unseen(life: Life, sources: dict[str, bytes]) -> dict[tuple[str, int], frozenset[bytes]]:
    """What blocks would hold at the end of a life if nothing had rotted, where that differs."""
    found = {}
    for disk, block in {*life.beside, *((op.disk, op.offset // BLOCK) for op in life.rots)}:
        place = slice(block * BLOCK, (block + 1) * BLOCK)
        versions = life.beside.get((disk, block), frozenset()) | {life.base[disk][place]}
        for op in life.ops:
            if op.disk == disk and op not in life.rots:
                versions = _all_patched(versions, block, op)
        versions -= {sources.get(disk, b"")[place]}
        if versions:
            found[disk, block] = versions
    return found


def _all_patched(versions: frozenset[bytes], block: int, op: Op) -> frozenset[bytes]:
    return frozenset(_patched(version, block * BLOCK, op) for version in versions)


def _must(op: Op, position: Position) -> bool:
    return op.high is not None and op.high <= position


def _few(versions: set[bytes]) -> set[bytes] | None:
    return versions if len(versions) <= MANY else None


def _patched(piece: bytes, begin: int, op: Op) -> bytes:
    """``piece``, which begins at ``begin``, after ``op``."""
    low, high = max(begin, op.offset), min(begin + len(piece), op.offset + len(op.data))
    if low >= high:
        return piece
    new = op.data[low - op.offset : high - op.offset]
    return piece[: low - begin] + new + piece[high - begin :]


def _apply(content: bytearray, op: Op) -> None:
    content[op.offset : op.offset + len(op.data)] = op.data
