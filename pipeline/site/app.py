"""The application of a site: objects of vaults, create-only, for those whom it knows."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline import logs
from pipeline.https.peer import NOBODY, PEER
from pipeline.site.access import Known, who
from pipeline.site.body import Budget, length_of, read_body
from pipeline.site.config import SiteConfig
from pipeline.site.health import Following, endpoints, nobody
from pipeline.site.problems import HEADERS, Forbidden, answer_to, refuse
from pipeline.site.reading import ObjectResponse, described, missing, ranged
from stages.errors import BackstayError
from stages.store.file import FileStore
from stages.store.port import ObjectStore, Put, check_key
from stages.store.site import protocol

_NOTED = 60  # refusals in the log a minute


@dataclass
class Site:
    """What all requests share. ``config`` and ``stores`` may be exchanged while it runs; every
    vault that a client of the one may use is in the other."""

    config: SiteConfig
    stores: Mapping[str, FileStore]
    budget: Budget
    following: Following = nobody
    refusals: list[float] = field(default_factory=list)  # when one was last noted in the log

    def caller(self, needed: str, vault: str) -> Known:
        """Who is asking, if they may do what ``needed`` may in ``vault``. Raises ``Forbidden``."""
        peer = PEER.get(NOBODY)
        known = who(self.config.clients, peer)
        if known is None:
            raise Forbidden(
                f"nobody here knows the certificate of {peer.name[:64] or peer.fingerprint}",
                operation="request",
                hint="the site's operator adds it under clients",
            )
        if vault and vault not in known.vaults:
            raise Forbidden(
                f"{known.name} may not use vault {vault[:64]}",
                operation="request",
                hint="the site's operator adds it to the client's vaults",
            )
        if not known.may(needed):
            raise Forbidden(
                f"{known.name} is {known.role}: this needs {needed}",
                operation="request",
                hint="use a certificate of that role",
            )
        return known

    def note_refusal(self, request: Request, error: BackstayError) -> None:
        """A line in the log, but not more than somebody can read."""
        now = trio.current_time()
        self.refusals = [at for at in self.refusals if at > now - 60]
        if len(self.refusals) < _NOTED:
            self.refusals.append(now)
            peer = PEER.get(NOBODY)
            logs.warning(
                "site.refused",
                f"refused {request.method} {request.url.path[:200]}: {error.message}",
                client=peer.name[:64],
                address=peer.address,
            )


Handler = Callable[[Site, Request, ObjectStore], Awaitable[Response]]


def build_app(site: Site) -> Starlette:
    """The application."""
    objects = "/v1/vaults/{vault}/objects"
    key = objects + "/{key:path}"
    routes = [
        Route(key, _endpoint(site, "replication", _put), methods=["PUT"]),
        Route(key, _endpoint(site, "operator", _delete), methods=["DELETE"]),
        Route(key, _endpoint(site, "reader", _get), methods=["GET", "HEAD"]),
        Route(objects, _endpoint(site, "reader", _list), methods=["GET"]),
    ]
    looks = endpoints(lambda: site.stores, site.following)
    routes += [Route(path, look, methods=["GET"]) for path, look in looks.items()]
    return Starlette(routes=routes, exception_handlers={HTTPException: _not_routed})


async def _not_routed(_: Request, raised: Exception) -> Response:
    assert isinstance(raised, HTTPException)  # noqa: S101
    return answer_to(refuse(raised.status_code, str(raised.detail)))


def _endpoint(site: Site, role: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        vault = request.path_params["vault"]
        try:
            _check_version(request)
            known = site.caller(role, vault)
            found = await handler(site, request, site.stores[vault])
        except BackstayError as error:
            site.note_refusal(request, error)
            return answer_to(error)
        if request.method == "DELETE" and found.status_code == HTTPStatus.NO_CONTENT:
            key = request.path_params["key"]
            logs.event("site.deleted", f"{known.name} deleted {vault}/{key}", client=known.name)
        return found

    return answer


def _check_version(request: Request) -> None:
    said = request.headers.get(protocol.VERSION_HEADER, protocol.VERSION)
    if said != protocol.VERSION:
        raise refuse(
            400,
            f"version {said[:20]} of the site's protocol is not known here, {protocol.VERSION} is",
            hint="bring the older of the two sides up to date",
        )


def _key(request: Request) -> str:
    key = str(request.path_params["key"])
    try:
        return check_key(key)
    except ValueError as error:
        raise refuse(400, str(error)) from None


async def _put(site: Site, request: Request, store: ObjectStore) -> Response:
    key = _key(request)
    if request.headers.get("if-none-match") != "*":
        raise refuse(
            428, "objects are only ever created", hint='send the header "If-None-Match: *"'
        )
    size = length_of(request, site.config.site.max_object)
    async with site.budget.room(size):
        parts = await read_body(request, size)
        try:
            created = await store.put(key, parts)
        except ValueError as error:  # a key that is a folder of others
            raise refuse(409, str(error)) from None
    status = HTTPStatus.CREATED if created is Put.CREATED else HTTPStatus.PRECONDITION_FAILED
    return Response(status_code=status, headers=HEADERS)


async def _get(_: Site, request: Request, store: ObjectStore) -> Response:
    key = _key(request)
    info = await store.info(key)
    if info is None:
        raise missing(key)
    if request.method == "HEAD":
        return Response(headers=HEADERS | described(info) | {"content-length": str(info.size)})
    return ObjectResponse(store, info, ranged(request.headers.get("range", ""), info.size))


async def _list(_: Site, request: Request, store: ObjectStore) -> Response:
    query = request.query_params
    said = query.get("limit", str(protocol.PAGE))
    if not (said.isdecimal() and len(said) < 10 and int(said) > 0):
        raise refuse(400, f"{said[:20]!r} is not a number of objects")
    limit = min(int(said), protocol.PAGE)
    page = await store.page(query.get("prefix", ""), query.get("after", ""), limit)
    rows = [[info.key, info.size, info.modified] for info in page]
    text = json.dumps({"objects": rows, "more": len(rows) == limit}, separators=(",", ":"))
    return Response(text, headers=HEADERS, media_type="application/json")


async def _delete(_: Site, request: Request, store: ObjectStore) -> Response:
    key = _key(request)
    if not await store.delete(key):
        raise missing(key)
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=HEADERS)
