"""Google's words in front of SeaweedFS, since no emulator that is to be had knows them.

The client speaks the XML interface of Google Cloud Storage, which is that of S3 but for a few
words; those are exchanged here, and SeaweedFS does the rest: who of several puts wins is its
decision. So what our client asks of Google, and makes of the answers, is tried; what Google itself
does is not. fake-gcs-server and gcp-storage-emulator know the JSON interface only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.servers import seaweed
from bench.servers.cloud import Cloud

_ASKED = ("range", "content-type")
_ANSWERED = ("etag", "last-modified", "content-type", "content-range", "accept-ranges")
_ONCE = "x-goog-if-generation-match"
_LIMIT = 64 << 20


def signed(method: str, url: str, pair: tuple[str, str]) -> dict[str, str]:
    """What AWS wants to see of a request whose body is not signed (version 4)."""
    parts = urlsplit(url)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    found = {
        "host": parts.netloc,
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        "x-amz-date": stamp,
    }
    names = ";".join(sorted(found))
    heads = "".join(f"{name}:{found[name]}\n" for name in sorted(found))
    said = sorted(parse_qsl(parts.query, keep_blank_values=True))
    query = "&".join(f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in said)
    asked = f"{method}\n{parts.path}\n{query}\n{heads}\n{names}\nUNSIGNED-PAYLOAD"
    scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
    digest = hashlib.sha256(asked.encode()).hexdigest()
    key = f"AWS4{pair[1]}".encode()
    for word in (stamp[:8], "us-east-1", "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    found["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={pair[0]}/{scope}, SignedHeaders={names}, "
        f"Signature={signature}"
    )
    return found


class _Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def _forward(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("content-length", "0")), _LIMIT))
        if not self.headers.get("authorization", "").startswith("Bearer"):
            self._answer(401, {}, b"no token")
            return
        once = self.headers.get(_ONCE)
        if self.command == "PUT" and once not in (None, "0"):
            self._answer(501, {}, f"{_ONCE}: {once}".encode())
            return
        if self.command == "DELETE" and self._ask("HEAD", b"", {}).status_code == 404:
            self._answer(404, {}, b"no such object")  # Google says so, S3 does not
            return
        more = {} if once is None else {"if-none-match": "*"}
        found = self._ask(self.command, body, more)
        kept = {name: found.headers[name] for name in _ANSWERED if name in found.headers}
        if self.command == "HEAD":
            kept["content-length"] = found.headers.get("content-length", "0")
        self._answer(found.status_code, kept | {"x-goog-generation": "1"}, found.content)

    def _ask(self, method: str, body: bytes, more: Mapping[str, str]) -> httpx.Response:
        path, _, query = self.path.partition("?")
        said = parse_qsl(query, keep_blank_values=True)
        words = "&".join(f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in said)
        url = f"{self.server.behind}{quote(unquote(path))}{'?' if words else ''}{words}"
        heads = {name: self.headers[name] for name in _ASKED if name in self.headers}
        heads |= {**signed(method, url, seaweed.WRITER), **more}
        return self.server.client.request(method, url, headers=heads, content=body)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "content-length" not in headers and status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_DELETE = _forward  # noqa: N815 - as http.server calls them

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behind: str):
        super().__init__(("127.0.0.1", 0), _Front)
        self.behind = behind
        self.client = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=64))


def account() -> str:
    """The JSON of a service account that asks nobody for a token."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    fields = {
        "type": "service_account",
        "private_key": pem.decode(),
        "private_key_id": "1",
        "client_email": "writer@project.example",
        "disable_oauth": True,
    }
    return json.dumps(fields)


@contextmanager
def google_front(behind: Cloud, folder: Path) -> Iterator[Cloud]:
    """The bucket of a SeaweedFS, as Google would have it; the credential goes into ``folder``."""
    (folder / "writer").write_text(account())
    server = _Server(f"http://127.0.0.1:{behind.port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Cloud("gs", server.server_address[1], behind.bucket, folder)
    finally:
        server.shutdown()
        server.server_close()
        server.client.close()
        thread.join()
