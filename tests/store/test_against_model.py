"""Random calls: every store answers as a dictionary would."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.errors import ObjectMissing
from stages.store.port import ObjectStore, Put

Call = tuple[str, str, str, int, int]


def scripts(segments: list[str]) -> st.SearchStrategy[list[Call]]:
    """Calls with keys of up to three segments."""
    keys = st.lists(st.sampled_from(segments), min_size=1, max_size=3).map("/".join)
    cuts = st.builds(lambda key, end: key[:end], keys, st.integers(0, 8))
    strings = st.one_of(keys, cuts, keys.map(lambda key: f"{key}/"), st.text(max_size=3))
    call = st.tuples(
        st.sampled_from(["put", "put", "put", "delete", "get", "info", "page", "page"]),
        keys,
        strings,
        st.integers(0, 12),
        st.integers(0, 12),
    )
    return st.lists(call, max_size=30)


ANY = ["a", "b", "a-b", "a.b", "ab", "a0", "a-", "a.", "-", "_", "0"]
ORDERED = ["a", "b", "ab", "a0", "_", "0"]  # also folder by folder, as SeaweedFS lists


@dataclass
class Model:
    """The oracle: nothing but a dictionary."""

    objects: dict[str, bytes] = field(default_factory=dict)

    def clashes(self, key: str) -> bool:
        return any(
            other.startswith(f"{key}/") or key.startswith(f"{other}/") for other in self.objects
        )

    def page(self, prefix: str, after: str, limit: int) -> list[tuple[str, int]]:
        found = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        return [(key, len(self.objects[key])) for key in found[:limit]]


async def compare(store: ObjectStore, model: Model, call: Call) -> None:
    name, key, text, first, second = call
    match name:
        case "put" if not model.clashes(key):
            data = f"{text}{first}".encode("utf-8", "replace")
            expected = Put.EXISTS if key in model.objects else Put.CREATED
            model.objects.setdefault(key, data)
            assert await store.put(key, [data[:2], data[2:]]) is expected
        case "delete":
            assert await store.delete(key) is (model.objects.pop(key, None) is not None)
        case "get" if key in model.objects:
            expected_bytes = model.objects[key][first : first + second]
            assert await store.get(key, first, second) == expected_bytes
        case "get":
            try:
                raise AssertionError(await store.get(key, first, second))
            except ObjectMissing:
                pass
        case "info":
            info = await store.info(key)
            assert (info.size if info else None) == (
                len(model.objects[key]) if key in model.objects else None
            )
        case "page":
            prefix = key[:second] if second < 6 else ""
            found = [(info.key, info.size) for info in await store.page(prefix, text, first + 1)]
            assert found == model.page(prefix, text, first + 1)


SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(script=scripts(ANY))
async def test_any_script(local_store: ObjectStore, script: list[Call]) -> None:
    await play(local_store, script)


@settings(max_examples=8, deadline=None, suppress_health_check=SLOW)
@given(script=scripts(ORDERED))
async def test_any_script_in_a_cloud(cloud_store: ObjectStore, script: list[Call]) -> None:
    # SeaweedFS takes "after a" for "after the folder a"; this program names keys and no folders.
    await play(cloud_store, script, folders=cloud_store.url.startswith("az:"))


async def play(store: ObjectStore, script: list[Call], *, folders: bool = True) -> None:
    """``folders``: lists may begin after the name of a folder."""
    model = Model()
    try:
        for call in script:
            if not folders and any(key.startswith(f"{call[2]}/") for key in model.objects):
                continue
            await compare(store, model, call)
        found = [(info.key, info.size) for info in await store.page("")]
        assert found == model.page("", "", 1000)
    finally:
        for info in await store.page(""):
            await store.delete(info.key)
