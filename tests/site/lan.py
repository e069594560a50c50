"""Another machine's network, where this one can have one: a namespace behind a pair of devices."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Lan:
    """Where a site runs: its address there, and what goes before a command to run it there.

    On the loopback of this machine (``apart`` False) nothing can be cut.
    """

    host: str
    prefix: Sequence[str]
    device: str = ""

    @property
    def apart(self) -> bool:
        """It is a network of its own."""
        return bool(self.device)

    def cut(self) -> None:
        """No packet gets through any more."""
        if self.apart:
            _ip("link", "set", self.device, "down")

    def mend(self) -> None:
        """They do again."""
        if self.apart:
            _ip("link", "set", self.device, "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@functools.cache
def _able() -> bool:
    """True if this process may make network namespaces, and devices into them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with _made():
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def lan() -> Iterator[Lan]:
    """A network of its own where that can be had, else the loopback: nothing is skipped."""
    if not _able():
        yield Lan("127.0.0.1", ())
        return
    with _made() as found:
        yield found


@contextmanager
def _made() -> Iterator[Lan]:
    token = uuid.uuid4()
    name, here, there = (f"bs{kind}{token.hex[:10]}" for kind in "nht")
    # Of the block for benchmarks of networks (198.18.0.0/15): nobody's real addresses.
    net = f"198.18.{token.bytes[0]}.{token.bytes[1] & 0xFC}"
    ours, theirs = (f"{net.rpartition('.')[0]}.{(token.bytes[1] & 0xFC) + at}" for at in (1, 2))
    # Not "ip netns exec": it takes a copy of all mounts along, and a file system that another test
    # unmounts meanwhile, to mount it anew after its disk died, would live on in there, dead.
    inside = ("nsenter", f"--net=/run/netns/{name}")
    _ip("netns", "add", name)
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _ip("addr", "add", f"{ours}/30", "dev", here)
        _ip("link", "set", here, "up")
        for words in (("addr", "add", f"{theirs}/30", "dev", there), ("link", "set", there, "up"),
                      ("link", "set", "lo", "up")):  # fmt: skip
            _ip("-n", name, *words)
        subprocess.run([*inside, "true"], check=True, capture_output=True)
        yield Lan(theirs, inside, here)
    finally:
        _ip("netns", "del", name)
        with suppress(subprocess.CalledProcessError):  # it went with its other end
            _ip("link", "del", here)
