"""Listing a directory tree in the order of the keys.

Directory by directory is another order than key by key: ``-`` and ``.`` sort before ``/``, so the
objects in folder ``a`` come after ``a-b`` and ``a.b``. Here a folder waits until no later name of
its directory can still sort before its content. Folders that cannot hold what is asked for are
not read, objects before ``after`` are not looked at; memory is the names of one directory for each
level.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from stages.ports import Files, FileStat
from stages.store.port import MAX_KEY, check_key

_NAME = re.compile(r"[a-z0-9_-][a-z0-9._-]*")


def objects(files: Files, root: str, prefix: str, after: str) -> Iterator[tuple[str, FileStat]]:
    """Objects whose keys start with ``prefix`` and sort after ``after``, in byte order of the keys.

    ``OSError`` as the file system raises it; a missing ``root`` lists as empty. Files whose names
    are no keys (temporaries, ``lost+found``) are passed over.
    """
    folder, slash, stem = prefix.rpartition("/")
    if slash:
        try:
            check_key(folder)  # also keeps ".." out
        except ValueError:
            return
    yield from _inside(files, root, folder + slash, stem, after)


def _inside(
    files: Files, root: str, base: str, stem: str, after: str
) -> Iterator[tuple[str, FileStat]]:
    """Objects in the folder ``base`` ("" or with its slash) whose names start with ``stem``."""
    if after > base and not after.startswith(base):
        return  # everything in here sorts before it
    rest = after[len(base) :] if after.startswith(base) else ""
    waiting: list[str] = []  # folders; the last one sorts first
    for name in files.listdir(f"{root}/{base}"):
        if not (_may_hold(name, rest) and name.startswith(stem) and _NAME.fullmatch(name)):
            continue
        while waiting and f"{waiting[-1]}/" < name:
            yield from _inside(files, root, f"{base}{waiting.pop()}/", "", after)
        found = files.stat(f"{root}/{base}{name}")
        if found is None or len(base) + len(name) > MAX_KEY:
            continue
        if found.is_dir:
            waiting.append(name)
        elif found.is_file and name > rest:
            yield base + name, found
    while waiting:
        yield from _inside(files, root, f"{base}{waiting.pop()}/", "", after)


def _may_hold(name: str, rest: str) -> bool:
    """True if the file ``name``, or something in the folder of that name, sorts after ``rest``."""
    return f"{name}/" > rest or rest.startswith(f"{name}/")
