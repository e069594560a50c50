"""What every store does. The fixtures ``store`` and ``bulk_store`` bring them all here."""

from __future__ import annotations

import time

import numpy as np
import pytest
import trio

from stages.errors import ObjectMissing
from stages.ports import Buffer
from stages.store.cloud.store import CloudStore
from stages.store.port import PAGE, ObjectStore, Put, check_key, walk

TRICKY = [
    "a-b",
    "a-b/c",
    "a-/x",
    "a.b",
    "a./x",
    "a/b/c",
    "a/b-c",
    "a/b.c",
    "a/b0",
    "a0",
    "a0/b",
    "a_",
    "ab",
    "ab/a",
    "-",
    "_/z",
    "0",
    "b/" + "x" * 200,
    "b/" + "/".join(["y"] * 30),
]
TRICKY = [key for key in TRICKY if not any(other.startswith(f"{key}/") for other in TRICKY)]


def alike(names: list[str]) -> list[str]:
    """Those whose byte order is their order folder by folder too."""
    found: list[str] = []
    for name in sorted(names):
        more = [*found, name]
        if more == sorted(more, key=lambda key: key.split("/")):
            found = more
    return found


def tricky(store: ObjectStore) -> list[str]:
    """SeaweedFS lists folder by folder, "a/b" before "a-b". No two names of a vault's folder are
    such that it matters (``test_layout``)."""
    return alike(TRICKY) if on_seaweed(store) else TRICKY


def on_seaweed(store: ObjectStore) -> bool:
    return store.url.startswith(("s3:", "gs:"))


BAD_KEYS = [
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    ".tmp/a",
    "a/.b",
    "a/..",
    "../a",
    "A",
    "a b",
    "a\n",
    "a\x00",
    "ä",
    "a\\b",
    "a:b",
    "x" * 256,
    "/".join(["x" * 100] * 6),
]


def body(number: int, size: int) -> bytes:
    """Bytes that depend on the number and on every offset."""
    return np.random.default_rng(number).bytes(size)


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key async for info in walk(store, prefix, most=10_000)]


async def test_put_get_delete(store: ObjectStore) -> None:
    assert await store.put("a/b", [b"hello"]) is Put.CREATED
    assert await store.get("a/b") == b"hello"
    assert await store.delete("a/b") is True
    with pytest.raises(ObjectMissing) as caught:
        await store.get("a/b")
    assert caught.value.subject == "a/b"
    assert await store.delete("a/b") is False
    assert await keys(store) == []


async def test_put_is_create_only(store: ObjectStore) -> None:
    assert await store.put("k", [b"first"]) is Put.CREATED
    assert await store.put("k", [b"second, longer"]) is Put.EXISTS
    assert await store.put("k", [b"first"]) is Put.EXISTS
    assert await store.get("k") == b"first"


async def test_a_deleted_key_can_be_put_again(store: ObjectStore) -> None:
    for round_ in range(3):
        assert await store.put("a/b/c", [bytes([round_])]) is Put.CREATED
        assert await store.get("a/b/c") == bytes([round_])
        assert await store.delete("a/b/c") is True


async def race(store: ObjectStore, key: str, bodies: list[bytes]) -> list[Put]:
    """Put all bodies at once; the outcomes in the order of the bodies."""
    outcomes: dict[int, Put] = {}

    async def run(racer: int) -> None:
        outcomes[racer] = await store.put(key, [bodies[racer][:99], bodies[racer][99:]])

    async with trio.open_nursery() as nursery:
        for racer in range(len(bodies)):
            nursery.start_soon(run, racer)
    return [outcomes[racer] for racer in range(len(bodies))]


async def test_of_eight_racers_one_wins(store: ObjectStore) -> None:
    for round_ in range(
        2 if store.url.startswith("s3:") else 5
    ):  # SeaweedFS waits in whole seconds
        key = f"race/{round_}/log"
        bodies = [body(racer, 50_000 + racer) for racer in range(8)]
        outcomes = await race(store, key, bodies)
        assert sorted(outcome.value for outcome in outcomes) == ["created"] + ["exists"] * 7
        assert await store.get(key) == bodies[outcomes.index(Put.CREATED)]


async def test_empty_objects(store: ObjectStore) -> None:
    assert await store.put("none", []) is Put.CREATED
    assert await store.put("empty", [b"", bytearray()]) is Put.CREATED
    for key in ("none", "empty"):
        assert await store.get(key) == b""
        assert await store.get(key, 5, 5) == b""
        info = await store.info(key)
        assert info is not None
        assert info.size == 0


async def test_parts_are_joined(store: ObjectStore) -> None:
    whole = body(1, 300_000)
    blocks = np.frombuffer(whole, np.uint8)[:40_960].reshape(10, 4096)
    parts: list[Buffer] = [
        blocks.data,
        b"",
        bytearray(whole[40_960:41_000]),
        memoryview(whole)[41_000:],
    ]
    assert await store.put("joined", parts) is Put.CREATED
    assert await store.get("joined") == whole
    small = [whole[at : at + 7] for at in range(0, 21_000, 7)]
    assert await store.put("small-parts", small) is Put.CREATED
    assert await store.get("small-parts") == whole[:21_000]


async def test_ranges(store: ObjectStore) -> None:
    whole = body(2, 100_000)
    await store.put("r", [whole])
    for offset in (0, 1, 4095, 4096, 99_999, 100_000, 100_001, 1 << 40):
        assert await store.get("r", offset) == whole[offset:]
        for length in (0, 1, 4096, 100_000, 1 << 40):
            assert await store.get("r", offset, length) == whole[offset : offset + length]


@pytest.mark.parametrize(("offset", "length"), [(-1, None), (0, -1), (-1, 1)])
async def test_impossible_ranges(store: ObjectStore, offset: int, length: int | None) -> None:
    await store.put("r", [b"abc"])
    with pytest.raises(ValueError, match="not a range"):
        await store.get("r", offset, length)


async def test_a_range_of_what_is_missing_is_missing(store: ObjectStore) -> None:
    for offset, length in ((0, 0), (5, 1), (0, None)):
        with pytest.raises(ObjectMissing):
            await store.get("missing/key", offset, length)


async def test_info(store: ObjectStore) -> None:
    assert await store.info("i") is None
    before = time.time()
    await store.put("i", [b"12345"])
    info = await store.info("i")
    assert info is not None
    assert (info.key, info.size) == ("i", 5)
    assert info.modified == 0 or abs(info.modified - before) < 3600
    assert await store.page("i") == [info]
    await store.delete("i")
    assert await store.info("i") is None


async def test_a_folder_is_no_object(store: ObjectStore) -> None:
    await store.put("folder/object", [b"x"])
    assert await store.info("folder") is None
    assert await store.delete("folder") is False
    with pytest.raises(ObjectMissing):
        await store.get("folder")
    assert await store.info("folder/object/inside") is None
    assert await store.delete("folder/object/inside") is False
    with pytest.raises(ObjectMissing):
        await store.get("folder/object/inside")
    assert await store.page("folder/object/") == []


async def test_listing_is_in_byte_order_of_the_keys(bulk_store: ObjectStore) -> None:
    names = tricky(bulk_store)
    for key in names:
        await bulk_store.put(key, [key.encode()])
    ordered = sorted(names)
    assert await keys(bulk_store) == ordered
    for prefix in [
        "",
        "a",
        "a-",
        "a.",
        "a/",
        "a/b",
        "a/b/",
        "a0",
        "b/y/y",
        "b/x",
        "nothing",
        "a//",
    ]:
        expected = [key for key in ordered if key.startswith(prefix)]
        assert [info.key for info in await bulk_store.page(prefix)] == expected
        assert [info.size for info in await bulk_store.page(prefix)] == [
            len(key) for key in expected
        ]


async def test_listing_starts_after_any_string(bulk_store: ObjectStore) -> None:
    names = tricky(bulk_store)
    for key in names:
        await bulk_store.put(key, [])
    ends = ["", "-", ".", "/", "0", "a", "a-", "a.", "a/", "a/b", "a/b/", "a/c", "a0", "zz", "é"]
    for prefix in ("", "a", "a/", "b/y"):
        for after in [*ends, *names, *(key + "/" for key in names)]:
            folder = any(key.startswith(f"{after}/") for key in names)
            if folder and on_seaweed(bulk_store):
                continue  # SeaweedFS begins after a folder of that name
            expected = sorted(key for key in names if key.startswith(prefix) and key > after)
            found = [info.key for info in await bulk_store.page(prefix, after)]
            assert found == expected, (prefix, after)


async def test_listing_page_by_page(bulk_store: ObjectStore) -> None:
    names = tricky(bulk_store)
    for key in names:
        await bulk_store.put(key, [])
    for limit in (1, 2, 3, len(names), len(names) + 1):
        found: list[str] = []
        while page := await bulk_store.page("", found[-1] if found else "", limit):
            assert len(page) == min(limit, len(names) - len(found))
            found += [info.key for info in page]
        assert found == sorted(names)


@pytest.mark.parametrize("prefix", ["../", "/", "//", "a/../", "./", "\x00", "a\x00/", "é/", "A/"])
async def test_a_prefix_that_no_key_has_lists_nothing(store: ObjectStore, prefix: str) -> None:
    await store.put("a/b", [b"x"])
    assert await store.page(prefix) == []


async def test_a_page_holds_something(store: ObjectStore) -> None:
    for limit in (0, -1):
        with pytest.raises(ValueError, match="not a page"):
            await store.page("", "", limit)


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_bad_keys_are_defects(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="not an object key"):
        await store.put(key, [b"x"])
    with pytest.raises(ValueError, match="not an object key"):
        await store.get(key)
    with pytest.raises(ValueError, match="not an object key"):
        await store.info(key)
    with pytest.raises(ValueError, match="not an object key"):
        await store.delete(key)
    assert await keys(store) == []


@pytest.mark.parametrize("key", ["a", "-", "_", "a.b", "a..b", "x" * 255, "/".join("a" * 256)])
async def test_good_keys(store: ObjectStore, key: str) -> None:
    assert check_key(key) == key
    assert await store.put(key, [b"x"]) is Put.CREATED
    assert await keys(store) == [key]


@pytest.mark.parametrize("ticks", range(8))
async def test_a_cancelled_put_is_whole_or_absent(store: ObjectStore, ticks: int) -> None:
    whole = body(3, 200_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.put, "c/d", [whole[:1000], whole[1000:]])
        for _ in range(ticks):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    info = await store.info("c/d")
    if info is not None:
        assert await store.get("c/d") == whole
    settled = await store.put("c/d", [whole])
    if info is not None:
        assert settled is Put.EXISTS
    elif not isinstance(store, CloudStore):  # there the first put may arrive between the two
        assert settled is Put.CREATED
    assert await store.get("c/d") == whole
    assert await keys(store) == ["c/d"]


async def test_cancelled_before_it_starts_does_nothing(store: ObjectStore) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.put("c", [b"x"])
    assert scope.cancelled_caught
    assert await store.info("c") is None


async def test_gets_run_side_by_side(store: ObjectStore) -> None:
    bodies = {f"p/{number}": body(number, 20_000 + number) for number in range(20)}
    for key, data in bodies.items():
        await store.put(key, [data])

    async def check(key: str) -> None:
        assert await store.get(key) == bodies[key]
        assert await store.get(key, 10_000, 5_000) == bodies[key][10_000:15_000]

    async with trio.open_nursery() as nursery:
        for key in [*bodies, *bodies, *bodies]:
            nursery.start_soon(check, key)


async def test_thousands_of_keys(large_store: ObjectStore) -> None:
    count = {"s3": 2100, "az": 1200}.get(large_store.url[:2], 3000)  # more than a page
    names = sorted(f"t/{number % 3}/{number * 7919 % count:06d}" for number in range(count))

    async def put(part: list[str]) -> None:
        for name in part:
            assert await large_store.put(name, [name.encode()]) is Put.CREATED

    async with trio.open_nursery() as nursery:
        for worker in range(4):
            nursery.start_soon(put, names[worker::4])
    first = await large_store.page("")
    assert [info.key for info in first] == names[:PAGE]
    assert await keys(large_store) == names
    assert await keys(large_store, "t/1/") == [name for name in names if name.startswith("t/1/")]
    assert [info.key for info in await large_store.page("t/", names[-3], 10)] == names[-2:]
    assert [info.key async for info in walk(large_store, "t/", most=1100)] == names[:1100]
    assert await large_store.get(names[1123]) == names[1123].encode()
