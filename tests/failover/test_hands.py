"""A machine's state is in one of two hands, never in both, and never in none for good."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.hands import Hand, holding, settled, take
from pipeline.state import Identity, StateFolder
from stages.errors import BackstayError, StateLocked
from stages.system import this_machine
from tests.branches.test_adopt import KEYS, Two, two
from tests.cli.support import ROOT
from tests.failover.test_there_and_back import home, over
from tests.ports.watched import Tripwire, WatchedFiles, machine

__all__ = ["two"]

VAULT, OLD, NEW = bytes(16), b"o" * 16, b"n" * 16
HOLDS = """\
import sys
from pipeline.hands import take
from pipeline.state import StateFolder
from stages.system import this_machine
ports = this_machine()
held = take(ports.files, StateFolder.open(ports, sys.argv[1], lock=False), "web1")
print("holds", flush=True)
sys.stdin.read()
"""
KILLED = """\
import os, signal, sys
from stages.system import files
from pipeline.cli.main import main
at, seen = int(sys.argv.pop(1)), 0

def killed(do):
    def call(self, *paths):
        global seen
        mine = [p for p in paths if any(f"here-state/{w}" in p for w in ("exch", "ret", "mach"))]
        seen += bool(mine)
        if mine and seen > at:
            os.kill(os.getpid(), signal.SIGKILL)
        return do(self, *paths)
    return call

for name in ("rename", "unlink", "sync_dir"):
    setattr(files.SystemFiles, name, killed(getattr(files.SystemFiles, name)))
main()
"""


def folder(tmp_path: Path) -> StateFolder:
    state = StateFolder.open(this_machine(), str(tmp_path / "state"))
    state.close()
    state.keep_identity(state.machine_folder("web1", VAULT), Identity(OLD, bytes(32)))
    coming = state.new_machine_folder("web1", VAULT, retire=True)
    state.keep_identity(coming, Identity(NEW, bytes(32)))
    return state


def test_one_hand_at_a_time(tmp_path: Path) -> None:
    files, state = this_machine().files, folder(tmp_path)
    with holding(files, state, "web1", [Hand.DELIVERY]):
        with pytest.raises(StateLocked, match="ships it"):
            take(files, state, "web1")
        with holding(files, state, "web1", [Hand.INTAKE]):  # nothing stayed with who was refused
            pass
        with holding(files, state, "db1"):  # others are not touched
            pass
    with holding(files, state, "web1"):
        for hand in Hand:
            with pytest.raises(StateLocked):
                take(files, state, "web1", [hand])


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    files, state = this_machine().files, folder(tmp_path)
    state.take_machine_folder("web1", VAULT)
    words = [sys.executable, "-c", HOLDS, state.path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holds\n"
        assert not settled(files, state, "web1")
        assert state.exchange("web1") == (VAULT, NEW)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert settled(files, state, "web1")
    assert state.exchange("web1") is None
    assert state.record_of("web1", VAULT) == NEW


@pytest.mark.parametrize("late", [False, True])
def test_an_exchange_cut_short_is_finished(tmp_path: Path, *, late: bool) -> None:
    """At every step: the next who looks finds one record, the old one or the new one."""
    counted = Tripwire()
    _exchange(tmp_path / "whole", counted)
    found = set()
    for step in range(len(counted.names)):
        root = tmp_path / f"{step}"
        state = _exchange(root, Tripwire(step, errno.EIO, late=late))
        assert settled(this_machine().files, state, "web1")
        assert state.exchange("web1") is None
        group = state.record_of("web1", VAULT)
        assert group in (OLD, NEW), step
        retired = [entry.name for entry in (root / "state").glob("retired/*")]
        assert retired == ([f"web1-{VAULT.hex()}-{OLD.hex()}"] if group == NEW else [])
        found.add(group)
    assert found == {OLD, NEW}


def _exchange(root: Path, wire: Tripwire) -> StateFolder:
    root.mkdir()
    state = folder(root)
    watched = StateFolder.open(machine(WatchedFiles(wire)), state.path, lock=False)
    try:
        watched.take_machine_folder("web1", VAULT)
        watched.finish_exchange("web1")
    except BackstayError:
        assert wire.tripped
    return state


def groups(two: Two) -> set[str]:
    return {entry.name for entry in (two / "vault" / "groups").iterdir()}


@pytest.mark.long
def test_killed_at_every_step(two: Two) -> None:
    """kill -9 of a reprotect that brings production home: the old source's next run is fenced still
    or goes on in the branch, never a third way; and the command given again finishes."""
    over(two, "planned", "web1", "--drained")
    over(two, "commit", "web1")
    home(two, "there")
    over(two, "reprotect", "web1", "--state", "there-state")
    two.change("there", 10, 5, 3)
    two.ship("there")
    over(two, "planned", "web1", "--drained")
    over(two, "commit", "web1")
    two.json("restore", "web1", *KEYS, "--onto", "root=here.img", "--confirm", "web1")
    known, ends, step = groups(two), set(), 0
    for name in ("vault", "here-state"):
        shutil.copytree(two / name, two / f"{name}-kept", symlinks=True)
    words = ("failover", "reprotect", "web1", *KEYS, "--state", "here-state", "--confirm", "web1")
    while True:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(step), *words, "--json"],
            cwd=two.root,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        said = two.backstay("run", "here.yaml", "--once", "--json")
        assert said.code in (0, 10), said
        ends.add(said.code)
        assert groups(two) == known
        if done.returncode == 0:
            assert json.loads(done.stdout)["state"] == "failed over and reprotected"
            break
        assert done.returncode == -signal.SIGKILL, done
        over(two, "reprotect", "web1", "--state", "here-state")
        two.change("here", 30, 1, step)
        two.ship("here")
        assert groups(two) == known
        for name in ("vault", "here-state"):
            shutil.rmtree(two / name)
            shutil.copytree(two / f"{name}-kept", two / name, symlinks=True)
        step += 1
    assert ends == {0, 10}
    assert step > 5
