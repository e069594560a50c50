"""The writer's own record of its log in the vault: tail, intents, block map, digests.

Durable order (R3, R11): an intent is in the write-ahead log before its commit is put; arrays are
changed only once the commit is settled; the log is cleared only after arrays and snapshot are
synced. So after a crash at any instruction, replaying the log over the arrays gives the record of
exactly the settled commits.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from stages import durable
from stages.errors import DamagedObject, StateDamaged
from stages.model import U64, Disk
from stages.ports import Machine
from stages.ship.record import Record
from stages.ship.snapshot import MAX_SIZE, Snapshot, Tail
from stages.ship.trouble import state_call
from stages.ship.wal import Intent, Wal
from stages.vault.commit import Header, SegmentIndex, decode_body, read_header
from stages.vault.container import Kind, parse
from stages.vault.paged import PagedArray
from stages.vault.sealing import Scope

__all__ = ["WAL_LIMIT", "Ledger", "Tail"]

WAL_LIMIT = 32 << 20
_ARRAYS = ("disk-", "epoch-")  # names of the arrays' files


class Ledger:
    """The record of one group. Calls block (file I/O); the caller serialises them.

    What the file system refuses is raised as ``NoSpace`` or ``StateError``; then the ledger is of
    no use any more, and the next one goes on from what is durable.
    """

    @state_call("open state")
    def __init__(self, machine: Machine, folder: str, scope: Scope):
        self.folder = folder
        files = machine.files
        self._files = files
        self._entropy = machine.entropy
        self._lock = machine.offload.lock()  # a scan reads digests while commits settle
        self._scope = scope
        self.tail = Tail()
        self.disks: dict[int, Disk] = {}
        self.machine = 0  # number of the machine record in force
        self.next_disk = 0  # disk numbers are never used again
        self.record = Record(files, folder)
        self.tables: dict[str, U64] = {}  # page tables of the last checkpoint
        self.epoch_rows: dict[int, int] = {}  # frames of epochs whose directory is closed
        self.pending: dict[int, list[Intent]] = {}
        self._wal = Wal(files.open_append(f"{folder}/wal"))
        self._news = True  # something that only the log has, or nothing at all

    @state_call("recover state")
    def recover(self) -> None:
        """Load the snapshot; hold intents back until ``settle`` says what became of them.

        Raises ``StateDamaged``, ``StateError``, ``NoSpace``.
        """
        path = f"{self.folder}/snapshot"
        known = self._files.stat(path) is not None
        if known:
            data = self._files.read(path, MAX_SIZE)
            try:
                self._load(Snapshot.decode(data, path))
            except (DamagedObject, ValueError, KeyError) as error:
                raise StateDamaged(
                    error.message if isinstance(error, DamagedObject) else str(error),
                    operation="recover state",
                    subject=path,
                    hint="move the machine's state folder away: the next run begins a new base",
                ) from None
        for intent in self._wal.recover():
            if intent.seq > self.tail.seq:
                self.pending.setdefault(intent.seq, []).append(intent)
        self._news = not known or self._wal.size > 0
        self._sweep()

    @state_call("keep disks")
    def set_disks(self, machine: int, disks: tuple[Disk, ...]) -> None:
        """The geometry in force from now on; durable at once."""
        self._news = True
        self.machine = machine
        self.disks = {disk.number: disk for disk in disks}
        for disk in disks:
            self.record.open_disk(disk)
            self.next_disk = max(self.next_disk, disk.number + 1)
        self.record.keep_disks(self.disks)
        self.checkpoint_state()
        self._sweep()  # only now: until then a crash leads back to the disks of before

    @state_call("begin a branch")
    def begin_branch(self, parent: Header, link: bytes, disks: tuple[Disk, ...]) -> None:
        """The record of a new group that goes on from a commit of another, and that one's link.

        Its epochs and stamps go on above that commit's. What its disks hold is told with
        ``inherit``; nothing is durable before ``checkpoint_state``.
        """
        self._news = True
        self.tail = Tail(link=link, epoch=parent.epoch, stamp=parent.stamp)
        self.disks = {disk.number: disk for disk in disks}
        for disk in disks:
            self.record.open_disk(disk)
            self.next_disk = max(self.next_disk, disk.number + 1)

    @state_call("begin a branch")
    def inherit(self, disk: int, first: int, locations: U64, digests: U64) -> None:
        """Blocks from ``first`` on are at ``locations`` (n,) and have ``digests`` (n, 2)."""
        self._news = True
        record = self.record.disks[disk]
        record.map.write(first, locations.reshape(-1, 1))
        record.digests.write(first, digests)

    @state_call("keep an intent")
    def intend(self, intent: Intent) -> None:
        """Write an intent down, durably, before its put (R11)."""
        if self._wal.size > WAL_LIMIT:
            self.checkpoint_state()
        self._news = True
        self._wal.append(intent)
        self.pending.setdefault(intent.seq, []).append(intent)

    def intent_of(self, seq: int, object_digest: bytes) -> Intent | None:
        """The intent that this object fulfils, if it is one of ours."""
        for intent in self.pending.get(seq, ()):
            if intent.object_digest == object_digest:
                return intent
        return None

    @state_call("settle a commit")
    def settle(self, intent: Intent) -> Header:
        """The commit of ``intent`` is in the vault: fold it into the arrays, move the tail."""
        self._news = True
        header, segments = self._meaning(intent)
        with self._lock:
            self.record.apply(
                header, segments, intent.digests, intent.ref_digests, intent.ref_locations
            )
            for chunk in intent.chunks:
                if chunk.disk in self.record.disks:
                    self.record.disks[chunk.disk].set_chunks(chunk.first, chunk.digests)
        self.tail = replace(
            self.tail,
            seq=intent.seq,
            link=intent.link,
            epoch=intent.epoch,
            next_frame=header.first_frame + header.frames,
            last_consistent=intent.seq if header.consistent else header.last_consistent,
            stamp=header.stamp,
            stream=intent.stream or self.tail.stream,
            stored=self.tail.stored + _size(intent) + sum(ref.size for ref in header.objects),
        )
        for seq in [seq for seq in self.pending if seq <= intent.seq]:
            del self.pending[seq]
        return header

    @state_call("forget digests")
    def doubt_pending(self) -> None:
        """Know nothing of the blocks named in intents whose commit is not in the vault (R3).

        An earlier life may have settled one of them before the vault lost it.
        """
        self._news = self._news or bool(self.pending)
        with self._lock:
            for intents in self.pending.values():
                for intent in intents:
                    self.record.doubt(*self._meaning(intent))

    @state_call("look up references")
    def resolve(self, header: Header, segments: tuple[SegmentIndex, ...]) -> U64:
        """Locations (m, 1) of what the references of the next commit stand for."""
        return self.record.resolve(header, segments)

    @state_call("note a checkpoint")
    def checkpointed(self, seq: int, tables: dict[str, U64]) -> None:
        """A checkpoint at ``seq``, the tail, is complete in the vault."""
        self._news = True
        self.tables = tables
        for record in self.record.disks.values():
            record.dirty.flags[:] = False
        self.tail = replace(self.tail, checkpoint=seq, stored=0)
        ended = [epoch for epoch in self.record.frames if epoch != self.tail.epoch]
        for epoch in ended:
            self.epoch_rows[epoch] = self.record.close_frames(epoch)
        self.checkpoint_state()
        self._sweep()

    @state_call("keep state")
    def checkpoint_state(self) -> None:
        """Sync all arrays and the snapshot, then clear the log, unless intents are open in it.

        Costs ten fsyncs, or nothing where all is durable already.
        """
        if not self._news:
            return
        with self._lock:
            tables = {name: array.sync() for name, array in self.record.arrays()}
        data = self._snapshot(tables).encode()
        token = self._entropy.token(8).hex()
        durable.replace(self._files, f"{self.folder}/snapshot", data, token=token)
        if not self.pending:
            self._wal.clear()
            self._news = False

    @state_call("read digests")
    def blocks(self, disk: int, first: int, count: int) -> U64:
        """Digests (count, 2) of blocks as the vault has them at its committed position."""
        with self._lock:
            return self.record.disks[disk].digests.read(first, count)

    @state_call("read digests")
    def chunks(self, disk: int, first: int, count: int) -> U64:
        """Digests (count, 2) of chunks, unknown where only single blocks are known."""
        with self._lock:
            return self.record.disks[disk].chunks.read(first, count)

    @state_call("read the block map")
    def rows(self, array: PagedArray, first: int, count: int) -> tuple[int, ...] | U64:
        """Rows of one of the arrays: the one row that all equal, or (count, columns)."""
        with self._lock:
            row = array.uniform(first, count)
            return array.read(first, count) if row is None else row

    def close(self) -> None:
        """Release all files. Nothing depends on it: what counts was synced before."""
        self.record.close()
        with suppress(OSError):
            self._wal.close()

    def _meaning(self, intent: Intent) -> tuple[Header, tuple[SegmentIndex, ...]]:
        found = parse(intent.head, "intent", Kind.COMMIT)
        header = read_header(found, self._scope, intent.seq)
        return header, decode_body(intent.plain, header, "intent")

    def _sweep(self) -> None:
        """Remove files of disks and epochs that have gone, and what killed writers left."""
        known = {array.path for _, array in self.record.arrays()}
        for name in self._files.listdir(self.folder):
            path = f"{self.folder}/{name}"
            if name.startswith(_ARRAYS) and path not in known:
                self._files.unlink(path)
        durable.sweep(self._files, self.folder)

    def _snapshot(self, arrays: dict[str, bytes]) -> Snapshot:
        return Snapshot(
            tail=self.tail,
            machine=self.machine,
            next_disk=self.next_disk,
            disks=tuple(self.disks.values()),
            dirty={number: self.record.disks[number].dirty.flags for number in self.disks},
            epochs=tuple(self.record.frames),
            ended=self.epoch_rows,
            arrays=arrays,
            pages=self.tables,
        )

    def _load(self, found: Snapshot) -> None:
        self.tail = found.tail
        self.machine = found.machine
        self.next_disk = found.next_disk
        self.epoch_rows = found.ended
        self.tables = found.pages
        for disk in found.disks:
            self.disks[disk.number] = disk
            self.record.open_disk(disk).dirty.flags = found.dirty[disk.number]
        for epoch in found.epochs:
            self.record.open_frames(epoch)
        for name, array in self.record.arrays():
            array.restore(found.arrays[name])


def _size(intent: Intent) -> int:
    """Bytes of the commit's object."""
    return parse(intent.head, "intent", Kind.COMMIT).size
