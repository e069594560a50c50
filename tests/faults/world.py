"""A small world to spoil: two machines, their disks, keys, vaults, a state folder; and `backstay`.

It is built once, with the program itself, and copied for every test.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np
from blake3 import blake3

from pipeline.cli.main import main
from stages.model import BLOCK
from stages.store.retry import RetryStore

ROOT = Path(__file__).resolve().parent.parent.parent
PASSPHRASE = "correct horse battery staple"
KIB, MIB = 1 << 10, 1 << 20

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
  db1:
    vault: standby
    disks:
      all: {path: ./db.img, capture: scan}
"""
DISKS = {"root": "root.img", "data": "data.img"}


class _Impatient(RetryStore):
    """Gives up at once: what takes longer to go away is what these tests are about."""

    def __init__(self, *inner: object, seconds: float, **other: object) -> None:
        super().__init__(*inner, seconds=0.0, **other)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@dataclass
class World:
    """A folder in which commands run. ``names`` are the values of placeholders in expectations."""

    root: Path
    names: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    undo: list[Callable[[], None]] = field(default_factory=list)

    def path(self, name: str) -> Path:
        """A path below the folder."""
        return self.root / name

    def backstay(self, *arguments: str) -> Said:
        """Run a command in this process, in the folder, without a terminal."""
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.root),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            patch.dict(os.environ, self.env),
            patch("os.isatty", return_value=False),
            patch("pipeline.assembly.RetryStore", _Impatient),
        ):
            code = _code_of(arguments)
        return Said(code, out.getvalue(), err.getvalue())

    def fine(self, *arguments: str) -> str:
        """Run a command that has to succeed; its standard output."""
        said = self.backstay(*arguments)
        assert said.code == 0, said
        return said.out

    def run(self, *more: str) -> Said:
        """Protect the machine of the tests."""
        return self.backstay("run", "c.yaml", "--once", "--machine", "web1", *more)

    def restore(self, to: str, *more: str) -> Said:
        """Restore it."""
        return self.backstay("restore", "web1", *ACCESS, "--to", to, *more)

    def process(self, *arguments: str, module: str = "pipeline.cli.main") -> subprocess.Popen[str]:
        """The same as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.root,
            env=os.environ | self.env | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def group(self) -> str:
        """The machine's group, as a path of the world."""
        return f"vault/groups/{self.names['group']}"

    @property
    def tail(self) -> int:
        """The number of its newest commit."""
        return int(self.names["tail"])

    def object(self, name: str) -> str:
        """An object of the group, as a path of the world."""
        return f"{self.group}/{name}"

    def commit(self, seq: int) -> str:
        """A commit, as a path of the world."""
        return self.object(f"log/{seq:015d}")

    def data(self) -> list[str]:
        """The data objects, oldest first, as paths of the world."""
        return [f"vault/{key}" for key in self.objects() if f"{self.names['group']}/data/" in key]

    def objects(self, vault: str = "vault") -> list[str]:
        """The keys of all objects of a vault."""
        folder = self.path(vault)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [str(path.relative_to(folder)) for path in files]

    def is_as_protected(self, folder: str, *, like: str = "") -> bool:
        """True if the restored disks of the machine equal the sources (or ``like``-NAME)."""
        return all(
            same_bytes(self.path(f"{folder}/web1-{disk}.img"), self.path(f"{like}{image}"))
            for disk, image in DISKS.items()
        )

    def digest(self, *names: str) -> str:
        """Names, kinds and bytes of everything below some paths, as one digest."""
        found = blake3()
        for name in names:
            top = self.path(name)
            for path in sorted([top, *top.rglob("*")]) if top.exists() else []:
                found.update(f"{path.relative_to(self.root)}\0{path.is_dir()}\0".encode())
                if path.is_file():
                    found.update(path.read_bytes())
        return found.hexdigest()

    def mend(self) -> None:
        """Take back what the test has spoiled."""
        while self.undo:
            self.undo.pop()()


OPERATOR = "op.key"
ACCESS = ("--vault", "file:./vault", "--key", OPERATOR)


def _code_of(arguments: tuple[str, ...]) -> int:
    try:
        main(arguments)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1
    return 0


def same_bytes(one: Path, other: Path) -> bool:
    """True if two files hold the same bytes."""
    return one.read_bytes() == other.read_bytes()


def wrong_blocks(one: Path, other: Path) -> list[int]:
    """Numbers of the blocks in which two files of one size differ."""
    left, right = one.read_bytes(), other.read_bytes()
    assert len(left) == len(right)
    starts = range(0, len(left), BLOCK)
    return [at // BLOCK for at in starts if left[at : at + BLOCK] != right[at : at + BLOCK]]


def text_like(size: int) -> bytes:
    """Compressible bytes."""
    return b"".join(b"%012d backstay\n" % number for number in range(size // 22 + 1))[:size]


def random_bytes(size: int) -> bytes:
    """Bytes that no compressor makes smaller, the same each time."""
    return np.random.default_rng(size).bytes(size)


def make_image(path: Path, size: int, parts: dict[int, bytes]) -> None:
    """A sparse file of ``size`` bytes with content at offsets."""
    with path.open("wb") as file:
        file.truncate(size)
    overwrite(path, parts)


def overwrite(path: Path, parts: dict[int, bytes]) -> None:
    """Write content at offsets."""
    with path.open("r+b") as file:
        for offset, content in parts.items():
            file.seek(offset)
            file.write(content)


def found(root: Path) -> World:
    """Keys and the vault of a new world, nothing protected yet."""
    root.mkdir(parents=True)
    world = World(root)
    for name in ("op", "second", "stranger"):
        world.fine("keygen", "--out", name, "--name", name, "--no-passphrase")
    (root / "c.yaml").write_text(CONFIG)
    world.fine("init", "file:./vault", "--key", "op.key", "--recipient", "second.pub")
    return world


def build(root: Path) -> World:
    """The world of the table: three points of one machine, one of another."""
    rng = np.random.default_rng(7)
    world = found(root)
    make_image(
        root / "root.img",
        8 * MIB,
        {0: rng.bytes(1536 * KIB), 3 * MIB: text_like(MIB), 7 * MIB: rng.bytes(64 * KIB)},
    )
    make_image(root / "data.img", MIB + 1000, {0: rng.bytes(80 * KIB), MIB: b"the end" * 100})
    make_image(root / "db.img", MIB, {0: text_like(200 * KIB)})
    protect(world, "first")
    overwrite(root / "root.img", {MIB // 2: rng.bytes(300 * KIB), 5 * MIB: text_like(8 * KIB)})
    overwrite(root / "data.img", {0: bytes(40 * KIB)})
    protect(world, "second", "--machine", "web1")
    overwrite(root / "root.img", {2 * MIB: rng.bytes(200 * KIB), 7 * MIB: rng.bytes(5000)})
    protect(world, "third", "--machine", "web1")
    learn_names(world)
    return world


def learn_names(world: World) -> None:
    """What the program has drawn at random, or counted."""
    listing = json.loads(world.fine("points", "web1", *ACCESS, "--json"))
    charter = json.loads(world.path("vault/vault.json").read_bytes())["charter"]
    world.names |= {
        "root": str(world.root),
        "vault": charter["vault"],
        "writer": charter["writers"][0]["key"],
        "group": listing["group"],
        "tail": str(listing["newest"]),
        "next": str(listing["newest"] + 1),
        "log": f"{listing['newest']:015d}",
        "nextlog": f"{listing['newest'] + 1:015d}",
        "digest": listing["points"][0]["digest"],
    }


def protect(world: World, name: str, *more: str) -> None:
    """Make a point: its number is ``names[name]``, copies of its disks are called NAME-DISK.img."""
    world.fine("run", "c.yaml", "--once", *more)
    for image in DISKS.values():
        shutil.copyfile(world.path(image), world.path(f"{name}-{image}"))
    listing = json.loads(world.fine("points", "web1", *ACCESS, "--count", "1", "--json"))
    world.names[name] = str(listing["points"][0]["seq"])


def _copy(source: str, target: str) -> None:
    """References are only read."""
    if "-" in Path(source).name and source.endswith(".img"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


@contextmanager
def copied(template: World, root: Path) -> Iterator[World]:
    """A copy of a world to spoil."""
    shutil.copytree(template.root, root, copy_function=_copy)
    world = World(root, template.names | {"root": str(root)})
    try:
        yield world
    finally:
        world.mend()
        shutil.rmtree(root)
