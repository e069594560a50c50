"""Helper processes, and the memory shared with them: the machine behind ``capture``'s workers.

Used on both sides. The side of the helper must not import trio: that would cost each of them
12 MiB.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trio

_PIPE = -1  # subprocess.PIPE
_RECEIVE = 4096
_STDIN, _STDOUT = 0, 1
_ROOT = str(Path(__file__).resolve().parent.parent)


class SharedMemory:
    """Anonymous memory that helpers inherit by descriptor. Gone with its last user."""

    def __init__(self, size: int, fd: int | None = None):
        if fd is None:
            fd = os.memfd_create("backstay", os.MFD_CLOEXEC)
            os.ftruncate(fd, size)
        self.fd = fd
        # The views handed out keep the mapping alive; closing the descriptor does not end it.
        self.view = memoryview(mmap.mmap(fd, size))

    def close(self) -> None:
        """Give up the descriptor; the memory goes with the last view of it. Idempotent."""
        self.view = memoryview(b"")
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


class Helper:
    """A running helper, seen from the process that started it."""

    def __init__(self, process: trio.Process):
        if process.stdin is None or process.stdout is None:
            raise ValueError("a helper is spoken to over pipes")
        self._process = process
        self._inlet: int = process.stdin.fileno()  # type: ignore[attr-defined]
        self._stdin = process.stdin
        self._stdout = process.stdout

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def post(self, message: bytes) -> bool:
        """Write a message without waiting; False if the helper is gone.

        At most PIPE_BUF (4096) bytes, so that it is written whole; the caller bounds the number
        of messages on their way, so that they fit into the pipe (64 KiB).
        """
        try:
            return os.write(self._inlet, message) == len(message)
        except BrokenPipeError:
            return False

    async def receive(self) -> bytes:
        """Some bytes of what it wrote; empty when it has closed its output."""
        return bytes(await self._stdout.receive_some(_RECEIVE))

    async def ended(self) -> str:
        """Wait for its end; how it ended, in words."""
        code = await self._process.wait()
        return f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"

    async def stop(self) -> None:
        """Kill it and reap it. Idempotent."""
        self._process.kill()
        await self._process.wait()
        await self._stdin.aclose()
        await self._stdout.aclose()


async def start_helper(module: str, descriptors: Sequence[int]) -> Helper:
    """Run ``python -m module`` with these descriptors inherited under the same numbers.

    It finds the same packages as this process, not those of the current folder; Ctrl-C on the
    terminal does not reach it: it ends with its input.
    """
    import trio

    paths = [_ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-P", "-m", module],
        stdin=_PIPE,
        stdout=_PIPE,
        pass_fds=descriptors,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
    )
    return Helper(process)


class Mailbox:
    """The helper's side of its two pipes."""

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes; fewer only when the other side has gone."""
        parts = []
        while size and (data := os.read(_STDIN, size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def write(self, message: bytes) -> bool:
        """Answer with at most PIPE_BUF bytes; False if the other side has gone."""
        try:
            os.write(_STDOUT, message)
        except BrokenPipeError:
            return False
        return True


class InheritedFile:
    """An inherited descriptor with the reading calls of ``OpenFile``."""

    def __init__(self, fd: int):
        self._fd = fd

    def pread_into(self, offset: int, target: memoryview) -> int:
        """Fill ``target``, across short reads."""
        got = 0
        while got < len(target):
            count = os.preadv(self._fd, [target[got:]], offset + got)
            if not count:
                break
            got += count
        return got

    def next_data(self, offset: int) -> int | None:
        """SEEK_DATA; everything is data where the file system knows no holes."""
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            if error.errno == errno.EINVAL:
                return offset
            raise

    def next_hole(self, offset: int) -> int:
        """SEEK_HOLE; the end where the file system knows no holes."""
        try:
            return os.lseek(self._fd, offset, os.SEEK_HOLE)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.EINVAL):
                return os.lseek(self._fd, 0, os.SEEK_END)
            raise
