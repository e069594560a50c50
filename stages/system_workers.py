"""Helper processes, and the memory shared with them: the machine behind ``capture``'s workers.

Used on both sides. The side of the helper must not import trio: that would cost each of them
12 MiB.

A helper is another run of the interpreter; or, where a command knows at its start that it will want
some, a copy of its own process, made ahead: while it has no threads, files or keys, and its imports
are those of the helper. Such a one is there at once when it is wanted, and has cost a hundredth.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import socket
import struct
import sys
import traceback
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

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


class _Process(Protocol):
    """What a helper needs to know of its process."""

    @property
    def pid(self) -> int:
        """Its id."""

    def kill(self) -> None:
        """SIGKILL; nothing, if it has ended."""

    async def wait(self) -> int:
        """Reap it; what it returned, or minus the signal that ended it."""


class Helper:
    """A running helper, seen from the process that started it."""

    def __init__(
        self,
        process: _Process,
        inlet: int,
        stdin: trio.abc.SendStream,
        stdout: trio.abc.ReceiveStream,
    ):
        self._process = process
        self._inlet = inlet
        self._stdin = stdin
        self._stdout = stdout

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
        except (BrokenPipeError, ConnectionResetError):
            return False

    async def receive(self) -> bytes:
        """Some bytes of what it wrote; empty when it has closed its output."""
        import trio

        try:
            return bytes(await self._stdout.receive_some(_RECEIVE))
        except trio.BrokenResourceError:  # it ended before it had read all
            return b""

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

    ahead = _taken_ahead(module, descriptors)
    if ahead is not None:
        return ahead
    paths = [_ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-P", "-m", module],
        stdin=_PIPE,
        stdout=_PIPE,
        pass_fds=descriptors,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
    )
    if process.stdin is None or process.stdout is None:
        raise ValueError("a helper is spoken to over pipes")
    inlet: int = process.stdin.fileno()  # type: ignore[attr-defined]
    return Helper(process, inlet, process.stdin, process.stdout)


class _Copy:
    """A process that ``fork_ahead`` made."""

    def __init__(self, module: str, pid: int, ours: socket.socket):
        self.module = module
        self.pid = pid
        self.socket = ours
        self._code: int | None = None

    def kill(self) -> None:
        """See ``_Process``."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """See ``_Process``."""
        import trio

        if self._code is None:
            watched = os.pidfd_open(self.pid)
            try:
                await trio.lowlevel.wait_readable(watched)
            finally:
                os.close(watched)
        return self._reaped()

    def _reaped(self) -> int:
        """It has ended, or will now."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def give(self, descriptors: Sequence[int]) -> bool:
        """Descriptors, to be had under the same numbers; False if it is gone."""
        numbers = array("i", descriptors)
        try:
            socket.send_fds(self.socket, [_COUNT.pack(len(numbers)), numbers], descriptors)
        except OSError:
            return False
        return True

    def abandon(self) -> None:
        """It is not wanted."""
        self.socket.close()
        self.kill()
        self._reaped()


_COUNT = struct.Struct("<i")
_MOST_GIVEN = 250  # descriptors in one message (SCM_MAX_FD is 253)
_ahead: list[_Copy] = []


def fork_ahead(count: int, module: str, serve: Callable[[Mailbox], None]) -> None:
    """Have ``count`` copies of this process ready for ``start_helper(module, ...)``, which are then
    as if each had begun as that, calling ``serve``.

    They end with it. Where they cannot be made, as beside threads, or have gone when they are
    wanted, helpers are started as always.
    """
    if sum(1 for _ in Path("/proc/self/task").iterdir()) > 1:
        return
    while sum(copy.module == module for copy in _ahead) < count:
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            return
        if not pid:
            _serve_as_copy(theirs.fileno(), serve)
        theirs.close()
        _ahead.append(_Copy(module, pid, ours))


def forget_ahead() -> None:
    """End the copies that nobody wanted."""
    while _ahead:
        _ahead.pop().abandon()


def _taken_ahead(module: str, descriptors: Sequence[int]) -> Helper | None:
    import trio

    if len(descriptors) > _MOST_GIVEN:
        return None
    for copy in [copy for copy in _ahead if copy.module == module]:
        _ahead.remove(copy)
        if copy.give(descriptors):
            stream = trio.lowlevel.FdStream(copy.socket.detach())
            return Helper(copy, stream.fileno(), stream, stream)
        copy.abandon()
    return None


def _serve_as_copy(theirs: int, serve: Callable[[Mailbox], None]) -> None:
    """The life of a copy; it does not return."""
    code = 1
    try:
        os.setsid()  # Ctrl-C on the terminal does not reach it
        os.dup2(theirs, _STDIN)
        os.dup2(theirs, _STDOUT)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        mail = Mailbox()
        if mail.receive_descriptors():
            serve(mail)
        code = 0
    finally:  # nothing above may go on in this process
        if code:
            traceback.print_exc()
        os._exit(code)


class Mailbox:
    """The helper's side of its two pipes, or of its socket."""

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes; fewer only when the other side has gone."""
        parts = []
        while size and (data := os.read(_STDIN, size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def receive_descriptors(self) -> bool:
        """Of a copy: take over what it is given, under the numbers it is told. False if its parent
        never wanted it."""
        with socket.socket(fileno=os.dup(_STDIN)) as inlet:
            head, given, _, _ = socket.recv_fds(inlet, _COUNT.size, _MOST_GIVEN)
        if len(head) < _COUNT.size:
            return False
        numbers = array("i")
        numbers.frombytes(self.read(_COUNT.unpack(head)[0] * numbers.itemsize))
        above = max([*numbers, 2]) + 1
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, above) for fd in given]
        for fd in given:
            os.close(fd)
        for fd, number in zip(moved, numbers, strict=True):
            os.dup2(fd, number)
            os.close(fd)
        return True

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
