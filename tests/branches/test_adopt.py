"""A daemon goes on from a point of another's: only what differs is shipped, both stay readable."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import trio

from pipeline.branching import Adopted, adopt_branch
from pipeline.cli.access import make_access
from pipeline.state import StateFolder
from stages.errors import BackstayError, BrokenChain, Fenced, StateError
from stages.model import BLOCK
from stages.vault.records import Parent
from tests.cli.support import Place, same
from tests.ports.watched import Tripwire, WatchedFiles

SIZE = 300 * BLOCK + 1024
CONFIG = """\
daemon: {state: ./STATE}
vaults:
  standby: {url: "file:./vault", trust: ./op.pub}
machines:
  web1:
    vault: standby
    disks:
      root: {path: ./IMAGE, capture: scan}
"""
KEYS = ("--vault", "file:./vault", "--key", "op.key")


class Two(Place):
    """A site with a vault, and another that is to go on from its points."""

    def ship(self, site: str) -> dict[str, object]:
        (run,) = self.json("run", f"{site}.yaml", "--once")["machines"]
        return dict(run)

    def site(self, name: str) -> None:
        text = CONFIG.replace("STATE", f"{name}-state").replace("IMAGE", f"{name}.img")
        (self / f"{name}.yaml").write_text(text)

    def change(self, site: str, block: int, blocks: int, seed: int) -> None:
        with (self / f"{site}.img").open("r+b") as file:
            file.seek(block * BLOCK)
            file.write(np.random.default_rng(seed).bytes(blocks * BLOCK))

    def points(self, machine: str = "web1") -> dict[str, object]:
        return self.json("points", machine, *KEYS)

    def notes(self) -> list[str]:
        found = self.points()["notes"]
        assert isinstance(found, list)
        return found

    def parent(self, seq: int, machine: str = "web1") -> Parent:
        found = self.points(machine)
        points = found["points"]
        assert isinstance(points, list)
        digest = next(point["digest"] for point in points if point["seq"] == seq)
        return Parent(bytes.fromhex(str(found["group"])), seq, bytes.fromhex(digest))

    def adopt(
        self,
        site: str,
        parent: Parent,
        *,
        group: bytes | None = None,
        retire: bool = False,
        wire: Tripwire | None = None,
    ) -> Adopted:
        access = make_access(f"file:{self.root}/vault", f"{self.root}/op.key", None)
        if wire is not None:
            files = WatchedFiles(wire, access.ports.files)
            access = replace(access, ports=replace(access.ports, files=files))
        state = StateFolder.open(access.ports, f"{self.root}/{site}-state")
        try:
            return trio.run(
                partial(adopt_branch, access, state, "web1", parent, group=group, retire=retire)
            )
        finally:
            state.close()

    def admit(self, site: str) -> None:
        access = make_access(f"file:{self.root}/vault", f"{self.root}/op.key", None)
        state = StateFolder.open(access.ports, f"{self.root}/{site}-state")
        writer = state.signer().public.hex()
        state.close()
        self.json(
            "vault", "admit", "file:./vault", "--key", "op.key", "--writer", writer, "--name", site
        )

    def is_restored(self, name: str, machine: str, at: str) -> bool:
        folder = self / f"restored-{name}"
        self.json("restore", machine, *KEYS, "--to", str(folder), "--at", at)
        right = same(folder / "web1-root.img", self / name)
        shutil.rmtree(folder)
        return right


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    made = Two(tmp_path)
    made.json("keygen", "--out", "op", "--no-passphrase")
    made.site("here")
    made.site("there")
    (made / "here.img").write_bytes(np.random.default_rng(1).bytes(200 * BLOCK).ljust(SIZE, b"\0"))
    # ``init`` admits the daemon whose state it finds in the config's place: here's.
    made.json(
        "init", "file:./vault", "--key", "op.key", "--single-recipient", "--state", "here-state"
    )
    made.ship("here")
    shutil.copy(made / "here.img", made / "first.img")
    made.change("here", 50, 20, 2)
    made.ship("here")
    shutil.copy(made / "here.img", made / "second.img")
    made.admit("there")
    yield made


def test_there_and_back_again(two: Two) -> None:
    parent = two.parent(1)
    shutil.copy(two / "first.img", two / "there.img")
    two.change("there", 10, 5, 3)
    adopted = two.adopt("there", parent)
    run = two.ship("there")
    assert run["changed_bytes"] == 5 * BLOCK
    assert run["group"] == adopted.group.hex()
    shutil.copy(two / "there.img", two / "branch.img")
    assert two.is_restored("branch.img", "web1", "#1")  # the name means the branch now
    assert two.is_restored("second.img", parent.group.hex(), "#2")
    verified = two.json("verify", "web1", *KEYS)
    assert verified["whole"]
    assert not verified["problems"]
    assert any(parent.group.hex() in note for note in two.notes())
    two.change("there", 250, 3, 4)
    assert two.ship("there")["changed_bytes"] == 3 * BLOCK
    shutil.copy(two / "there.img", two / "head.img")

    # Back to where it came from: only differences are written, and shipped.
    words = ("restore", "web1", *KEYS, "--onto", "root=here.img", "--confirm", "web1")
    (back,) = two.json(*words)["disks"]
    assert back["written"] == (20 + 5 + 3) * BLOCK
    assert same(two / "here.img", two / "head.img")
    head = two.parent(2)
    with pytest.raises(StateError):
        two.adopt("here", head)
    again = two.adopt("here", head, retire=True)
    two.change("here", 0, 1, 5)
    run = two.ship("here")
    assert run["changed_bytes"] == BLOCK
    assert run["group"] == again.group.hex()
    assert two.points()["group"] == again.group.hex()
    assert two.is_restored("here.img", "web1", "#1")
    assert two.is_restored("head.img", adopted.group.hex(), "#2")
    assert two.is_restored("first.img", parent.group.hex(), "#1")
    rescued = two.json("rescue", *KEYS)
    assert len(rescued["machines"]) == 3
    assert two.json("key", "drill", *KEYS)["drilled"]["web1"] == 1


def test_done_again_it_changes_nothing(two: Two) -> None:
    parent, gid = two.parent(2), bytes(range(16))
    shutil.copy(two / "second.img", two / "there.img")
    two.adopt("there", parent, group=gid)
    two.ship("there")
    two.adopt("there", parent, group=gid)
    two.change("there", 1, 1, 9)
    assert two.ship("there")["changed_bytes"] == BLOCK
    with pytest.raises(BrokenChain):
        two.adopt("there", two.parent(1, parent.group.hex()), group=gid)
    shutil.rmtree(two / "there-state" / "machines")
    with pytest.raises(Fenced):
        two.adopt("there", parent, group=gid)


def test_another_history_is_refused(two: Two) -> None:
    right = two.parent(2)
    with pytest.raises(BrokenChain):
        two.adopt("there", replace(right, digest=bytes(32)))
    with pytest.raises(BrokenChain):
        two.adopt("there", replace(right, seq=1))
    assert not (two / "there-state" / "machines").exists()


def test_failing_at_any_step_it_can_be_done_again(two: Two) -> None:
    parent = two.parent(1)
    shutil.copy(two / "first.img", two / "there.img")
    shutil.copytree(two / "there-state", two / "fresh-state")
    shutil.copytree(two / "vault", two / "fresh-vault")
    counted = Tripwire()
    gid = bytes(range(16))
    two.adopt("there", parent, group=gid, wire=counted)
    total = len(counted.names)
    for at in sorted({*range(0, total, max(1, total // 20)), *range(total - 8, total)}):
        for kept, name in (("fresh-state", "there-state"), ("fresh-vault", "vault")):
            shutil.rmtree(two / name)
            shutil.copytree(two / kept, two / name)
        wire = Tripwire(at, errno.EIO, late=bool(at % 2))
        try:
            two.adopt("there", parent, group=gid, wire=wire)
        except BackstayError:
            assert wire.tripped
        two.adopt("there", parent, group=gid)
        two.change("there", 3, 1, at)
        run = two.ship("there")
        assert (run["changed_bytes"], run["group"]) == (BLOCK, gid.hex()), json.dumps(wire.steps)
    assert two.is_restored("there.img", "web1", "#1")
