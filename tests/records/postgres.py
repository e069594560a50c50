"""A PostgreSQL server of the tests' own, of Debian's package, on a Unix socket only."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

BINARIES = "/usr/lib/postgresql"
_AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


def binaries() -> Path | None:
    """Where the newest server's programs are."""
    found = sorted(Path(BINARIES).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Server:
    """A running server. Databases are made one for each test."""

    def __init__(self, place: Path, programs: Path):
        self._place = place
        self._programs = programs
        self._count = 0

    def run(self, program: str, *words: str) -> str:
        """Run one of its programs as a user that it accepts: it refuses root."""
        command = [str(self._programs / program), *words]
        if os.geteuid() == 0:
            command = [*_AS_POSTGRES, *command]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self._place, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def url(self, database: str) -> str:
        """Its address, through the socket."""
        return f"postgresql://backstay@/{database}?host={quote(str(self._place), safe='')}"

    def sql(self, database: str, statement: str) -> str:
        """Run a statement beside the program that is tested."""
        words = ("-h", str(self._place), "-U", "backstay", "-d", database, "-tAc", statement)
        return self.run("psql", *words).strip()

    def fresh(self) -> str:
        """The address of a new, empty database."""
        self._count += 1
        name = f"test{self._count}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def start(self) -> None:
        """Start it; ready on return. Programs are killed here, the machine is not: no fsync."""
        options = f"-c fsync=off -c listen_addresses= -c unix_socket_directories={self._place}"
        data, log = str(self._place / "data"), str(self._place / "log")
        self.run("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")

    def stop(self, how: str = "immediate") -> None:
        """Stop it; ``immediate`` is as if its power had failed."""
        self.run("pg_ctl", "-D", str(self._place / "data"), "-m", how, "-w", "stop")


@contextmanager
def server() -> Iterator[Server]:
    """Initialise and start a server; its files are removed at the end."""
    programs = binaries()
    assert programs is not None, "install Debian's package postgresql"
    # Not in pytest's own folder, which another user cannot enter.
    place = Path(tempfile.mkdtemp(prefix="backstay-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(place, "postgres", "postgres")
        made = Server(place, programs)
        words = ("-A", "trust", "-U", "backstay", "-E", "UTF8", "--locale=C", "--no-sync")
        made.run("initdb", "-D", str(place / "data"), *words)
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(place)
