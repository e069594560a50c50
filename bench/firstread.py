"""From starting ``backstay export`` to the first bytes over NBD, as someone in a hurry sees it.

``python -m bench.firstread MADE SOCKET [--seed N]`` prints one line of JSON. The client is the
smallest that can ask: fixed newstyle, one export, simple replies.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from bench.subjects import python_environment

LIMIT = 120.0  # seconds to wait for the listener
_STEP = 0.005
_OPTION = 0x49484156454F5054
_REPLY = 0x0003E889045565A9
_GO, _ACK, _ERROR = 7, 1, 1 << 31
_REQUEST, _SIMPLE_REPLY = 0x25609513, 0x67446698


class Refused(Exception):
    """The server did not give what was asked."""


def read_block(peer: socket.socket, export: str, offset: int, length: int) -> bytes:
    """Negotiate and read once. Raises ``Refused``."""
    _exactly(peer, 18)  # greeting: two magics and flags
    name = export.encode()
    choice = struct.pack(f">I{len(name)}sH", len(name), name, 0)
    peer.sendall(struct.pack(">IQII", 3, _OPTION, _GO, len(choice)) + choice)
    while True:
        magic, _, kind, size = struct.unpack(">QIII", _exactly(peer, 20))
        said = _exactly(peer, size)
        if magic != _REPLY or kind & _ERROR:
            raise Refused(f"option refused: {kind:#x} {said!r}")
        if kind == _ACK:
            break
    peer.sendall(struct.pack(">IHHQQI", _REQUEST, 0, 0, 1, offset, length))
    magic, error, _ = struct.unpack(">IIQ", _exactly(peer, 16))
    if magic != _SIMPLE_REPLY or error:
        raise Refused(f"read refused: {error}")
    return _exactly(peer, length)


def connect(path: str, process: subprocess.Popen[bytes]) -> socket.socket:
    """Wait for the listener. Raises ``Refused`` if the server ends first."""
    until = time.perf_counter() + LIMIT
    while time.perf_counter() < until:
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(path)
        except OSError:
            peer.close()
            if process.poll() is not None:
                raise Refused(f"the export ended with {process.returncode}") from None
            time.sleep(_STEP)
            continue
        return peer
    raise Refused("nothing listened")


def _exactly(peer: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        data = peer.recv(size)
        if not data:
            raise Refused("the connection was closed")
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def main(argv: list[str]) -> None:
    """Start the export, read a block, stop it."""
    from bench.made import DISK, MACHINE, Made, content
    from stages.model import BLOCK

    made, path = Made.load(Path(argv[0])), argv[1]
    seed = int(argv[argv.index("--seed") + 1]) if "--seed" in argv else 0
    block, number = made.probes[seed % len(made.probes)]
    reach = ["--vault", f"file:{made.vault}", "--key", made.key, "--listen", f"unix:{path}"]
    command = [sys.executable, "-m", "pipeline.cli.main", "export", MACHINE, *reach]
    started = time.perf_counter()
    process = subprocess.Popen(command, env=python_environment(), stdout=subprocess.DEVNULL)
    try:
        with connect(path, process) as peer:
            found = read_block(peer, DISK, block * BLOCK, BLOCK)
            seconds = time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()
    print(json.dumps({"seconds": seconds, "right": found == content(number)}))


if __name__ == "__main__":
    main(sys.argv[1:])
