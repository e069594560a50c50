"""What ``vault check`` finds out about a credential, and that nothing is left where it may not."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stages.errors import BackstayError, StoreDenied, StoreUnreachable
from stages.ports import Buffer
from stages.store.canary import CONTENT, KEY, Powers, powers
from stages.store.memory import MemoryStore
from tests.store.places import made


@dataclass
class Guarded(MemoryStore):
    """Refuses what it is told to."""

    refused: dict[str, BackstayError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    async def put(self, key: str, parts: object) -> object:  # type: ignore[override]
        self._guard("put")
        return await super().put(key, parts)  # type: ignore[arg-type]

    async def overwrite(self, key: str, data: Buffer) -> None:
        self._guard("overwrite")

    async def delete(self, key: str) -> bool:
        self._guard("delete")
        return await super().delete(key)

    def _guard(self, name: str) -> None:
        if name in self.refused:
            raise self.refused[name]


NO = StoreDenied("no")


@pytest.mark.parametrize(
    ("refused", "found"),
    [
        ((), Powers(True, True, True)),
        (("overwrite",), Powers(True, False, True)),
        (("delete",), Powers(True, True, False)),
        (("overwrite", "delete"), Powers(True, False, False)),
        (("put",), Powers(False)),
    ],
)
async def test_what_is_refused(refused: tuple[str, ...], found: Powers) -> None:
    store = Guarded(dict.fromkeys(refused, NO))
    for _ in range(2):  # the second time it may be there already
        assert await powers(store) == found  # type: ignore[arg-type]
    left = await store.page("")
    assert [info.key for info in left] == ([KEY] if found.create and not found.delete else [])


@pytest.mark.parametrize("name", ["put", "overwrite", "delete"])
async def test_trouble_says_nothing(name: str) -> None:
    store = Guarded({name: StoreUnreachable("away")})
    with pytest.raises(StoreUnreachable):
        await powers(store)  # type: ignore[arg-type]


async def test_a_folder(tmp_path: Path) -> None:
    store = await made(tmp_path / "s")
    assert await powers(store) == Powers(True, True, True)
    assert await store.page("") == []
    await store.put(KEY, [b"something longer than what is written over it" * 9])
    await store.overwrite(KEY, CONTENT)
    assert await store.get(KEY) == CONTENT


async def test_where_it_cannot_be_told() -> None:
    assert await powers(MemoryStore()) is None
