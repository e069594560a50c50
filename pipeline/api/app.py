"""The Starlette application: the table of routes, and every error as a problem document."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import cache

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.api.guard import Api, endpoint, problem
from pipeline.api.openapi import openapi
from pipeline.api.problems import refuse
from pipeline.api.routes import SPECS
from stages.errors import BackstayError


class Defect(BackstayError):
    """Something that nobody foresaw; the details are in the daemon's log only."""


def build_app(api: Api) -> Starlette:
    """The application. What raises something else than ``BackstayError`` answers 500, and is
    raised again for the server to log."""
    routes = [Route(spec.path, endpoint(api, spec), methods=[spec.method]) for spec in SPECS]
    routes.append(Route("/openapi.json", _document(api), methods=["GET"]))
    return Starlette(
        routes=routes,
        exception_handlers={HTTPException: _not_routed, 500: _defect},
    )


def _document(api: Api) -> Callable[[Request], Awaitable[Response]]:
    """Made when it is first asked for: that takes as long as a tenth of the daemon's start."""

    @cache
    def text() -> str:
        return json.dumps(openapi(SPECS, api.control.daemon().version))

    async def document(_: Request) -> Response:
        return Response(text(), media_type="application/json")

    return document


async def _not_routed(_: Request, raised: Exception) -> Response:
    assert isinstance(raised, HTTPException)  # noqa: S101
    hint = "see /openapi.json" if raised.status_code in (404, 405) else ""
    response = problem(refuse(raised.status_code, str(raised.detail), hint=hint))
    response.headers.update(raised.headers or {})
    return response


async def _defect(_: Request, _raised: Exception) -> Response:
    said = Defect("a defect in Backstay", operation="request", hint="see the daemon's log")
    return problem(said)
