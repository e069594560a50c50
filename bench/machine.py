"""The machine that was measured on, as far as it says what it is."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.subjects import ROOT

LIBRARIES = (
    "backstay",
    "trio",
    "numpy",
    "blake3",
    "zstandard",
    "pynacl",
    "msgpack",
    "obstore",
    "aiofiles",
    "matplotlib",
)
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "restic": ("restic", "version"),
    "borg": ("borg", "--version"),
    "zstd": ("zstd", "--version"),
    "age": ("age", "--version"),
    "qemu-img": ("qemu-img", "--version"),
    "qemu-nbd": ("qemu-nbd", "--version"),
    "nbdkit": ("nbdkit", "--version"),
    "nbdcopy": ("nbdcopy", "--version"),
    "fio": ("fio", "--version"),
    "mkfs.ext4": ("mkfs.ext4", "-V"),
}
_PATH = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
_PATIENCE = 10.0  # seconds for a program to say its version
_LONGEST = 80  # characters of what it says


@dataclass(frozen=True, slots=True)
class Machine:
    """``memory`` in bytes; ``file_system`` of the folder that copies go to; versions by name of
    ``libraries`` and ``programs``, of which ``missing`` are not installed."""

    system: str
    kernel: str
    cpu: str
    cores: int
    memory: int
    file_system: str
    python: str
    libraries: Mapping[str, str]
    programs: Mapping[str, str]
    missing: tuple[str, ...]

    def same_kind(self, other: Machine) -> bool:
        """True if times on both can be held against each other as they are."""
        mine = (self.cpu, self.cores, self.memory >> 30, self.file_system)
        return mine == (other.cpu, other.cores, other.memory >> 30, other.file_system)


def look(work: Path) -> Machine:
    """This one; copies go below ``work``."""
    said = {name: _version_of(argv) for name, argv in PROGRAMS.items()}
    return Machine(
        system=_system(),
        kernel=platform.release(),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        file_system=file_system(work, Path("/proc/self/mountinfo").read_text()),
        python=platform.python_version(),
        libraries=_libraries(),
        programs={name: text for name, text in said.items() if text is not None},
        missing=tuple(name for name, text in said.items() if text is None),
    )


def load() -> tuple[float, ...]:
    """Load averages over 1, 5 and 15 minutes."""
    return tuple(round(one, 2) for one in os.getloadavg())


def revision(root: Path = ROOT) -> str:
    """The commit of the source that runs, with ``-dirty`` if files differ; nothing if installed."""
    if not (root / ".git").exists():
        return ""
    argv = ("git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return _said(argv) or ""


def file_system(folder: Path, mounts: str) -> str:
    """The type of the file system of a folder, from the text of ``mountinfo``."""
    path, best, found = folder.resolve(), -1, "unknown"
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        mounted = Path(fields[4].replace("\\040", " "))
        depth = len(mounted.parts)
        if depth >= best and path.is_relative_to(mounted):
            best, found = depth, after.split()[0]
    return found


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _version_of(argv: tuple[str, ...]) -> str | None:
    """None if it is not installed."""
    if shutil.which(argv[0], path=_PATH) is None:
        return None
    return _said(argv) or "version unknown"


def _said(argv: tuple[str, ...]) -> str | None:
    """The first line that a program says, on whichever output."""
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, "PATH": _PATH, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0][:_LONGEST] if lines else None
