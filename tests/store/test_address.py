"""Addresses of stores behind a network: what is one, what is refused, and how they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Vault
from stages.errors import UsageError
from stages.store.address import BadAddress, compose, parse
from stages.store.cloud.settings import MAX_PREFIX, Settings
from stages.store.cloud.store import CloudStore
from stages.store.open import open_store
from stages.store.port import MAX_KEY
from stages.system import this_machine


def test_everything_that_can_be_said() -> None:
    url = (
        "s3://bucket/a/b?endpoint=https://host:9000&region=eu-central-1&ca=./ca.pem"
        "&proxy=http://proxy:3128&credentials=/etc/c&timeout=2m"
    )
    assert Settings.of(url, "/etc/x") == Settings(
        scheme="s3",
        bucket="bucket",
        prefix="a/b",
        endpoint="https://host:9000",
        region="eu-central-1",
        ca="/etc/x/ca.pem",
        proxy="http://proxy:3128",
        credentials="/etc/c",
        timeout=120.0,
    )


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://bucket/prefix/", "bucket", "prefix"),
        ("az://container/a.b/C=1", "container", "a.b/C=1"),
        ("gs://some_bucket.example.com/p", "some_bucket.example.com", "p"),
    ],
)
def test_places(url: str, bucket: str, prefix: str) -> None:
    settings = Settings.of(url)
    assert (settings.bucket, settings.prefix) == (bucket, prefix)
    store = open_store(url, this_machine())
    assert isinstance(store, CloudStore)
    assert store.url == url


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///prefix",
        "s3://B/prefix",
        "s3://bucket//a",
        "s3://bucket/a//b",
        "s3://bucket/./a",
        "s3://bucket/a b",
        "s3://bucket/ü",
        "s3://bucket/" + "x" * (MAX_PREFIX + 1),
        "az://a--b/p",
        "s3://bucket/p?endpoint",
        "s3://bucket/p?endpoint=",
        "s3://bucket/p?endpoint=host",
        "s3://bucket/p?endpoint=https://",
        "s3://bucket/p?endpoint=https://host:port",
        "s3://bucket/p?endpoint=https://a@host",
        "s3://bucket/p?endpoint=http://host",
        "s3://bucket/p?endpoint=https://h&endpoint=https://h",
        "s3://bucket/p?account=abc",
        "s3://bucket/p?secret_access_key=abc",
        "az://container/p?region=eu-central-1",
        "gs://bucket/p?timeout=0",
        "gs://bucket/p?timeout=1h",
        "gs://bucket/p?plain_http=yes",
        "gs://bucket/p?ca=",
        "s3://bucket/p?ca=" + "x" * 3000,
    ],
)
def test_refused(url: str) -> None:
    with pytest.raises(BadAddress):
        Settings.of(url)
    with pytest.raises(UsageError) as caught:
        open_store(url, this_machine())
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize(
    "url", ["s3://bucket/p?proxy=http://me:hunter2@proxy:1", "s3://me:hunter2@bucket/p"]
)
def test_a_password_is_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url, this_machine())
    told = f"{caught.value} {caught.value.hint}"
    assert "hunter2" not in told
    assert "HTTPS_PROXY" in told or "credentials: FILE" in told


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://host"]
)
def test_plain_http_to_this_machine_and_tls_to_others(endpoint: str) -> None:
    assert Settings.of(f"s3://bucket/p?endpoint={endpoint}").endpoint == endpoint
    allowed = Settings.of("s3://bucket/p?endpoint=http://nas:1&plain_http=true")
    assert allowed.plain


def test_the_longest_key_below_the_longest_prefix_fits_every_cloud() -> None:
    assert MAX_PREFIX + 1 + MAX_KEY < 1024


def test_a_configuration_composes_the_address() -> None:
    vault = Vault(
        url="s3://bucket/p",
        trust="/t",
        endpoint="https://host:9000",
        ca="/etc/a b&c.pem",
        timeout="500ms",
    )
    assert vault.address == (
        "s3://bucket/p?endpoint=https://host:9000&ca=/etc/a%20b%26c.pem&timeout=500ms"
    )
    settings = Settings.of(vault.address)
    assert (settings.ca, settings.timeout) == ("/etc/a b&c.pem", 0.5)
    assert Vault(url="file:/v?x=1", trust="/t").address == "file:/v?x=1"


paths = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=40)


@given(ca=paths, credentials=paths)
def test_what_was_composed_is_read_again(ca: str, credentials: str) -> None:
    said = {"ca": ca, "credentials": credentials, "plain_http": "true"}
    if ca.isprintable() and credentials.isprintable():
        assert parse(compose("gs://bucket/p", said)).options == said
