"""Other disk images than the system's own files, made on the spot: a database's, random bytes,
text. Seeds are fixed; of a database only its content is, since it stores times of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.inputs import SOURCES, InputFailed, ext4_of, image

_PROGRAMS = Path("/usr/lib/postgresql")
_OWNER = "postgres"  # its programs refuse to run as root
_SCALE_BYTES = 15 << 20  # of a database, for each unit of pgbench's scale
_CHURN = 400  # transactions for each of them and client, so that pages are no longer as loaded
_CLIENTS = 2
_WAL = 16 << 20  # one segment
_LIMIT = 1800.0  # seconds
_CHUNK = 4 << 20
_WORDS = 4000
_SEED = 20


def made(kind: str, folder: Path, wanted: int, sources: tuple[str, ...] = SOURCES) -> Path:
    """An image of about ``wanted`` bytes of the kind, in ``folder``, unless it is there already.

    Raises ``InputFailed``, also for a kind that is not in ``KINDS``.
    """
    if kind not in KINDS:
        raise InputFailed(f"no input {kind}; there are {', '.join(KINDS)}")
    if kind == "system":
        return image(folder, wanted, sources)
    path = folder / f"{kind}-{wanted >> 20}.img"
    if path.exists():
        return path
    partial = folder / f"{path.name}.partial"
    try:
        _MAKERS[kind](partial, wanted)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return partial.rename(path)


def random_bytes(path: Path, wanted: int) -> None:
    """Nothing to compress, nothing twice."""
    dice = np.random.default_rng(_SEED)
    with path.open("wb") as file:
        for at in range(0, wanted, _CHUNK):
            file.write(dice.bytes(min(_CHUNK, wanted - at)))


def text(path: Path, wanted: int) -> None:
    """Words as a language has them, few of them often: it shrinks much, no block is there twice."""
    dice = np.random.default_rng(_SEED)
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", np.uint8)
    table = [
        dice.choice(letters, length).tobytes() for length in dice.integers(4, 12, _WORDS).tolist()
    ]
    often = 1 / np.arange(1, _WORDS + 1)
    often /= often.sum()
    with path.open("wb") as file:
        for at in range(0, wanted, _CHUNK):
            size = min(_CHUNK, wanted - at)
            drawn = dice.choice(_WORDS, size // 5 + 1, p=often).tolist()  # 5 bytes each at least
            file.write(b" ".join(table[which] for which in drawn)[:size])


def postgres(path: Path, wanted: int) -> None:
    """An ext4 image of a database's folder after pgbench has changed it, shut down cleanly."""
    with tempfile.TemporaryDirectory(prefix="backstay-pg-") as short:
        place = Path(short)
        database = _Database(place)
        if os.geteuid() == 0:
            shutil.chown(place, _OWNER, _OWNER)
        scale = max(1, (wanted - 4 * _WAL) // _SCALE_BYTES)
        database.fill(scale)
        ext4_of(place / "data", path)


class _Database:
    """A server of its own on a Unix socket in ``place``."""

    def __init__(self, place: Path):
        found = sorted(_PROGRAMS.glob("*/bin/initdb"), key=lambda one: int(one.parts[-3]))
        if not found:
            raise InputFailed("no PostgreSQL server is installed (package postgresql)")
        self._programs, self._place = found[-1].parent, place
        self._as: tuple[str, ...] = ()
        if os.geteuid() == 0:
            try:
                pwd.getpwnam(_OWNER)
            except KeyError:
                raise InputFailed(f"there is no user {_OWNER}, which PostgreSQL needs") from None
            who = (f"--reuid={_OWNER}", f"--regid={_OWNER}", "--clear-groups")
            self._as = ("setpriv", *who)

    def fill(self, scale: int) -> None:
        """Load, churn, stop."""
        data = str(self._place / "data")
        how = ("-A", "trust", "-U", "bench", "-E", "UTF8", "--locale=C", "--no-sync")
        self._run("initdb", "-D", data, *how)
        wal = "-c wal_level=minimal -c max_wal_senders=0 -c max_wal_size=48MB -c min_wal_size=32MB"
        options = f"-c fsync=off -c listen_addresses= -k {self._place} {wal}"
        log = str(self._place / "log")
        self._run("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
        try:
            reach = ("-h", str(self._place), "-U", "bench")
            seed = f"--random-seed={_SEED}"
            self._run("pgbench", *reach, "-i", "-q", "-s", str(scale), "postgres")
            churn = ("-c", str(_CLIENTS), "-t", str(_CHURN * scale), "--no-vacuum", seed)
            self._run("pgbench", *reach, *churn, "postgres")
        finally:
            self._run("pg_ctl", "-D", data, "-m", "fast", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = (*self._as, str(self._programs / program), *arguments)
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                command,
                cwd=self._place,
                stdin=subprocess.DEVNULL,
                stdout=said,  # a file: the server keeps what it is given open
                stderr=subprocess.STDOUT,
                timeout=_LIMIT,
                check=False,
            )
            if done.returncode:
                said.seek(0)
                text = said.read().decode(errors="replace").strip()
                raise InputFailed(f"{program}: {text[-500:]}")


_MAKERS: dict[str, Callable[[Path, int], None]] = {
    "postgres": postgres,
    "random": random_bytes,
    "text": text,
}
KINDS = ("system", *_MAKERS)
