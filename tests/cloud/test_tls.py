"""Certificates between a cloud store and its server, and a proxy on the way."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from bench.servers.cloud import Cloud
from stages.errors import (
    BackstayError,
    StoreError,
    StoreUnreachable,
)
from stages.store.open import open_store
from stages.store.port import Put
from tests.cloud.asking import MACHINE
from tests.cloud.proxy import Spoil, connecting, proxied


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def test_certificates(s3: Cloud, authority: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    good = authority.issue_cert("127.0.0.1")
    old = authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1))
    named = authority.issue_cert("elsewhere.example.com")
    foreign = trustme.CA().issue_cert("127.0.0.1")
    cases: list[tuple[trustme.LeafCert, str, type[BackstayError] | None, str]] = [
        (good, str(path), None, ""),
        (good, "", StoreError, "set ca to the file"),
        (foreign, str(path), StoreError, "set ca to the file"),
        (named, str(path), StoreError, "endpoint must be the name"),
        (old, str(path), StoreUnreachable, "renewed"),
    ]
    for certificate, ca, kind, hint in cases:
        async with proxied(s3.port, tls=_context(certificate)) as proxy:
            options = {"ca": ca} if ca else {}
            endpoint = f"https://127.0.0.1:{proxy.port}"
            store = open_store(s3.url(endpoint=endpoint, **options), MACHINE)
            try:
                assert await store.put("k", [b"x"]) is Put.CREATED
                found: BackstayError | None = None
            except BackstayError as error:
                found = error
            assert (type(found) if found else None) is kind, (found, found and found.hint)
            assert found is None or (hint in found.hint and "certificate" in found.message)


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_a_certificate_file_that_is_none(
    s3: Cloud, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        await open_store(s3.url(ca=str(path)), MACHINE).get("k")
    assert caught.value.subject == str(path)


async def test_a_proxy_that_connects(s3: Cloud, authority: trustme.CA, tmp_path: Path) -> None:
    """HTTP CONNECT to a TLS server, and a proxy that wants a password."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    context = _context(authority.issue_cert("s3.invalid"))
    async with proxied(s3.port, tls=context) as server, connecting(server.port) as (port, asked):
        endpoint = "https://s3.invalid:9000"
        url = s3.url(endpoint=endpoint, ca=str(path), proxy=f"http://127.0.0.1:{port}")
        store = open_store(url, MACHINE)
        assert await store.put("k", [b"x"]) is Put.CREATED
        assert await store.get("k") == b"x"
        assert asked[0].startswith(b"CONNECT s3.invalid:9000 ")
    refusing = Spoil(answer=b"HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n")
    async with proxied(s3.port, lambda _: refusing) as proxy:
        url = s3.url(endpoint=endpoint, proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(StoreUnreachable, match="proxy does not let") as caught:
            await open_store(url, MACHINE).get("k")
    assert "HTTPS_PROXY" in caught.value.hint
