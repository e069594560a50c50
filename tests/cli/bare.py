"""A bare machine: another user, an empty folder, no environment; a program, a vault and a key.

The program is this project and what it requires, by hard links or copies where everyone may read.
The interpreter is this one if the other user may run it, else the system's of the same version.
Without root there is no other user to be: then all else is as bare.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tests.cli.support import ROOT

_REQUIRED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


@dataclass(frozen=True)
class Bare:
    """``home`` is where commands run; ``program`` holds what was installed."""

    program: Path
    home: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program, or what a shell makes of one word."""
        command = words if len(words) > 1 else ("sh", "-c", words[0])
        environment = {"PATH": f"{self.program}/bin:/usr/bin:/bin"}
        return subprocess.run(
            [*as_another(), *command],
            cwd=self.home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def fine(self, *words: str) -> str:
        """Run a program that has to succeed; its standard output."""
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout


def install(folder: Path) -> Bare:
    """Put the program into ``folder``, and an empty home beside it."""
    folder.chmod(0o755)
    program, home = folder / "program", folder / "home"
    for path in (program, home):
        path.mkdir(mode=0o755)
    for package in ("pipeline", "stages"):
        shutil.copytree(ROOT / package, program / package)
    _copy_requirements(program)
    for path in (program, *program.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    script = program / "bin" / "backstay"
    script.parent.mkdir(exist_ok=True)
    script.write_text(
        "#!/bin/sh\n"
        f"PYTHONPATH={program} PYTHONDONTWRITEBYTECODE=1 "
        f'exec {_interpreter()} -s -m pipeline.cli.main "$@"\n'
    )
    script.chmod(0o755)
    return Bare(program, home)


def hand_over(path: Path) -> None:
    """Let the other user have a file or folder."""
    if os.geteuid() == 0:
        for each in (path, *path.rglob("*")):
            shutil.chown(each, "nobody", "nogroup")


def as_another() -> tuple[str, ...]:
    """What makes a command run as another user, where that is possible."""
    return _AS_NOBODY if os.geteuid() == 0 else ()


def _interpreter() -> str:
    for python in (str(Path(sys.executable).resolve()), "/usr/bin/python3"):
        asked = f"{python} -I -c 'import sys; print(*sys.version_info[:2])'"
        done = subprocess.run(
            [*as_another(), "sh", "-c", asked],  # setpriv itself may still go everywhere
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.stdout.split() == [str(part) for part in sys.version_info[:2]]:
            return python
    raise AssertionError(f"no Python {sys.version_info[:2]} that another user may run")


def _copy_requirements(program: Path) -> None:
    """The files of all distributions that the project requires, but no scripts."""
    site = Path(sysconfig.get_path("purelib"))
    for name in sorted(_required("backstay")):
        for file in importlib.metadata.distribution(name).files or ():
            source = Path(str(file.locate()))
            if ".." in file.parts or not source.is_file():
                continue
            target = program / source.relative_to(site)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)


def _link(source: Path, target: Path) -> None:
    """One file that everyone may read, without copying it if that can be had."""
    if source.stat().st_mode & 0o004:
        try:
            target.hardlink_to(source)
            return
        except OSError:
            pass  # another file system
    shutil.copy2(source, target)
    target.chmod(0o755)


def _required(name: str) -> set[str]:
    """Distributions that ``name`` needs to run, those that these need included."""
    found: set[str] = set()
    left = [name]
    while left:
        for requirement in importlib.metadata.requires(left.pop()) or ():
            wanted, _, marker = requirement.partition(";")
            match = _REQUIRED.match(wanted)
            name = re.sub("[-_.]+", "-", match[0]).lower() if match else ""
            if not name or "extra" in marker or name in found:
                continue
            try:
                importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                continue  # for another Python or platform
            found.add(name)
            left.append(name)
    return found
