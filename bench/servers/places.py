"""Buckets and containers, made with their owners' credentials over plain HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx

from bench.servers import azurite, seaweed
from bench.servers.ports import ServerFailed

_EMPTY = hashlib.sha256(b"").hexdigest()


def make_bucket(endpoint: str, name: str) -> None:
    """A bucket of a server that speaks S3, by its owner."""
    _signed("PUT", f"{endpoint}/{name}")


def make_container(endpoint: str, name: str) -> None:
    """A container of Azurite."""
    stamp = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    sent = {"x-ms-date": stamp, "x-ms-version": "2021-12-02"}
    headers = "".join(f"{key}:{value}\n" for key, value in sorted(sent.items()))
    resource = f"/{azurite.ACCOUNT}{urlsplit(endpoint).path}/{name}\nrestype:container"
    text = f"PUT{chr(10) * 12}{headers}{resource}"
    key = base64.b64decode(azurite.KEY)
    signature = base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()
    sent["Authorization"] = f"SharedKey {azurite.ACCOUNT}:{signature}"
    url = f"{endpoint}/{name}?restype=container"
    answer = httpx.put(url, headers=sent | {"Content-Length": "0"}, timeout=30)
    if answer.status_code != 201:
        raise ServerFailed(f"{url}: {answer.text[:500]}")


def _signed(method: str, url: str) -> None:
    """A request without a body, signed as AWS does (version 4)."""
    key, secret = seaweed.OWNER
    parts = urlsplit(url)
    now = datetime.now(UTC)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    sent = {"host": parts.netloc, "x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
    names = ";".join(sorted(sent))
    headers = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
    request = f"{method}\n{parts.path}\n\n{headers}\n{names}\n{_EMPTY}"
    scope = f"{day}/us-east-1/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signing = f"AWS4{secret}".encode()
    for word in (day, "us-east-1", "s3", "aws4_request", text):
        signing = hmac.digest(signing, word.encode(), "sha256")
    sent["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, "
        f"Signature={signing.hex()}"
    )
    answer = httpx.request(method, url, headers=sent, timeout=30)
    if answer.status_code != 200:
        raise ServerFailed(f"{url}: {answer.text[:500]}")
