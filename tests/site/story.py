"""A machine whose vault is at a second site, and guests that write to it whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cli.support import ROOT, Place, Said
from tests.daemon.running import CONFIG, PATIENCE, SIZE
from tests.site.serving import Served, command
from tests.waiting import until

REPLICAS = """replicas:
  web1: {{vault: standby, path: ./replica, key: ./{key}, trust: ./op.pub, every: 100ms}}
"""
GUEST = """\
i=0
while :; do
    at=$((i * 7919 % 176 * 64))
    if qemu-io -f raw -c "write -P $((i % 250 + 1)) ${at}k 64k" -c flush "$1" >/dev/null 2>&1
    then i=$((i + 1)); echo $i >> "$2"
    fi
    sleep 0.05
done
"""


def give_certificates(site: Served, place: Path, client: str = "web1") -> None:
    """What the site's operator hands out."""
    for name in ("ca.crt", f"{client}.crt", f"{client}.key"):
        shutil.copy(site.place / "certs" / name, place)


def source(root: Path, site: Served, *recipients: str) -> Place:
    """Keys, a vault at the site, a disk with something in it, a configuration; ``recipients`` are
    further keys that open the vault."""
    place = Place(root)
    give_certificates(site, root)
    place.json("keygen", "--out", "op", "--no-passphrase")
    for name in recipients:
        place.json("keygen", "--out", name, "--no-passphrase")
    others = [word for name in recipients for word in ("--recipient", f"{name}.pub")]
    place.json(
        "init", site.url(), "--key", "op.key", "--state", "./state",
        *(others or ["--single-recipient"]),
    )  # fmt: skip
    with (root / "root.img").open("wb") as image:
        image.truncate(SIZE)
        image.seek(3 << 20)
        image.write(os.urandom(70_000))
    bare = site.url("").partition("?")[0]
    keys = f'url: "{bare}", ca: ./ca.crt, cert: ./web1.crt, key: ./web1.key'
    text = CONFIG.format(state="./state", more="").replace('url: "file:./vault"', keys)
    assert keys in text
    text = text.replace("state: ./state}", "state: ./state, retry: {probe: 1s}}")
    (root / "c.yaml").write_text(text)
    return place


def configured(site: Served, key: str) -> None:
    """It keeps a replica, opened with a key, from here on."""
    assert site.process is not None
    site.more = REPLICAS.format(key=key)
    site.write()
    site.process.send_signal(signal.SIGHUP)


class Guest:
    """It writes, flushes, writes; where nobody answers it tries again."""

    def __init__(self, place: Place, uri: str):
        self._log = place / "guest.log"
        self._log.touch()
        (place / "guest.sh").write_text(GUEST)
        self._process = subprocess.Popen(
            ["sh", "guest.sh", uri, str(self._log)], cwd=place.root, start_new_session=True
        )

    @property
    def written(self) -> int:
        """Writes that were answered and flushed."""
        return self._log.read_text().count("\n")

    def goes_on(self, count: int = 2) -> None:
        """Wait until it has done so many more."""
        wanted = self.written + count
        until("an answer to the guest", lambda: self.written >= wanted, pause=0.02)

    def end(self) -> None:
        """Turn it off, with what it has started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(PATIENCE)


@contextmanager
def guest(place: Place, uri: str) -> Iterator[Guest]:
    """One that writes until the block ends, or until it is turned off."""
    found = Guest(place, uri)
    try:
        yield found
    finally:
        found.end()


def point(place: Place, config: str = "c.yaml") -> int:
    """A point now. Gaps, and a delivery that is just being started again, are waited for."""
    words = ("mark", config, "web1", "--wait", "30", "--json")

    def marked() -> Said | None:
        said = place.backstay(*words)
        return said if said.code == 0 else None

    return int(until(lambda: place.backstay(*words), marked).fields["seq"])


def give(place: Path, *words: str, prefix: Sequence[str] = (), code: int = 0) -> Any:
    """A command on another machine: nothing of this process's environment but PATH."""
    done = subprocess.run(
        [*prefix, *command(*words), "--json"],
        cwd=place, capture_output=True, text=True, check=False, timeout=PATIENCE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return json.loads(done.stderr if code else done.stdout)
