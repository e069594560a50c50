"""The demonstration: a real file system protected, changed, destroyed and brought back, twice.

Every step is the command that a person would type, run as a process of its own; the recovery runs
with an empty environment in an empty folder that holds a copy of the vault and the key.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages import errors
from stages.errors import BackstayError, DamagedObject, MissingTool

MACHINE, DISK = "demo", "root"
_CONTENT = 96 << 20
_RANDOM = 8 << 20
_IMAGE = 256 << 20
_CONFIG = """\
daemon: {state: ./state}
vaults:
  standby: {url: "file:./vault", trust: ./operator.pub}
machines:
  demo:
    vault: standby
    disks:
      root: {path: ./disk.img, capture: scan}
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done, how long it took, what came out."""

    title: str
    seconds: float
    result: str


class Demo:
    """Runs all steps in ``folder``; ``tell`` hears of each one when it is done."""

    def __init__(self, folder: Path, tell: Callable[[Step], None]):
        self._folder = folder
        self._tell = tell
        self._tools = {name: _tool(name) for name in ("mkfs.ext4", "debugfs", "e2fsck")}
        self.steps: list[Step] = []
        self.points: list[int] = []

    def run(self) -> None:
        """From nothing to two verified recoveries. Raises the errors of the steps."""
        self._step("make a disk image with an ext4 file system", self._make)
        self._step("make a key and a vault", self._found)
        self._step("protect the disk", self._protect)
        self._step("write, overwrite and delete files on it", self._change)
        self._step("protect it again: only the difference", self._protect)
        self._step("destroy the disk, the configuration and all state", self._destroy)
        for at, point in enumerate(self.points):
            self._step(f"recover point #{point} with vault and key only", self._recover, at)
        for at, point in enumerate(self.points):
            self._step(f"compare point #{point} byte for byte, e2fsck -fn", self._compare, at)

    def _step(self, title: str, work: Callable[..., str], *args: Any) -> None:
        started = time.monotonic()
        result = work(*args)
        step = Step(title, time.monotonic() - started, result)
        self.steps.append(step)
        self._tell(step)

    def _make(self) -> str:
        tree = self._folder / "tree"
        copied = _copy_files(tree, _CONTENT)
        (tree / "random.bin").write_bytes(os.urandom(_RANDOM))
        image = self._folder / "disk.img"
        with image.open("wb") as file:
            file.truncate(_IMAGE)
        self._call(self._tools["mkfs.ext4"], "-q", "-F", "-d", str(tree), str(image))
        shutil.rmtree(tree)
        return f"{copied} files, {_allocated(image) >> 20} MiB of {_IMAGE >> 20} MiB in use"

    def _found(self) -> str:
        self._backstay("keygen", "--out", "operator", "--no-passphrase")
        made = self._backstay("init", "file:./vault", "--key", "operator.key", "--single-recipient")
        (self._folder / "backstay.yaml").write_text(_CONFIG)
        return f"vault {made['vault']}"

    def _protect(self) -> str:
        found = self._backstay("run", "backstay.yaml", "--once")["machines"][0]
        reference = self._folder / f"reference-{len(self.points)}.img"
        self._call("cp", "--sparse=always", str(self._folder / "disk.img"), str(reference))
        self.points.append(found["seq"])
        rate = found["read_bytes"] / max(found["seconds"], 1e-9) / 1e6
        return (
            f"point #{found['seq']}: {found['changed_bytes'] >> 20} MiB changed, "
            f"{found['stored_bytes'] / (1 << 20):.1f} MiB stored, {rate:.0f} MB/s"
        )

    def _change(self) -> str:
        fresh = self._folder / "fresh.bin"
        fresh.write_bytes(os.urandom(2 << 20))
        for command in ("rm random.bin", f"write {fresh} fresh.bin", "mkdir made-later"):
            self._call(self._tools["debugfs"], "-w", "-R", command, str(self._folder / "disk.img"))
        fresh.unlink()
        return "8 MiB deleted, 2 MiB written"

    def _destroy(self) -> str:
        with (self._folder / "disk.img").open("r+b") as file:
            file.write(os.urandom(4 << 20))
        (self._folder / "disk.img").unlink()
        (self._folder / "backstay.yaml").unlink()
        (self._folder / "operator.pub").unlink()
        shutil.rmtree(self._folder / "state")
        bare = self._folder / "bare"
        bare.mkdir()
        for name in ("vault", "operator.key"):
            (self._folder / name).rename(bare / name)
        return "left: the vault and the private key"

    def _recover(self, at: int) -> str:
        report = self._backstay(
            "restore",
            MACHINE,
            "--vault",
            "file:./vault",
            "--key",
            "operator.key",
            "--at",
            f"#{self.points[at]}",
            "--to",
            f"point-{at}",
            folder=self._folder / "bare",
            environment={},
        )
        (disk,) = report["disks"]
        return f"{disk['content_bytes'] >> 20} MiB from {report['stored_bytes'] >> 20} MiB"

    def _compare(self, at: int) -> str:
        restored = self._folder / "bare" / f"point-{at}" / f"{MACHINE}-{DISK}.img"
        reference = self._folder / f"reference-{at}.img"
        if not filecmp.cmp(restored, reference, shallow=False):
            raise DamagedObject(
                "the restored disk differs from the original", subject=restored.name
            )
        self._call(self._tools["e2fsck"], "-fn", str(restored))
        return "identical, file system clean"

    def _backstay(
        self,
        *arguments: str,
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        command = [sys.executable, "-m", "pipeline.cli.main", *arguments, "--json"]
        source = str(Path(__file__).resolve().parent.parent)
        env = (dict(os.environ) if environment is None else environment) | {"PYTHONPATH": source}
        done = subprocess.run(
            command, cwd=folder or self._folder, env=env, capture_output=True, check=False
        )
        if done.returncode:
            raise _failure(done.stderr.decode(errors="replace"), " ".join(arguments))
        return dict(json.loads(done.stdout))

    def _call(self, *command: str) -> None:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode:
            raise BackstayError(
                done.stdout.decode(errors="replace").strip(),
                operation="demo",
                subject=" ".join(command),
            )


def _failure(said: str, command: str) -> BackstayError:
    """The error that a command ended with, as its own."""
    subject = f"backstay {command}"
    try:
        fields = json.loads(said)
        kind = getattr(errors, fields["error"])
        failed = kind(fields["message"], operation="demo", subject=subject, hint=fields["hint"])
    except (ValueError, KeyError, TypeError, AttributeError):
        failed = None
    if isinstance(failed, BackstayError):
        return failed
    return BackstayError(said.strip(), operation="demo", subject=subject)


def _tool(name: str) -> str:
    """Where a file system tool is; Debian keeps them out of an ordinary user's PATH."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise MissingTool(
            "is not installed", operation="demo", subject=name, hint="apt install e2fsprogs"
        )
    return path


def _copy_files(tree: Path, limit: int) -> int:
    """Real files for the file system: this Python's own library, up to ``limit`` bytes."""
    count = size = 0
    library = Path(sysconfig.get_path("stdlib"))
    for source in _regular_files(library):
        length = source.stat().st_size
        if size > limit * 0.99:
            break
        if size + length > limit:
            continue
        target = tree / source.relative_to(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        count, size = count + 1, size + length
    return count


def _regular_files(folder: Path) -> Iterator[Path]:
    for above, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(above, name) for name in sorted(names)):
            if path.is_file() and not path.is_symlink():
                yield path


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512
