"""Directories with a file store in them."""

from __future__ import annotations

from pathlib import Path

from stages.ports import Machine
from stages.store.file import FileStore
from stages.system import this_machine


async def made(root: Path, on: Machine | None = None) -> FileStore:
    store = FileStore(str(root), on or this_machine())
    await store.create_root()
    return store


def contents(root: Path) -> dict[str, bytes]:
    """Every file below the root, temporaries too."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
