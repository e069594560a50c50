"""A vault of a machine with a real file system, made once; commands in this process or their own.

A program that is not installed makes a test fail: nothing here is optional.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cli.main import main
from tests.forked import Forked

ROOT = Path(__file__).resolve().parent.parent.parent
MIB = 1 << 20
ROOT_SIZE, DATA_SIZE = 24 * MIB, 3 * MIB + 1000
PATTERN = 0x5A
PATTERN_AT, PATTERN_LENGTH = 1 * MIB + 4097, 70_001
KEYS = ("--vault", "file:./vault", "--key", "op.key")
CONFIG = """\
daemon: {state: ./state}
vaults:
  standby: {url: "file:./vault", trust: ./op.pub}
pipelines:
  default: {ship: {inline: 64KiB}}
machines:
  web1:
    vault: standby
    disks:
      root: {path: ./root.img, capture: scan}
      data: {path: ./data.img, capture: scan}
"""
DISKS = ("root", "data")


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def fields(self) -> dict[str, Any]:
        """Standard output, which is one JSON document."""
        return dict(json.loads(self.out))

    @property
    def error(self) -> dict[str, Any]:
        """Standard error, which is one JSON document."""
        return dict(json.loads(self.err))


@dataclass(frozen=True)
class Place:
    """A folder in which commands run."""

    root: Path

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def backstay(self, *arguments: str) -> Said:
        """Run a command in this process, without a terminal."""
        out, err = io.StringIO(), io.StringIO()
        code: object = 0
        with (
            contextlib.chdir(self.root),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main(arguments)
            except SystemExit as left:
                code = left.code
        assert isinstance(code, int)
        return Said(code, out.getvalue(), err.getvalue())

    def unless(self, code: int, *arguments: str) -> Said | None:
        """What a command says, unless it ends with ``code``: what that is about is waited for."""
        said = self.backstay(*arguments)
        return None if said.code == code else said

    def json(self, *arguments: str) -> dict[str, Any]:
        """Run a command that has to succeed; its result."""
        said = self.backstay(*arguments, "--json")
        assert said.code == 0, said
        return said.fields

    def start(self, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Run a command as a process of its own; ``prefix`` are words before it."""
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "pipeline.cli.main", *arguments],
            cwd=self.root,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fork(self, *arguments: str) -> subprocess.Popen[str]:
        """The same without the time of its imports: what is tested is not how it is started."""
        return Forked("backstay", arguments, self.root, os.environ | {"PYTHONPATH": str(ROOT)})

    def call(self, *command: str) -> str:
        """Run another program that has to succeed; what it printed."""
        done = subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def digest(self, name: str) -> str:
        """Names and bytes of everything below a folder."""
        found = hashlib.sha256()
        for path in sorted((self.root / name).rglob("*")):
            found.update(f"{path.relative_to(self.root)}\0{path.stat().st_mode}\0".encode())
            if path.is_file():
                found.update(path.read_bytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Shipped(Place):
    """Two points of machine ``web1``; ``first-root.img``, ``second-root.img`` … are its disks."""

    points: tuple[int, int]

    @contextmanager
    def copied(self, to: Path) -> Iterator[Shipped]:
        """A copy to spoil."""
        shutil.copytree(self.root, to, symlinks=True)
        yield Shipped(to, self.points)

    def is_restored(self, folder: str, point: str = "second") -> bool:
        """True if the disks in a folder are those of a point."""
        return all(
            same(self / f"{folder}/web1-{disk}.img", self / f"{point}-{disk}.img") for disk in DISKS
        )


def same(one: Path, other: Path) -> bool:
    """True if two files hold the same bytes."""
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()


def ship(root: Path) -> Shipped:
    """Make keys, a vault, two disks; protect them twice."""
    root.mkdir()
    place = Place(root)
    _make_root(place)
    _make_data(root / "data.img")
    place.json("keygen", "--out", "op", "--no-passphrase")
    place.json("keygen", "--out", "second", "--no-passphrase")
    place.json("init", "file:./vault", "--key", "op.key", "--recipient", "second.pub")
    (root / "c.yaml").write_text(CONFIG)
    points = []
    for name in ("first", "second"):
        (run,) = place.json("run", "c.yaml", "--once")["machines"]
        points.append(run["seq"])
        for disk in DISKS:
            place.call("cp", "--sparse=always", f"{disk}.img", f"{name}-{disk}.img")
        _change(place)
    return Shipped(root, (points[0], points[1]))


def _make_root(place: Place) -> None:
    """A file system of some of this Python's own library, and noise."""
    tree = place / "tree"
    library = Path(sysconfig.get_path("stdlib"))
    for package in ("json", "email", "http"):
        shutil.copytree(
            library / package, tree / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    (tree / "noise").write_bytes(np.random.default_rng(3).bytes(2 * MIB))
    _sized(place / "root.img", ROOT_SIZE)
    place.call(tool("mkfs.ext4"), "-q", "-F", "-d", "tree", "root.img")
    shutil.rmtree(tree)


def _make_data(path: Path) -> None:
    _sized(path, DATA_SIZE)
    noise = np.random.default_rng(4)
    put(path, 0, noise.bytes(300_000))
    put(path, PATTERN_AT, bytes([PATTERN]) * PATTERN_LENGTH)
    put(path, DATA_SIZE - 5000, noise.bytes(5000))


def _change(place: Place) -> None:
    (place / "fresh").write_bytes(np.random.default_rng(5).bytes(500_000))
    for command in ("rm noise", "write fresh fresh", "mkdir later"):
        place.call(tool("debugfs"), "-w", "-R", command, "root.img")
    put(place / "data.img", 200_000, bytes(150_000))


def _sized(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def put(path: Path, offset: int, data: bytes) -> None:
    """Write into a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def tool(name: str) -> str:
    """Where a system program is; Debian keeps some out of an ordinary user's PATH."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    assert path is not None, f"{name} is not installed"
    return path
