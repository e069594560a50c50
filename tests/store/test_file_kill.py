"""kill -9 during puts: everything visible is whole, everything answered is there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages.store.file import FileStore
from stages.store.port import Put, walk
from stages.system import this_machine
from tests.store.putter import STOP_AT_PUT, parts

REPOSITORY = Path(__file__).parents[2]


def kill_at(root: Path, line: str, *arguments: str) -> int:
    """Run the putter until it prints ``line``, kill it; return how many puts were answered."""
    command = [sys.executable, "-m", "tests.store.putter", str(root), *arguments]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        said = []
        for text in child.stdout:
            said.append(text.strip())
            if said[-1] == line:
                child.send_signal(signal.SIGKILL)
                break
        said += [text.strip() for text in child.stdout]
        assert child.wait() == -signal.SIGKILL, said
    return len([text for text in said if text.startswith("end ")])


async def check(store: FileStore, answered: int) -> None:
    visible = {info.key: info async for info in walk(store, "", most=10_000)}
    assert set(visible) >= {f"k/{number}" for number in range(answered)}
    assert set(visible) <= {f"k/{number}" for number in range(answered + 1)}
    for key in visible:
        assert await store.get(key) == b"".join(parts(int(key[2:])))
    begun = f"k/{answered}"
    outcome = await store.put(begun, parts(answered))
    assert outcome is (Put.EXISTS if begun in visible else Put.CREATED)
    assert await store.get(begun) == b"".join(parts(answered))


@pytest.mark.parametrize("line", ["begin 0", "begin 8", "end 12"])
async def test_killed_while_running(tmp_path: Path, line: str) -> None:
    store = FileStore(f"{tmp_path}/s", this_machine())
    await store.create_root()
    await check(store, kill_at(tmp_path / "s", line))
    assert len(list((tmp_path / "s/.tmp").iterdir())) <= 1


@pytest.mark.parametrize("operation", ["append", "fsync", "link", "unlink", "sync_dir"])
async def test_killed_just_before(tmp_path: Path, operation: str) -> None:
    store = FileStore(f"{tmp_path}/s", this_machine())
    await store.create_root()
    answered = kill_at(tmp_path / "s", "stop", operation)
    assert answered == STOP_AT_PUT
    linked = operation in ("unlink", "sync_dir")
    assert (await store.info(f"k/{STOP_AT_PUT}") is not None) is linked
    assert len(list((tmp_path / "s/.tmp").iterdir())) == (operation != "sync_dir")
    await check(store, answered)
