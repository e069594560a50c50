"""How a site is: its vaults' folders, and how far its replicas follow. For people and for scrapers.

``GET /healthz`` answers 200, or 503 if the folder of a vault cannot be read: a replica in trouble
is told there, but keeps nobody from replicating. ``GET /metrics`` tells the same in Prometheus'
text format.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import trio
from starlette.requests import Request
from starlette.responses import Response

from pipeline.api.metrics import MEDIA_TYPE, family
from pipeline.site.problems import HEADERS
from stages.errors import BackstayError
from stages.store.file import FileStore

_SECONDS = 10.0  # for an answer of a vault's folder


@dataclass(frozen=True, slots=True)
class Follows:
    """How far a replica follows. ``status``: of its files, as ``stages.replica.record`` has it, or
    "none". ``point``: the commit that whole files hold, None while they are on the way; ``age``: in
    seconds, how old that is. ``looked``: seconds since it was last where it should be, None if it
    was not since the site began. ``waits``: for what it waits; ``trouble``: the last error, while
    it lasts.
    """

    machine: str
    status: str
    point: int | None
    age: float | None
    looked: float | None
    waits: str
    trouble: str

    def fields(self) -> dict[str, object]:
        """For JSON."""
        return {
            "status": self.status,
            "point": self.point,
            "age_seconds": _rounded(self.age),
            "looked_seconds": _rounded(self.looked),
            "waits": self.waits,
            "trouble": self.trouble,
        }


Following = Callable[[], Awaitable[Sequence[Follows]]]


async def nobody() -> Sequence[Follows]:
    """A site without replicas."""
    return ()


async def vaults(stores: Mapping[str, FileStore]) -> dict[str, str]:
    """Whether each vault's folder can be read: "ok", or why not."""
    found: dict[str, str] = {}
    for name, store in stores.items():
        found[name] = "no answer"
        with trio.move_on_after(_SECONDS):
            try:
                await store.page("", "", 1)
                found[name] = "ok"
            except BackstayError as error:
                found[name] = error.message
    return found


def endpoints(
    stores: Callable[[], Mapping[str, FileStore]], following: Following
) -> dict[str, Callable[[Request], Awaitable[Response]]]:
    """By path."""

    async def healthz(_: Request) -> Response:
        found, replicas = await vaults(stores()), await following()
        well = all(each == "ok" for each in found.values())
        fields = {
            "status": "ok" if well else "trouble",
            "vaults": found,
            "replicas": {one.machine: one.fields() for one in replicas},
        }
        return Response(json.dumps(fields), 200 if well else 503, HEADERS, "application/json")

    async def metrics(_: Request) -> Response:
        text = render(await vaults(stores()), await following())
        return Response(text, headers={**HEADERS, "content-type": MEDIA_TYPE})

    return {"/healthz": healthz, "/metrics": metrics}


def render(found: Mapping[str, str], replicas: Sequence[Follows]) -> str:
    """The metrics."""
    lines = [
        *family(
            "site_vault_up",
            "gauge",
            "1: the folder of the vault can be read.",
            [({"vault": name}, int(said == "ok")) for name, said in found.items()],
        )
    ]
    each = [({"machine": one.machine}, one) for one in replicas]
    for name, said, value_of in _REPLICA:
        samples = [(labels, value_of(one)) for labels, one in each]
        known = [(labels, value) for labels, value in samples if value is not None]
        lines += family(f"site_replica_{name}", "gauge", said, known)
    return "".join(f"{line}\n" for line in lines)


_REPLICA: Sequence[tuple[str, str, Callable[[Follows], float | None]]] = (
    (
        "point",
        "Number of the commit that the replica's files hold; absent: none.",
        lambda o: o.point,
    ),
    ("age_seconds", "How old that commit is.", lambda one: one.age),
    ("looked_seconds", "Since it was last where it should be.", lambda one: one.looked),
    ("whole", "1: the files are a recovery point.", lambda one: int(one.status == "whole")),
    ("trouble", "1: it cannot follow; see /healthz.", lambda one: int(bool(one.trouble))),
)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
