"""Which URLs are stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.errors import UsageError
from stages.store.file import FileStore
from stages.store.memory import MemoryStore
from stages.store.open import create_store, open_store
from stages.system import this_machine

MACHINE = this_machine()


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("file:/srv/vault", "/srv/vault"),
        ("file:///srv/vault", "/srv/vault"),
        ("file:/srv/vault/", "/srv/vault"),
        ("file:./vault", "/etc/backstay/vault"),
        ("file:./a/b/", "/etc/backstay/a/b"),
        ("file:../vault", "/etc/backstay/../vault"),
        ("file:./", "/etc/backstay"),
        ("file:/with space/100%20/ü", "/with space/100%20/ü"),
    ],
)
def test_directories(url: str, directory: str) -> None:
    for base in ("/etc/backstay", "/etc/backstay/"):
        store = open_store(url, MACHINE, base)
        assert isinstance(store, FileStore)
        assert store.url == f"file:{directory}"


def test_relative_to_the_working_directory() -> None:
    assert open_store("file:./vault", MACHINE).url == "file:./vault"
    assert open_store("file:./vault", MACHINE, "/").url == "file:/vault"


def test_memory() -> None:
    first, second = open_store("memory:", MACHINE), open_store("memory:", MACHINE)
    assert isinstance(first, MemoryStore)
    assert first is not second


@pytest.mark.parametrize(
    "url",
    [
        "",
        "vault",
        "/srv/vault",
        "./vault",
        "s3",
        "memory",
        "memory:x",
        "http://host/x",
        "FILE:/x",
        "file",
        "file:",
        "file:/",
        "file:///",
        "file:vault",
        "file://host/vault",
        "file:/a\nb",
        "file:/a\x00b",
    ],
)
def test_anything_else_names_the_accepted_forms(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url, MACHINE)
    assert caught.value.exit_code == 2
    for form in ("file:/absolute/dir", "file:./relative/dir", "memory:"):
        assert form in caught.value.hint


async def test_create_makes_the_directory_open_does_not(tmp_path: Path) -> None:
    open_store("file:./vault", MACHINE, str(tmp_path))
    assert not (tmp_path / "vault").exists()
    store = await create_store("file:./vault", MACHINE, str(tmp_path))
    assert (tmp_path / "vault/.tmp").is_dir()
    await store.put("a", [b"x"])
    again = await create_store("file:./vault", MACHINE, str(tmp_path))
    assert await again.get("a") == b"x"
    assert isinstance(await create_store("memory:", MACHINE), MemoryStore)
