"""Helpers that are copies of the process, made ahead: as those that are started, only sooner."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stages import system_workers
from stages.capture.worker import start_ahead

ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as commands have it, for one thread
SCENES = ["work", "dies_at_work", "dead_before", "defective"]


def command(scene: str, folder: Path) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "tests.capture.ahead", scene, str(folder)]


@pytest.mark.parametrize("scene", SCENES)
def test_copies_made_ahead(scene: str, tmp_path: Path) -> None:
    done = subprocess.run(
        command(scene, tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert ("ValueError: of no use" in done.stderr) == (scene == "defective")


def test_they_end_with_the_process_that_made_them(tmp_path: Path) -> None:
    abandoned = command("abandoned", tmp_path)
    with subprocess.Popen(abandoned, stdout=subprocess.PIPE, env=ENVIRONMENT) as parent:
        assert parent.stdout is not None
        made = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(made) == 2
        watched = [os.pidfd_open(pid) for pid in made]
        parent.kill()
    for each in watched:
        assert select.select([each], [], [], 30)[0], "still there after its parent"
        os.close(each)


def test_beside_threads_none_are_made() -> None:
    ended = threading.Event()
    beside = threading.Thread(target=ended.wait)
    beside.start()
    start_ahead(2)
    made = list(system_workers._ahead)
    ended.set()
    beside.join()
    assert not made
