"""A ``backstay site`` of this machine, with certificates and one vault for each name asked for."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Command
from bench.servers.ports import free_ports, listening
from stages.store.address import with_options

_CLIENT = "web1"
_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Site:
    """Where it listens, and where its certificates and vaults are."""

    folder: Path
    port: int

    def url(self, vault: str) -> str:
        """The address of a vault, for a client that may replicate."""
        keys = {"ca": self._file("ca.crt"), "cert": self._file(f"{_CLIENT}.crt")}
        options = keys | {"key": self._file(f"{_CLIENT}.key")}
        return with_options(f"site://localhost:{self.port}/{vault}", options)

    def path(self, vault: str) -> Path:
        """The folder of a vault."""
        return self.folder / "vaults" / vault

    def curl_config(self, vault: str, objects: Path, keys: Sequence[str]) -> str:
        """What curl is told to create ``keys``, files of ``objects``, in a vault."""
        base = f"https://localhost:{self.port}/v1/vaults/{vault}/objects"
        said = [
            f'cacert = "{self._file("ca.crt")}"',
            f'cert = "{self._file(f"{_CLIENT}.crt")}"',
            f'key = "{self._file(f"{_CLIENT}.key")}"',
            'header = "If-None-Match: *"',
            "fail",
            "silent",
            "show-error",
        ]
        for key in keys:
            said += [f'upload-file = "{objects / key}"', f'url = "{base}/{key}"']
        return "\n".join(said) + "\n"

    def _file(self, name: str) -> str:
        return str(self.folder / "certs" / name)


@contextmanager
def site(folder: Path, vaults: Sequence[str], command: Command) -> Iterator[Site]:
    """Serve new vaults below the empty ``folder``. ``command``: how ``backstay`` is called here.

    Raises ``ServerFailed``, ``CalledProcessError``.
    """
    made = Site(folder, free_ports(1)[0])
    env = {**os.environ, **command.env}
    names = ("--host", "localhost", "--client", _CLIENT)
    subprocess.run(
        [*command.argv, "site", "certificates", str(folder / "certs"), *names],
        check=True,
        env=env,
        capture_output=True,
    )
    places = "\n".join(f"  {name}: {{path: ./vaults/{name}}}" for name in vaults)
    (folder / "vaults").mkdir()
    (folder / "site.yaml").write_text(
        f"""site:
  listen: 127.0.0.1:{made.port}
  tls: {{cert: certs/site.crt, key: certs/site.key, client_ca: certs/ca.crt}}
vaults:
{places}
clients:
  {_CLIENT}: {{name: {_CLIENT}, role: replication, vaults: [{", ".join(vaults)}]}}
"""
    )
    with (folder / "site.log").open("wb") as log:
        process = subprocess.Popen(
            [*command.argv, "site", str(folder / "site.yaml"), "--create"],
            env=env,
            stdout=log,
            stderr=log,
        )
        try:
            listening(made.port, process)
            yield made
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(_SECONDS)
