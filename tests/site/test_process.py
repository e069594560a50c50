"""The process as such: full disk, kill -9 amid puts, SIGHUP, SIGTERM with a put under way."""

from __future__ import annotations

import shutil
import signal
import ssl
from collections.abc import Sized
from functools import partial
from pathlib import Path

import pytest
import trio

from stages.errors import NoSpace, StoreDenied, StoreUnreachable
from stages.store.port import ObjectStore, Put, walk
from stages.store.retry import RetryStore
from stages.store.site.protocol import collection
from stages.system import this_machine
from tests.daemon.disks import small
from tests.faults.mounts import ROOT_NEEDED, available
from tests.site.serving import Served, make_certificates, served, until


def _body(number: int) -> bytes:
    return number.to_bytes(4) * (10_000 + 17 * number)


@pytest.mark.skipif(not available(), reason=ROOT_NEEDED)
async def test_a_full_disk(tmp_path: Path, site_process: Served) -> None:
    shutil.copytree(site_process.place / "certs", tmp_path / "certs")
    with small(tmp_path / "vault", "4m"), served(tmp_path) as site:
        store = site.store()
        assert await store.put("before", [bytes(1 << 20)]) is Put.CREATED
        for size in (5 << 20, 7 << 19):  # what arrives in pieces, and what never fits
            with pytest.raises(NoSpace) as caught:
                await store.put("large", [bytes(size)])
            assert caught.value.recoverable
            assert "the site says: No space left" in caught.value.message
        assert await store.info("large") is None
        assert list((site.vault / ".tmp").iterdir()) == []
        (site.vault / "before").unlink()
        assert await store.put("large", [bytes(3 << 20)]) is Put.CREATED
        await store.aclose()


async def test_kill_9_amid_puts(tmp_path: Path, site_process: Served) -> None:
    """Two daemons put while the site is killed again and again: each settles what it put, what was
    acknowledged is there, and nothing is there in part."""
    shutil.copytree(site_process.place / "certs", tmp_path / "certs")
    machine = this_machine()
    outcomes: dict[str, list[Put]] = {}
    killed = 0
    with served(tmp_path) as site:

        async def putter(client: str, done: trio.Event) -> None:
            inner = site.store(client)
            store = RetryStore(inner, machine.clock, machine.entropy, seconds=60)
            number = 0
            while killed < 3 or number % 5:
                for key, body in ((f"{client}/{number}", _body(number)), (f"both/{number}", b"")):
                    found = await store.put(key, [body or f"{client} {number}".encode()])
                    outcomes.setdefault(key, []).append(found)
                number += 1
            await inner.aclose()
            done.set()

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                ends = [trio.Event(), trio.Event()]
                nursery.start_soon(putter, "web1", ends[0])
                nursery.start_soon(putter, "admin", ends[1])
                while killed < 3:
                    seen = len(outcomes)
                    await until(partial(_more_than, outcomes, seen + 10))
                    await trio.to_thread.run_sync(site.kill)
                    killed += 1
                    await trio.to_thread.run_sync(site.start)
        store = site.store("reader")
        present = {info.key async for info in walk(store, "", most=100_000)}
        assert present == set(outcomes)
        for key, found in outcomes.items():
            client, _, number = key.partition("/")
            if client != "both":
                assert found == [Put.CREATED]
                assert await store.get(key) == _body(int(number))
            else:
                assert found.count(Put.CREATED) == 1, found
                winner = await store.get(key)
                assert winner in (f"web1 {number}".encode(), f"admin {number}".encode())
        await store.aclose()


async def _put_slowly(site: Served, size: int, begun: trio.Event, gate: trio.Event) -> bytes:
    """Half of a put, the rest when the gate opens; what was answered. ``begun``: it is heard."""
    certs = site.place / "certs"
    context = ssl.create_default_context(cafile=str(certs / "ca.crt"))
    context.load_cert_chain(str(certs / "web1.crt"), str(certs / "web1.key"))
    stream = await trio.open_ssl_over_tcp_stream(
        "localhost", site.port, ssl_context=context, https_compatible=True
    )
    async with stream:
        head = f"PUT {collection('standby')}/slow HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n"
        head += f"Expect: 100-continue\r\nContent-Length: {size}\r\n\r\n"
        await stream.send_all(head.encode())
        assert bytes(await stream.receive_some()).startswith(b"HTTP/1.1 100")
        await stream.send_all(bytes(size // 2))
        begun.set()
        await gate.wait()
        await stream.send_all(bytes(size - size // 2))
        return bytes(await stream.receive_some())


async def test_signals(tmp_path: Path, site_process: Served) -> None:
    shutil.copytree(site_process.place / "certs", tmp_path / "certs")
    with served(tmp_path) as site:
        assert site.process is not None
        store = site.store()
        assert await store.put("a", [b"x"]) is Put.CREATED
        assert await store.info("a") is not None

        # What is wrong changes nothing.
        good = (tmp_path / "site.yaml").read_text()
        (tmp_path / "site.yaml").write_text(good.replace("role: operator", "role: king"))
        site.process.send_signal(signal.SIGHUP)
        await _logged(site, "not reloaded")
        assert await store.info("a") is not None

        # A client that is not there any more is refused on the connection that it has.
        (tmp_path / "site.yaml").write_text(good.replace("web1: {name: web1", "web1: {name: web2"))
        site.process.send_signal(signal.SIGHUP)
        await _logged(site, "are read again")
        with pytest.raises(StoreDenied):
            await store.info("a")
        await store.aclose()

        # Another CA and other certificates, and a client that notices renewed files.
        shutil.rmtree(tmp_path / "certs")
        (tmp_path / "site.yaml").write_text(good)
        make_certificates(tmp_path / "certs")
        site.process.send_signal(signal.SIGHUP)
        await _logged(site, "are read again", 2)
        with pytest.raises(StoreDenied):
            await site_process_client(site_process, site).info("a")
        assert await store.info("a") is not None  # its files were renewed too
        await store.aclose()

        # SIGTERM: what is under way is answered, then it ends; nothing new is taken.
        begun, gate = trio.Event(), trio.Event()
        answers: list[bytes] = []

        async def slow() -> None:
            answers.append(await _put_slowly(site, 300_000, begun, gate))

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow)
                await begun.wait()
                site.process.send_signal(signal.SIGTERM)
                await _logged(site, "ends when")
                with pytest.raises(StoreUnreachable):
                    await site.store().info("a")
                gate.set()
            assert answers[0].startswith(b"HTTP/1.1 201")
            assert await trio.to_thread.run_sync(partial(site.process.wait, 30)) == 0
        assert (site.vault / "slow").stat().st_size == 300_000


def site_process_client(other: Served, site: Served) -> ObjectStore:
    """A client with the certificates of another site's CA."""
    certs = other.place / "certs"
    return site.store(cert=str(certs / "web1.crt"), key=str(certs / "web1.key"))


async def _logged(site: Served, words: str, times: int = 1) -> None:
    await until(lambda: site.log.count(words) >= times)


def _more_than(found: Sized, count: int) -> bool:
    return len(found) > count
