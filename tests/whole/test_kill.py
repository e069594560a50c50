"""kill -9 of the real program on real files, at any file operation: the next run goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stages.errors import TargetError, VaultError
from stages.model import BLOCK
from stages.vault.keyfile import decode_private, decode_public

EXPLORE = int(os.environ.get("BACKSTAY_EXPLORE", "1"))
REPOSITORY = Path(__file__).parents[2]
CONFIG = """daemon: {state: ./state}
vaults:
  standby: {url: "file:./vault", trust: ./op.pub}
pipelines:
  default: {capture: {workers: 0, batch: 256KiB}, cache: {seal_bytes: 1MiB}}
machines:
  web1:
    vault: standby
    disks:
      root: {path: ./root.img, capture: scan}
      data: {path: ./data.img, capture: scan}
"""


@dataclass
class Ended:
    killed: bool
    code: int
    steps: int
    said: str


class Killer:
    """Carries out commands in processes that can be killed."""

    def __init__(self, child: subprocess.Popen[str]):
        self._child = child

    def run(self, *argv: str | Path, kill_at: int | None = None) -> Ended:
        assert self._child.stdin
        assert self._child.stdout
        order: dict[str, Any] = {"argv": [str(word) for word in argv], "kill_at": kill_at}
        self._child.stdin.write(json.dumps(order) + "\n")
        self._child.stdin.flush()
        return Ended(**json.loads(self._child.stdout.readline()))

    def good(self, *argv: str | Path) -> Ended:
        found = self.run(*argv)
        assert found.code == 0, found.said
        return found


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    command = [sys.executable, "-m", "tests.whole.killer"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        yield Killer(child)
        assert child.stdin
        child.stdin.close()


@dataclass
class Place:
    """A folder with disks, keys, a configuration, perhaps a vault."""

    root: Path
    killer: Killer

    def init(self, kill_at: int | None = None) -> Ended:
        return self.killer.run(
            *("init", f"file:{self.root}/vault", "--key", self.root / "op.key"),
            *("--single-recipient", "--state", self.root / "state"),
            kill_at=kill_at,
        )

    def protect(self, kill_at: int | None = None) -> Ended:
        return self.killer.run("run", self.root / "c.yaml", "--once", kill_at=kill_at)

    def restore(self, to: Path, kill_at: int | None = None) -> Ended:
        return self.killer.run(
            *("restore", "web1", "--vault", f"file:{self.root}/vault"),
            *("--key", self.root / "op.key", "--to", to),
            kill_at=kill_at,
        )

    def copy(self, to: Path) -> Place:
        shutil.copytree(self.root, to)
        return Place(to, self.killer)

    def change(self) -> None:
        dice = random.Random(9)
        for name in ("root.img", "data.img"):
            data = bytearray((self.root / name).read_bytes())
            at = dice.randrange(len(data) - 40 * BLOCK)
            data[at : at + 30 * BLOCK] = dice.randbytes(30 * BLOCK)
            data[:BLOCK] = bytes(BLOCK)
            (self.root / name).write_bytes(data)

    def check_restored(self, to: Path) -> None:
        for disk in ("root", "data"):
            found = (to / f"web1-{disk}.img").read_bytes()
            assert found == (self.root / f"{disk}.img").read_bytes()
        assert sorted(path.name for path in to.iterdir()) == ["web1-data.img", "web1-root.img"]

    def check(self) -> None:
        """What is restored is what is there."""
        to = self.root / "restored"
        found = self.restore(to)
        assert found.code == 0, found.said
        self.check_restored(to)


@pytest.fixture(scope="module")
def bare(killer: Killer, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Disks and a key, no vault."""
    root = tmp_path_factory.mktemp("bare")
    dice = random.Random(5)
    doubled = dice.randbytes(20 * BLOCK)
    content = dice.randbytes(300 * BLOCK) + doubled + bytes(70 * BLOCK) + dice.randbytes(9000)
    (root / "root.img").write_bytes(content)
    (root / "data.img").write_bytes(doubled + dice.randbytes(60 * BLOCK) + doubled)
    (root / "c.yaml").write_text(CONFIG)
    killer.good("keygen", "--out", root / "op", "--no-passphrase")
    return Place(root, killer)


@pytest.fixture(scope="module")
def founded(bare: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With a vault."""
    place = bare.copy(tmp_path_factory.mktemp("founded") / "p")
    assert place.init().code == 0
    return place


@pytest.fixture(scope="module")
def protected(founded: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With a point in the vault, and changes since."""
    place = founded.copy(tmp_path_factory.mktemp("protected") / "p")
    found = place.protect()
    assert found.code == 0, found.said
    place.change()
    return place


def spread(steps: int, values: int) -> list[int]:
    """That many numbers below ``steps``, the first and the last among them."""
    values = min(steps, values * EXPLORE)
    return sorted({round(at * (steps - 1) / (values - 1)) for at in range(values)})


def killed_at(begin: Place, to: Path, number: int) -> Place:
    """A copy whose run was killed at this step, or at its last one: puts side by side may both make
    a folder, so that one run has a step or two more than another."""
    while True:
        place = begin.copy(to)
        found = place.protect(kill_at=number)
        if found.killed:
            return place
        assert number >= found.steps > number - 8
        number = found.steps - 1
        shutil.rmtree(to)


def test_init(bare: Place, tmp_path: Path) -> None:
    steps = bare.copy(tmp_path / "counted").init().steps
    for number in range(steps):
        place = bare.copy(tmp_path / str(number))
        assert place.init(kill_at=number).killed
        decode_private((place.root / "op.key").read_bytes(), None, "op.key")
        decode_public((place.root / "op.pub").read_bytes(), "op.pub")
        again = place.init()
        if again.code:  # it was as good as finished
            assert again.code == VaultError.exit_code
            assert "already" in again.said
        if number % 8 == 0 or again.code:
            found = place.protect()
            assert found.code == 0, found.said
            place.check()


@pytest.mark.parametrize("stage", ["founded", "protected"])
def test_run(stage: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    begin: Place = request.getfixturevalue(stage)
    steps = begin.copy(tmp_path / "counted").protect().steps
    for number in spread(steps, 20):
        place = killed_at(begin, tmp_path / str(number), number)
        again = place.protect()
        assert again.code == 0, again.said
        place.check()


def test_run_killed_again_and_again(protected: Place, tmp_path: Path) -> None:
    place = protected.copy(tmp_path / "p")
    number = 0
    while place.protect(kill_at=number).killed:
        number += 17
        place.change()
    place.check()


def test_restore(protected: Place, tmp_path: Path) -> None:
    place = protected.copy(tmp_path / "p")
    assert place.protect().code == 0
    steps = place.restore(tmp_path / "counted").steps
    for number in spread(steps, 25):
        to = tmp_path / str(number)
        assert place.restore(to, kill_at=number).killed
        again = place.restore(to)
        if again.code:  # it died while it cleared up after itself: all disks are there
            assert again.code == TargetError.exit_code, again.said
            assert "exists already" in again.said
            assert number > steps - 8
            for progress in to.glob("*.progress"):
                progress.unlink()
        place.check_restored(to)
