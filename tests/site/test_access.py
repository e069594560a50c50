"""Who is let in, by certificate, and what each may: against the real process."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
import trustme

from pipeline.https.peer import Peer
from pipeline.placing import check_place
from pipeline.site.access import who
from pipeline.site.config import Client
from stages.errors import NotAVault, StoreDenied, StoreError
from stages.store.address import with_options
from stages.store.open import open_store
from stages.store.port import ObjectStore, Put
from stages.store.site.protocol import collection
from stages.system import this_machine
from tests.site.serving import Served

_NOW = datetime.datetime.now(datetime.UTC)
_PAST = _NOW - datetime.timedelta(days=1)


def _authority(site: Served) -> trustme.CA:
    certs = site.place / "certs"
    return trustme.CA.from_pem((certs / "ca.crt").read_bytes(), (certs / "ca.key").read_bytes())


def _client(
    authority: trustme.CA, folder: Path, until: datetime.datetime | None = None
) -> dict[str, str]:
    leaf = authority.issue_cert(common_name="web1", not_after=until)
    leaf.private_key_pem.write_to_path(folder / "leaf.key")
    for number, blob in enumerate(leaf.cert_chain_pems):
        blob.write_to_path(folder / "leaf.crt", append=number > 0)
    return {"cert": str(folder / "leaf.crt"), "key": str(folder / "leaf.key")}


async def _refused(store: ObjectStore) -> StoreDenied:
    try:
        for call in (partial(store.info, "k"), partial(store.put, "k", [bytes(3_000_000)])):
            with pytest.raises(StoreDenied) as caught:
                await call()
            assert caught.value.hint
            assert not caught.value.recoverable
    finally:
        await store.aclose()
    return caught.value


async def test_no_client_certificate(site_process: Served) -> None:
    said = await _refused(site_process.store(""))
    assert "wants a certificate" in said.message


async def test_a_client_certificate_of_another_ca(site_process: Served, tmp_path: Path) -> None:
    said = await _refused(site_process.store(**_client(trustme.CA(), tmp_path)))
    assert "does not know who signed" in said.message


async def test_a_client_certificate_that_has_expired(site_process: Served, tmp_path: Path) -> None:
    shown = _client(_authority(site_process), tmp_path, _PAST)
    said = await _refused(site_process.store(**shown))
    assert "expired" in said.message


async def test_a_client_certificate_that_nobody_names(site_process: Served, tmp_path: Path) -> None:
    leaf = _authority(site_process).issue_cert(common_name="stranger")
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "leaf.pem")
    shown = {"cert": str(tmp_path / "leaf.pem"), "key": str(tmp_path / "leaf.pem")}
    said = await _refused(site_process.store(**shown))
    assert "nobody here knows the certificate of stranger" in said.message


async def test_a_site_that_is_not_the_one(site_process: Served, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.crt")
    said = await _refused(site_process.store(ca=str(tmp_path / "other.crt")))
    assert "certificate is not trusted" in said.message
    url = site_process.url().replace("localhost", "127.1")
    said = await _refused(open_store(url, this_machine()))
    assert "for another host" in said.message


async def test_a_site_whose_certificate_has_expired(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_after=_PAST).configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")

    async def nothing(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, nothing, listeners)
        port = listeners[0].transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]
        url = with_options(f"site://127.0.0.1:{port}/v", {"ca": str(tmp_path / "ca.crt")})
        said = await _refused(open_store(url, this_machine()))
        assert "the site's certificate has expired" in said.message
        nursery.cancel_scope.cancel()


async def test_files_that_are_no_certificates(site_process: Served, tmp_path: Path) -> None:
    certs = site_process.place / "certs"
    (tmp_path / "text").write_text("text")
    for options, words in (
        ({"ca": "/nowhere/ca.crt"}, "cannot be read"),
        ({"cert": str(tmp_path / "text")}, "is no PEM file"),
        ({"key": str(certs / "admin.key")}, "do not belong together"),
    ):
        said = await _refused(site_process.store(**options))
        assert words in said.message


async def test_what_each_role_may(site_process: Served) -> None:
    reader, web1, admin = (site_process.store(name) for name in ("reader", "web1", "admin"))
    assert await web1.put("roles/a", [b"first"]) is Put.CREATED
    with pytest.raises(StoreDenied, match="reader is reader: this needs replication"):
        await reader.put("roles/b", [b"x"])
    for store in (reader, web1):
        assert await store.get("roles/a") == b"first"
        with pytest.raises(StoreDenied, match="this needs operator"):
            await store.delete("roles/a")
    assert await web1.put("roles/a", [b"second"]) is Put.EXISTS
    assert await admin.put("roles/a", [b"third"]) is Put.EXISTS
    assert await reader.get("roles/a") == b"first"
    assert await admin.delete("roles/a") is True
    other = open_store(site_process.url("admin", "other"), this_machine())
    with pytest.raises(StoreDenied, match="may not use vault other"):
        await other.page("")
    unknown = open_store(site_process.url("admin", "unknown"), this_machine())
    with pytest.raises(StoreDenied, match="may not use vault unknown"):
        await unknown.page("")
    assert "web1 is replication: this needs operator" in site_process.log
    assert "admin deleted standby/roles/a" in site_process.log
    for store in (reader, web1, admin, other, unknown):
        await store.aclose()


async def test_what_other_programs_are_told(site_process: Served) -> None:
    certs = site_process.place / "certs"
    context = ssl.create_default_context(cafile=str(certs / "ca.crt"))
    context.load_cert_chain(str(certs / "admin.crt"), str(certs / "admin.key"))
    url = f"https://localhost:{site_process.port}"
    only = {"If-None-Match": "*"}
    async with httpx.AsyncClient(verify=context, base_url=url, timeout=30) as client:
        key = f"{collection('standby')}/others/k"
        for headers in ({}, {"If-None-Match": '"x"'}, {"If-Match": "*"}):
            assert (await client.put(key, content=b"x", headers=headers)).status_code == 428
        assert (await client.get(key)).status_code == 404
        unknown = await client.put(key, content=b"x", headers=only | {"Backstay-Site": "2"})
        assert unknown.status_code == 400
        assert "version 2" in unknown.json()["detail"]
        wrong = only | {"Backstay-Digest": f"blake3:{'0' * 64}"}
        assert (await client.put(key, content=b"x", headers=wrong)).status_code == 422

        async def chunks() -> AsyncIterator[bytes]:
            yield b"x"

        assert (await client.put(key, content=chunks(), headers=only)).status_code == 411
        for bad in ("A", "..%2f..%2fetc", ".tmp/x", "a//b", "%00", "a/"):
            found = await client.put(f"{collection('standby')}/{bad}", content=b"", headers=only)
            assert found.status_code in (400, 404), bad
        assert (await client.put(key, content=b"abcdef", headers=only)).status_code == 201
        folder = f"{collection('standby')}/others"
        assert (await client.put(folder, content=b"x", headers=only)).status_code == 409
        part = await client.get(key, headers={"Range": "bytes=2-3"})
        assert (part.status_code, part.content) == (206, b"cd")
        assert part.headers["content-range"] == "bytes 2-3/6"
        for ignored in ("bytes=3-2", "bytes=-2", "bytes=0-1,3-4", "lines=1-2"):
            whole = await client.get(key, headers={"Range": ignored})
            assert (whole.status_code, whole.content) == (200, b"abcdef")
        for query in ("limit=0", "limit=x", "limit=-1"):
            assert (await client.get(f"{collection('standby')}?{query}")).status_code == 400
        assert (await client.post(key)).status_code == 405
        assert (await client.get("/nothing")).status_code == 404
        healthy = (await client.get("/healthz")).json()
        assert healthy["vaults"] == {"standby": "ok", "other": "ok"}
        assert (healthy["status"], healthy["replicas"]) == ("ok", {})
        told = (await client.get("/metrics")).text.splitlines()
        assert 'backstay_site_vault_up{vault="standby"} 1' in told
        assert (await client.delete(key)).status_code == 204


async def test_a_vault_of_a_site_that_holds_something_else(site_process: Served) -> None:
    site_process.empty()
    store = site_process.store("admin")
    await store.put("groups/x", [b"x"])
    await store.put("others/x", [b"x"])
    with pytest.raises(
        NotAVault, match="neither empty nor a vault: it holds groups, oth"
    ) as caught:
        await check_place(this_machine(), site_process.url("admin"))
    assert caught.value.hint == "give an empty or a new vault of the site"
    for key in ("groups/x", "others/x"):
        assert await store.delete(key)
    await store.aclose()


async def test_a_site_of_another_version(
    site_process: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = site_process.store()
    monkeypatch.setattr("stages.store.site.connection.VERSION", "9")
    with pytest.raises(StoreError, match="version 9 of the site's protocol is not known") as caught:
        await store.page("")
    assert not caught.value.recoverable
    assert "up to date" in caught.value.hint
    await store.aclose()


def test_the_very_certificate_goes_before_the_name() -> None:
    one, two = "1" * 64, "2" * 64
    clients = {
        "by-name": Client(name="web1", role="reader", vaults=("a",)),
        "by-both": Client(name="web1", fingerprint=one, role="operator", vaults=("b",)),
    }
    found = who(clients, Peer("x", name="web1", fingerprint=one))
    assert found is not None
    assert (found.name, found.may("operator")) == ("by-both", True)
    found = who(clients, Peer("x", name="web1", fingerprint=two))
    assert found is not None
    assert (found.name, found.may("replication")) == ("by-name", False)
    assert who(clients, Peer("x", name="web2", fingerprint=one)) is None
    assert who(clients, Peer("x")) is None
