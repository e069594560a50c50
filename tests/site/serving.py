"""A real ``backstay site`` process with real certificates, and stores that speak to it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from stages.store.address import with_options
from stages.store.open import open_store
from stages.store.port import ObjectStore
from stages.system import this_machine
from tests import waiting
from tests.forked import Forked

REPOSITORY = Path(__file__).parents[2]
CLIENTS = {"web1": "replication", "reader": "reader", "admin": "operator"}
PROGRAM = "pipeline.cli.main"
QUICK = "tests.site.quick"  # the same without fsync
_SECONDS = 30.0


def free_port() -> int:
    """One that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def command(*arguments: str, module: str = PROGRAM) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def make_certificates(folder: Path, *more: str, host: str = "127.0.0.1") -> None:
    names = dict.fromkeys(("localhost", "127.0.0.1", host))
    hosts = [word for name in names for word in ("--host", name)]
    clients = [word for name in CLIENTS for word in ("--client", name)]
    words = ["site", "certificates", str(folder), *hosts, *clients, *more]
    process = Forked("backstay", words, REPOSITORY, os.environ)
    said = process.communicate(timeout=_SECONDS)
    assert process.returncode == 0, said


@dataclass
class Served:
    """A site in ``place`` with the vault ``standby`` (and ``other``, which nobody may use)."""

    place: Path
    module: str = PROGRAM
    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    prefix: Sequence[str] = ()  # of the command, as "nsenter --net=X"
    limits: str = ""
    more: str = ""  # of the configuration
    process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def vault(self) -> Path:
        return self.place / "vault"

    @property
    def log(self) -> str:
        return (self.place / "site.log").read_text()

    def write(self) -> None:
        clients = "\n".join(
            f"  {name}: {{name: {name}, role: {role}, vaults: [standby]}}"
            for name, role in CLIENTS.items()
        )
        (self.place / "site.yaml").write_text(
            f"""site:
  listen: {self.host}:{self.port}
  tls: {{cert: certs/site.crt, key: certs/site.key, client_ca: certs/ca.crt}}
{self.limits}
vaults:
  standby: {{path: ./vault}}
  other: {{path: ./other}}
clients:
{clients}
{self.more}
"""
        )

    def start(self) -> None:
        log_file = self.place / "site.log"
        begun = log_file.stat().st_size if log_file.exists() else 0
        with (self.place / "site.log").open("ab") as log:
            words = [str(self.place / "site.yaml"), "--create"]
            if self.module == PROGRAM:
                words.insert(0, "site")
            if self.module == PROGRAM and not self.prefix:
                self.process = Forked(
                    "backstay", words, REPOSITORY, os.environ, stdout=log, stderr=log
                )
            else:
                self.process = subprocess.Popen(
                    [*self.prefix, *command(*words, module=self.module)],
                    cwd=REPOSITORY, stdout=log, stderr=log,
                )  # fmt: skip
        waiting.until(lambda: self.log, partial(self._serves, self.process, begun), pause=0.02)

    def _serves(self, process: subprocess.Popen[bytes] | Forked, begun: int) -> bool:
        assert process.poll() is None, self.log
        return b"serving standby" in (self.place / "site.log").read_bytes()[begun:]

    def signal(self, number: int) -> int:
        """Send it and wait for the end; how it ended."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(_SECONDS)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)

    def url(self, client: str = "web1", vault: str = "standby", **options: str) -> str:
        """The address of a vault, as a client has it."""
        certs = self.place / "certs"
        found = {"ca": str(certs / "ca.crt")}
        if client:
            found |= {"cert": str(certs / f"{client}.crt"), "key": str(certs / f"{client}.key")}
        host = "localhost" if self.host == "127.0.0.1" else self.host
        return with_options(f"site://{host}:{self.port}/{vault}", found | options)

    def store(self, client: str = "web1", **options: str) -> ObjectStore:
        return open_store(self.url(client, **options), this_machine())

    def empty(self) -> None:
        """Take all objects away, below the site's feet."""
        for path in self.vault.iterdir():
            if path.name != ".tmp":
                shutil.rmtree(path) if path.is_dir() else path.unlink()


async def until(true: Callable[[], bool]) -> None:
    """Look until it is so."""
    with trio.fail_after(_SECONDS):
        while not true():  # noqa: ASYNC110 - nobody here would tell
            await trio.sleep(0.005)


@contextmanager
def served(place: Path, **settings: object) -> Iterator[Served]:
    """A site that runs, in an empty folder."""
    found = Served(place, **settings)  # type: ignore[arg-type]
    if not (place / "certs").exists():
        make_certificates(place / "certs", host=found.host)
    found.write()
    try:
        found.start()
        yield found
    finally:
        found.kill()
