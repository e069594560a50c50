"""Disk images to measure with: a real ext4 file system of this machine's own system files.

Made without root by ``mkfs.ext4 -d``, from copies of installed files in a fixed order. Identical
package versions give the same image; its cache name says size and what went into it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.model import BLOCK

SOURCES = ("/usr/lib", "/usr/share", "/usr/bin", "/usr/sbin", "/usr/include", "/opt")
MAX_FILE = 256 << 20  # one huge file would make the image a picture of that file
MAX_FILES = 400_000
_FOLDERS = 5  # one folder below a source gives at most a fifth, or the image would be one program
_CHUNK = 4 << 20
_TIME = "1700000000"
_FIRST_INODE = 11  # lost+found; what is copied follows in one row
_UUID = "6b1d4b3a-6f0e-4f0c-9d7e-0f5c0a4be001"


class InputFailed(Exception):
    """An image cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is in an image, counted. Bytes; ``nonzero`` counts whole blocks that are not zero."""

    size: int
    allocated: int
    nonzero: int


@dataclass(frozen=True, slots=True)
class _Picked:
    path: Path
    size: int


def image(folder: Path, wanted: int, sources: tuple[str, ...] = SOURCES) -> Path:
    """An ext4 image with about ``wanted`` bytes of files, made in ``folder`` unless it is there.

    Raises ``InputFailed``.
    """
    picked = list(pick(wanted, sources))
    if not picked:
        raise InputFailed(f"no readable files below {', '.join(sources)}")
    name = hashlib.sha256("\n".join(f"{one.path} {one.size}" for one in picked).encode())
    path = folder / f"system-{wanted >> 20}-{name.hexdigest()[:12]}.img"
    if path.exists():
        return path
    tool = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if tool is None:
        raise InputFailed("mkfs.ext4 is not installed (package e2fsprogs)")
    tree, partial = folder / "tree", folder / f"{path.name}.partial"
    try:
        _copy(picked, tree)
        _make(tool, tree, partial, sum(one.size + BLOCK for one in picked), len(picked))
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    return partial.rename(path)


def pick(wanted: int, sources: tuple[str, ...] = SOURCES) -> Iterator[_Picked]:
    """Regular files of the system, sorted by path, until their sizes add up to ``wanted``.

    A file with several names is taken once: copied for each name, it would be a gift to
    deduplication.
    """
    total = count = 0
    from_folder: Counter[str] = Counter()
    for source in sources:
        for path, size in _files(source):
            folder = "/".join(path.parts[: source.count("/") + 2])
            if total + size > wanted or from_folder[folder] + size > wanted // _FOLDERS:
                continue
            yield _Picked(path, size)
            from_folder[folder] += size
            total += size
            count += 1
            if total >= wanted * 0.99 or count >= MAX_FILES:
                return


def _files(source: str) -> Iterator[tuple[Path, int]]:
    linked: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            try:
                found = path.lstat()
            except OSError:
                continue
            if not stat.S_ISREG(found.st_mode) or not 0 < found.st_size <= MAX_FILE:
                continue
            if found.st_nlink > 1:
                if (found.st_dev, found.st_ino) in linked:
                    continue
                linked.add((found.st_dev, found.st_ino))
            if os.access(path, os.R_OK):
                yield path, found.st_size


def _copy(picked: list[_Picked], tree: Path) -> None:
    for one in picked:
        target = tree / one.path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one.path, target)
        os.utime(target, (0, 0))
    for folder, _, _ in os.walk(tree, topdown=False):
        os.utime(folder, (0, 0))


def _make(tool: str, tree: Path, path: Path, content: int, files: int) -> None:
    """A sparse image with a third of it free, as disks in use have."""
    size = max(16 << 20, content * 3 // 2 + files * 512 + (8 << 20))
    with path.open("wb") as file:
        file.truncate(-(-size // (1 << 20)) << 20)
    argv = [tool, "-q", "-F", "-U", _UUID, "-E", f"hash_seed={_UUID}", "-d", str(tree), str(path)]
    _run(argv)
    _same_times(path, sum(len(folders) + len(names) for _, folders, names in os.walk(tree)))


def _same_times(path: Path, entries: int) -> None:
    """mkfs takes the time at which an inode of the tree was changed, which nobody can set: two
    images would differ unless they were made in one second."""
    tool = shutil.which("debugfs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if tool is None:
        raise InputFailed("debugfs is not installed (package e2fsprogs)")
    numbers = [2, *range(_FIRST_INODE, _FIRST_INODE + entries + 1)]
    script = "".join(f"set_inode_field <{number}> ctime @{_TIME}\n" for number in numbers)
    _run([tool, "-w", "-f", "-", str(path)], script)


def _run(argv: list[str], said: str = "") -> None:
    done = subprocess.run(
        argv,
        env={**os.environ, "E2FSPROGS_FAKE_TIME": _TIME},
        input=said,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputFailed(f"{' '.join(argv)}: {done.stderr.strip()[-500:]}")


def ext4_of(tree: Path, path: Path) -> None:
    """An ext4 image of a folder, with a third of it free. Raises ``InputFailed``."""
    tool = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if tool is None:
        raise InputFailed("mkfs.ext4 is not installed (package e2fsprogs)")
    sizes = [one.stat().st_size for one in tree.rglob("*") if one.is_file()]
    _make(tool, tree, path, sum(size + BLOCK for size in sizes), len(sizes))


def clone(source: Path, target: Path) -> Path:
    """A sparse copy of an image."""
    subprocess.run(["cp", "--sparse=always", "--", str(source), str(target)], check=True)
    return target


def content_of(path: Path) -> Content:
    """Count the blocks of an image."""
    found = path.stat()
    nonzero = 0
    for chunk in _chunks(path):
        nonzero += int(np.count_nonzero(_blocks(chunk).any(axis=1)))
    return Content(found.st_size, found.st_blocks * 512, nonzero * BLOCK)


def change(path: Path, share: float, seed: int) -> int:
    """Overwrite a share of the non-zero blocks with random bytes, at random; returns how many.

    Random bytes do not compress, so what is stored for them can be held against their size.
    """
    dice = np.random.default_rng(seed)
    used = np.concatenate(
        [
            np.flatnonzero(_blocks(chunk).any(axis=1)) + at * (_CHUNK // BLOCK)
            for at, chunk in enumerate(_chunks(path))
        ]
    )
    count = max(1, int(len(used) * share))
    with path.open("r+b") as file:
        for block in np.sort(dice.choice(used, count, replace=False)).tolist():
            file.seek(block * BLOCK)
            file.write(dice.bytes(BLOCK))
    return count


def same(one: Path, other: Path) -> bool:
    """True if both files hold the same bytes."""
    if not other.is_file() or one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while data := left.read(_CHUNK):
            if data != right.read(_CHUNK):
                return False
    return True


def warm(*paths: Path) -> None:
    """Read files, and all files below folders, so that they are in the page cache."""
    for path in paths:
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        for one in files:
            with one.open("rb", buffering=0) as file:
                while file.read(_CHUNK):
                    pass


def stored_in(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            yield data


def _blocks(chunk: bytes) -> np.ndarray:
    """Whole blocks (n, 512) of a chunk; an image's size is a multiple of a block's."""
    return np.frombuffer(chunk, np.uint64).reshape(-1, BLOCK // 8)
