"""Files in memory with a page cache: what was not synced may be lost, or torn, when power fails.

Names become durable with ``sync_dir``, content with ``fsync`` or ``fdatasync``. Of what is not
durable ``power_cut`` keeps, by seed: of the changes of a folder's names a prefix, as a journalling
file system does; of the writes to a file any, all or none, each possibly torn at 512 bytes.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Sequence

import numpy as np

from stages.durable import parent
from stages.model import BLOCK
from stages.ports import Buffer, FileStat
from tests.whole.platter import Node


class MemFiles:
    """The file system, shared by all processes that ever run on it."""

    def __init__(self) -> None:
        self.names: dict[str, Node | None] = {"/": None}  # None: a folder
        self._durable: dict[str, Node | None] = {"/": None}
        self._pending: dict[str, list[tuple[str, Node | None, bool]]] = {}
        self._numbers = 0
        self.opened: list[str] = []  # paths of what is open now

    def put(self, path: str, data: bytes, *, sparse: bool = True) -> None:
        """Write a whole file, durably: what the test itself does."""
        node = self.names.get(path)
        if node is None:
            node = self._new()
            self.names[path] = self._durable[path] = node
        if node.data != data:
            node.data, node.durable = bytearray(data), bytearray(data)
            node.changes += 1
        node.sparse = sparse

    def power_cut(self, seed: int) -> None:
        """Forget what was not synced, but for what luck has kept."""
        dice = random.Random(seed)
        for changes in self._pending.values():
            for name, node, there in changes[: dice.randrange(len(changes) + 1)]:
                self._settle(name, node, there)
        self._pending.clear()
        for name in sorted(self._durable):
            if name != "/" and self._durable.get(parent(name), self) is not None:
                del self._durable[name]  # its folder is gone
        self.names = dict(self._durable)
        for name in sorted(self.names):
            found = self.names[name]
            if found is not None:
                found.lose_power(dice)

    def process_died(self) -> None:
        """The page cache outlives a process, its locks and descriptors do not."""
        self.opened.clear()
        for node in self.names.values():
            if node is not None:
                node.holder = None

    def copy_tree(self, source: str, target: str) -> None:
        """Copy a folder durably, as a person does who clones a machine."""
        for name, node in sorted(self.names.items()):
            if name == source or name.startswith(f"{source}/"):
                path = target + name[len(source) :]
                if node is None:
                    self.names[path] = self._durable[path] = None
                else:
                    self.put(path, bytes(node.data), sparse=node.sparse)

    def open_read(self, path: str, *, exclusive: bool = False, direct: bool = False) -> MemFile:
        return MemFile(self, self._node(path), path)

    def open_write(
        self,
        path: str,
        *,
        create: bool = False,
        new: bool = False,
        exclusive: bool = False,
        direct: bool = False,
    ) -> MemFile:
        if new and path in self.names:
            raise _error(errno.EEXIST, path)
        if path not in self.names and (new or create):
            self._create(path)
        return MemFile(self, self._node(path), path, direct=direct)

    def open_append(self, path: str) -> MemFile:
        if path not in self.names:
            self._create(path)
        return MemFile(self, self._node(path), path, append=True)

    def scratch(self, directory: str | None = None) -> MemFile:
        return MemFile(self, self._new(), "(scratch)")

    def read(self, path: str, limit: int) -> bytes:
        data = bytes(self._node(path).data)
        if len(data) > limit:
            raise _error(errno.EFBIG, path)
        return data

    def stat(self, path: str) -> FileStat | None:
        if path not in self.names:
            return None
        return _stat(self.names[path])

    def listdir(self, path: str) -> list[str]:
        return sorted(
            name[len(path.rstrip("/")) + 1 :]
            for name in self.names
            if name != "/" and parent(name) == path
        )

    def mkdir(self, path: str) -> None:
        if path not in self.names:
            self._require_folder(parent(path))
            self._change(path, None, there=True)

    def link(self, source: str, target: str) -> bool:
        if target in self.names:
            return False
        self._require_folder(parent(target))
        self._change(target, self._node(source), there=True)
        return True

    def rename(self, source: str, target: str) -> None:
        node = self._node(source)
        if parent(source) != parent(target):
            raise _error(errno.EXDEV, target)
        # One entry: a journal never has the target without the source being gone.
        self.names.pop(source)
        self.names[target] = node
        changes = self._pending.setdefault(parent(target), [])
        changes.append((f"{source}\0{target}", node, True))

    def unlink(self, path: str) -> bool:
        if path not in self.names:
            return False
        self._change(path, self._node(path), there=False)
        return True

    def rmdir(self, path: str) -> bool:
        if path not in self.names or self.listdir(path):
            return False
        self._change(path, None, there=False)
        return True

    def sync_dir(self, path: str) -> None:
        self._require_folder(path)
        for name, node, there in self._pending.pop(path, []):
            self._settle(name, node, there)

    def free_bytes(self, path: str) -> int:
        return 1 << 40

    def mounted(self, path: str) -> str | None:
        return None

    def _new(self) -> Node:
        self._numbers += 1
        return Node(self._numbers)

    def _create(self, path: str) -> None:
        self._require_folder(parent(path))
        self._change(path, self._new(), there=True)

    def _change(self, path: str, node: Node | None, *, there: bool) -> None:
        if there:
            self.names[path] = node
        else:
            del self.names[path]
        self._pending.setdefault(parent(path), []).append((path, node, there))

    def _settle(self, path: str, node: Node | None, there: bool) -> None:
        source, renamed, target = path.partition("\0")
        if renamed:
            self._durable.pop(source, None)
            self._durable[target] = node
        elif there:
            self._durable[path] = node
        else:
            self._durable.pop(path, None)

    def _node(self, path: str) -> Node:
        if path not in self.names:
            raise _error(errno.ENOENT, path)
        node = self.names[path]
        if node is None:
            raise _error(errno.EISDIR, path)
        return node

    def _require_folder(self, path: str) -> None:
        if self.names.get(path, self) is not None:
            raise _error(errno.ENOENT, path)


class MemFile:
    """An open file."""

    def __init__(
        self,
        files: MemFiles,
        node: Node,
        path: str,
        *,
        append: bool = False,
        direct: bool = False,
    ):
        self._files = files
        self._direct = direct
        self._tail = b""  # of a direct file: the last block that is not full
        self._append = append
        self._position = 0
        self._node = node
        self.path = path
        self._open = True
        files.opened.append(path)

    def fileno(self) -> int:
        raise NotImplementedError

    def pread(self, offset: int, length: int) -> bytes:
        return bytes(self._live.data[offset : offset + length])

    def pread_into(self, offset: int, target: memoryview) -> int:
        found = self.pread(offset, target.nbytes)
        target.cast("B")[: len(found)] = found
        return len(found)

    def pread_now(self, offset: int, length: int) -> Buffer | None:
        found = self.pread(offset, length)
        return found if len(found) == length else None

    def fill_now(self, offset: int, target: memoryview) -> bool:
        return self.pread_into(offset, target) == target.nbytes

    def pwrite(self, offset: int, data: Buffer) -> None:
        self._live.write(offset, bytes(data))

    def append(self, parts: Sequence[Buffer]) -> None:
        data = b"".join(parts)
        if self._append:
            self._position = len(self._live.data)
        if self._direct:
            self._append_blocks(self._tail + data)
            return
        self._live.write(self._position, data)
        self._position += len(data)

    def _append_blocks(self, data: bytes) -> None:
        whole = len(data) // BLOCK * BLOCK
        self._tail = data[whole:]
        self._live.write(self._position, data + bytes(-len(data) % BLOCK))
        self._position += whole

    def truncate(self, size: int) -> None:
        self._live.cut(size)

    def punch(self, offset: int, length: int) -> None:
        end = min(offset + length, len(self._live.data))
        self._live.write(offset, bytes(max(0, end - offset)))

    def fsync(self) -> None:
        self._live.sync()

    def fdatasync(self) -> None:
        self._live.sync()

    def stat(self) -> FileStat:
        return _stat(self._live)

    def next_data(self, offset: int) -> int | None:
        return self._seek(offset, live=True)

    def next_hole(self, offset: int) -> int:
        found = self._seek(offset, live=False)
        return len(self._node.data) if found is None else found

    def forget_cache(self) -> bool:
        return False

    def lock(self) -> bool:
        if self._live.holder not in (None, self):
            return False
        self._node.holder = self
        return True

    def close(self) -> None:
        if self._node.holder is self:
            self._node.holder = None
        if self._open:
            self._open = False
            self._files.opened.remove(self.path)

    @property
    def _live(self) -> Node:
        if not self._open:
            raise _error(errno.EBADF, self.path)
        return self._node

    def _seek(self, offset: int, *, live: bool) -> int | None:
        blocks = self._live.live_blocks()
        if offset >= len(self._node.data):
            return None
        found = np.flatnonzero(blocks[offset // BLOCK :] == live)
        return max(offset, (offset // BLOCK + int(found[0])) * BLOCK) if len(found) else None


def _stat(node: Node | None) -> FileStat:
    if node is None:
        return FileStat(1, 0, 0, 0, 0, 0, is_file=False, is_block=False, is_dir=True, mode=0o700)
    size, changed = len(node.data), node.changes
    return FileStat(
        1,
        node.number,
        size,
        size,
        changed,
        changed,
        is_file=True,
        is_block=False,
        is_dir=False,
        mode=0o600,
    )


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)
