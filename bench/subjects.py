"""What is measured: programs that copy an image away and bring it back, Backstay among them.

A subject that is not installed says so and is left out. Each copy lies in a folder of its own, on
the same file system as all the others.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from bench.blank import Blank
from bench.inputs import stored_in
from bench.measure import Command, checked

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "correct horse battery staple"  # of drills only
BACKSTAY = "backstay"
MACHINE, DISK = "bench", "root"
_BLANK = Blank()


def python_environment() -> dict[str, str]:
    """So that child processes find the packages this one runs from."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def python_command(module: str, *arguments: str, cwd: Path | None = None) -> Command:
    """``python -m module`` with this interpreter."""
    return Command((sys.executable, "-m", module, *arguments), python_environment(), cwd)


def json_of(output: str) -> dict[str, Any]:
    """The JSON document that a command printed, or nothing."""
    try:
        found = json.loads(output)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def machine_of(output: str) -> dict[str, Any]:
    """What a JSON report says, and what it says of its first machine, in one."""
    found = json_of(output)
    machines = found.get("machines")
    if isinstance(machines, list) and machines and isinstance(machines[0], dict):
        return {**found, **machines[0]}
    return found


class Copy(ABC):
    """A repository in ``folder`` for copies of one image, made empty."""

    def __init__(self, folder: Path, image: Path):
        self.folder = folder
        self.image = image
        self.repository = folder / "repository"

    @abstractmethod
    def backup(self) -> Command:
        """Bring the copy up to date; also when there is one already."""

    @abstractmethod
    def restore(self, target: Path) -> Command:
        """Bring the newest copy back below the empty folder ``target``."""

    @abstractmethod
    def restored(self, target: Path) -> Path:
        """Where ``restore`` puts the image."""

    def stored(self) -> int:
        """Bytes it keeps."""
        return stored_in(self.repository)

    def figures(self, output: str) -> Mapping[str, float]:
        """What it says of a run by itself; ``inner`` is seconds without start-up."""
        return {}

    def stages(self, output: str) -> Mapping[str, Mapping[str, float]]:
        """How its stages spent the time, as in ``Sample.stages``; most cannot say."""
        return {}


class Subject(ABC):
    """A program. ``needs``: the commands it consists of."""

    name: str
    needs: tuple[str, ...] = ()

    def missing(self) -> str:
        """What is not installed, or nothing."""
        return ", ".join(need for need in self.needs if shutil.which(need) is None)

    @abstractmethod
    def open(self, folder: Path, image: Path) -> Copy:
        """Make an empty repository. Not timed. Raises ``CommandFailed``."""


class Backstay(Subject):
    """This program, by its command line."""

    name = BACKSTAY

    def __init__(self, pipeline: Mapping[str, Any] | None = None, url: str = ""):
        self._pipeline = pipeline
        self._url = url

    def at(self, url: str) -> Subject:
        """The same, its vault at ``url`` and not in a folder."""
        return Backstay(self._pipeline, url)

    def missing(self) -> str:
        """Its command line, while it is being built."""
        try:
            there = find_spec("pipeline.cli.main")
        except ImportError:
            there = None
        return "" if there else "pipeline.cli"

    def copy(self, folder: Path, image: Path) -> BackstayCopy:
        """What lies in ``folder``, or will."""
        return BackstayCopy(folder, image, self._url)

    def open(self, folder: Path, image: Path) -> Copy:
        """Key, vault and configuration."""
        copy = self.copy(folder, image)
        if self._url:
            self._found(copy)
        else:
            _BLANK.into(folder, lambda there: self._found(self.copy(there, image)))
        copy.config.write_text(json.dumps(copy.settings(self._pipeline)))
        return copy

    @staticmethod
    def _found(copy: BackstayCopy) -> None:
        """Key, vault, and the key of this writer."""
        checked(copy.command("keygen", "--out", str(copy.key), "--no-passphrase"), copy.folder)
        made = ("init", copy.url, "--key", f"{copy.key}.key", "--single-recipient")
        checked(copy.command(*made, "--state", str(copy.folder / "state")), copy.folder)


class BackstayCopy(Copy):
    """A vault, its key, a state folder and a configuration."""

    def __init__(self, folder: Path, image: Path, url: str = ""):
        super().__init__(folder, image)
        self.key = folder / "operator"
        self.config = folder / "backstay.yaml"
        self.url = url or f"file:{self.repository}"

    def settings(self, pipeline: Mapping[str, Any] | None) -> dict[str, Any]:
        """A configuration of one machine with one disk (JSON is YAML)."""
        return {
            "daemon": {"state": str(self.folder / "state")},
            "vaults": {"vault": {**self._place(), "trust": f"{self.key}.pub"}},
            **({"pipelines": {"default": dict(pipeline)}} if pipeline else {}),
            "machines": {
                MACHINE: {
                    "vault": "vault",
                    "disks": {DISK: {"path": str(self.image), "capture": "scan"}},
                }
            },
        }

    def _place(self) -> dict[str, str]:
        """A configuration gives the options of an address as keys."""
        url, _, options = self.url.partition("?")
        return {"url": url, **dict(parse_qsl(options))}

    def command(self, *arguments: str) -> Command:
        """``backstay`` with arguments."""
        return python_command("pipeline.cli.main", *arguments, cwd=self.folder)

    def backup(self) -> Command:
        """One pass over the disk."""
        return self.command("run", str(self.config), "--once", "--json")

    def restore(self, target: Path) -> Command:
        """From vault and key alone."""
        reach = ("--vault", self.url, "--key", f"{self.key}.key")
        return self.command("restore", MACHINE, *reach, "--to", str(target), "--json")

    def restored(self, target: Path) -> Path:
        """Named after machine and disk."""
        return target / f"{MACHINE}-{DISK}.img"

    def figures(self, output: str) -> Mapping[str, float]:
        """Numbers of the JSON report, of its only machine."""
        found = machine_of(output)
        figures = {
            name: float(value) for name, value in found.items() if type(value) in (int, float)
        }
        if "seconds" in figures:
            figures["inner"] = figures.pop("seconds")
        if "changed_bytes" in figures:
            left_out = figures.get("zero_bytes", 0.0) + figures.get("deduplicated_bytes", 0.0)
            figures["sent"] = figures["changed_bytes"] - left_out
        return figures

    def stages(self, output: str) -> Mapping[str, Mapping[str, float]]:
        """As ``run --once --json`` says it."""
        found = machine_of(output).get("stages", {})
        return {
            str(name): {str(key): float(share) for key, share in shares.items()}
            for name, shares in found.items()
        }
