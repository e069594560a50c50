"""What the tests of the configuration share."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Config, load
from stages.errors import ConfigError
from stages.ports import FileStat
from stages.system import SystemFiles

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "configs/site.yaml"  # another program's
GOOD = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path != SITE)
BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))

HEAD = """daemon: {state: ./state}
vaults:
  standby: {url: "file:./vault", trust: ./backstay.pub}
"""
TAIL = """machines:
  web1:
    vault: standby
    disks:
      root: {path: ./disk.img, capture: scan}
"""


class OneFile(SystemFiles):
    """A file system with one file, or one that fails."""

    def __init__(self, data: bytes = b"", error: OSError | None = None):
        self._data = data
        self._error = error

    def stat(self, path: str) -> FileStat | None:
        return FileStat(1, 1, len(self._data), 0, 0, 0, True, False, False, 0o600)

    def read(self, path: str, limit: int) -> bytes:
        if self._error is not None:
            raise self._error
        assert len(self._data) <= limit
        return self._data


def read(text: str | bytes, name: str = "/etc/x/c.yaml") -> Config:
    """Load a configuration from memory."""
    data = text.encode() if isinstance(text, str) else text
    return load(name, files=OneFile(data))


def lines_of(text: str | bytes) -> list[str]:
    """The lines told about a wrong configuration; none if it is right."""
    try:
        read(text)
    except ConfigError as error:
        return error.message.split("\n")
    return []
