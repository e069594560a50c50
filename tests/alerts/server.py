"""A real HTTP server that writes down what it is told, and answers as it is told to."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Heard:
    """``answers``: statuses for the next requests, then 200. ``hangs``: none until it is set."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hangs: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Heard]:
    """Serve on a free port."""
    heard = Heard()
    heard.hangs.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.hangs.wait()
            heard.bodies.append(json.loads(body))
            heard.headers.append(dict(self.headers))
            status = heard.answers.pop(0) if heard.answers else 200
            self.send_response(status)
            if status == 302:
                self.send_header("Location", heard.url)
            self.send_header("Content-Length", "2")
            self.end_headers()
            try:
                self.wfile.write(b"ok")
            except OSError:
                return

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if context is None else "https"
    heard.url = f"{scheme}://{host}:{server.server_address[1]}/hooks/s3cret-path"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield heard
    finally:
        heard.hangs.set()
        server.shutdown()
        server.server_close()
        thread.join()
