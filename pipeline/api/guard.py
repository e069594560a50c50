"""What every request passes: who is there, may they, is the body what it should be."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import trio
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from pipeline.api.access import Access, AccessFile, outranks
from pipeline.api.problems import (
    MEDIA_TYPE,
    FieldProblem,
    Refused,
    document,
    field_problems,
    refuse,
)
from pipeline.api.repeats import HEADER, Repeats, checked_key
from pipeline.api.settings import Limits
from pipeline.control.model import Caller
from pipeline.control.service import Control
from pipeline.https.peer import NOBODY, PEER
from pipeline.records.model import NewAudit
from stages.errors import BackstayError

Audit = Callable[[NewAudit], Awaitable[object]]


class Api:
    """What all requests share. ``audit`` writes an entry for what never reaches ``control``."""

    def __init__(self, control: Control, audit: Audit, limits: Limits, access: Access | AccessFile):
        self.control = control
        self.audit = audit
        self.limits = limits
        self.access = access
        self.repeats = Repeats(limits.remembered)
        self.followers = 0
        self.stopping = trio.Event()
        self._refusals: list[float] = []  # when callers that are not known were refused

    def caller(self, request: Request) -> Caller | None:
        """Who is there; None if nobody known."""
        peer = PEER.get(NOBODY)
        return self.access.caller(peer, request.headers.get("authorization", ""))

    async def refused(self, request: Request, caller: Caller | None, error: BackstayError) -> None:
        """Audit a call that would have changed something."""
        if caller is None and not self._may_note():
            return  # strangers must not push what is true out of the audit
        known = caller or Caller("unknown", "none", PEER.get(NOBODY).address)
        path = request.path_params
        subject = str(path.get("name", path.get("number", "")))
        what = path.get("operation") or path.get("action") or request.url.path
        entry = NewAudit(
            known.name, known.role, known.address, str(what)[:256], subject[:256],
            f"refused: {error.message}", {"path": request.url.path[:1000]},
        )  # fmt: skip
        with suppress(BackstayError):  # it stays refused
            await self.audit(entry)

    def _may_note(self) -> bool:
        now = trio.current_time()
        self._refusals = [at for at in self._refusals if at > now - 60]
        if len(self._refusals) >= self.limits.refusals_a_minute:
            return False
        self._refusals.append(now)
        return True


@dataclass(slots=True)
class Call:
    """A request that may be carried out. ``handed``: it has reached ``control``, which audits."""

    request: Request
    caller: Caller
    query: Any
    body: Any
    handed: bool = False


Handler = Callable[[Api, Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A handler's answer where it is not plainly 200."""

    value: Any
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    """A route, for serving it and for the OpenAPI document. ``role`` None: anybody may."""

    method: str
    path: str
    name: str
    summary: str
    role: str | None
    answer: Any  # a model; str: text
    handler: Handler
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    errors: tuple[int, ...] = ()
    statuses: tuple[int, ...] = (200,)
    media: str = "application/json"

    @property
    def changes(self) -> bool:
        """It may change something, so it is audited."""
        return self.method == "POST"


def problem(error: BackstayError) -> Response:
    """The response to an error."""
    found = document(error)
    headers = {"WWW-Authenticate": "Bearer"} if found.status == 401 else {}
    return Response(found.model_dump_json(), found.status, headers, MEDIA_TYPE)


def endpoint(api: Api, spec: Spec) -> Callable[[Request], Awaitable[Response]]:
    """How a route is answered."""

    async def answer(request: Request) -> Response:
        caller = api.caller(request)
        call = None
        try:
            known = _permitted(caller, spec)
            call = Call(request, known, _query(request, spec), await _body(api, request, spec))
            call.caller = replace(known, key=_key(request, spec))
            found = await spec.handler(api, call)
        except BackstayError as error:
            if spec.changes and not (call is not None and call.handed):
                await api.refused(request, caller, error)
            return problem(error)
        if isinstance(found, Response):
            return found
        given = found if isinstance(found, Answer) else Answer(found)
        if spec.answer is str:
            return Response(given.value, given.status, media_type=spec.media)
        data = as_json(spec.answer, given.value)
        return Response(data, given.status, dict(given.headers), spec.media)

    return answer


def as_json(model: Any, value: Any) -> bytes:
    """``value``, which is a ``model``."""
    return _adapter(model).dump_json(value)


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    """Made when an answer first needs it: the daemon does not begin with all of them."""
    return TypeAdapter(model)


def _permitted(caller: Caller | None, spec: Spec) -> Caller:
    if spec.role is None:
        return caller or Caller("anybody", "none", PEER.get(NOBODY).address)
    if caller is None:
        raise refuse(
            401,
            "who is asking is not known",
            hint="send a bearer token, or use a client certificate, that the access file names",
        )
    need_role(caller, spec.role)
    return caller


def need_role(caller: Caller, role: str) -> None:
    """``Refused`` 403 for one who may not."""
    if not outranks(caller.role, role):
        raise refuse(
            403,
            f"{caller.name} is {caller.role}: this needs {role}",
            hint=f"ask somebody whose role is {role}",
        )


def _key(request: Request, spec: Spec) -> str:
    return checked_key(request.headers.get(HEADER, "")) if spec.changes else ""


def _query(request: Request, spec: Spec) -> BaseModel | None:
    if spec.query is None:
        return None
    try:
        return spec.query.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise _wrong_fields(error) from None


async def _body(api: Api, request: Request, spec: Spec) -> BaseModel | None:
    if spec.body is None:
        return None
    data = await _read(api, request)
    if not data:
        data = b"{}"
    elif request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        # A browser cannot be made to send this across sites without being asked first.
        raise refuse(415, "the body is not application/json")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        wrong = FieldProblem(field="body", message="is not JSON")
        raise refuse(422, "the body is not JSON", errors=[wrong]) from None
    try:
        return spec.body.model_validate(fields)
    except ValidationError as error:
        raise _wrong_fields(error) from None


async def _read(api: Api, request: Request) -> bytes:
    limit = api.limits.body
    too_large = refuse(413, f"the body is larger than {limit} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > limit:
        raise too_large
    data = bytearray()
    try:
        with trio.fail_after(api.limits.request_seconds):
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    data += chunk
                    if len(data) > limit:
                        raise too_large
    except trio.TooSlowError:
        raise refuse(408, "the body did not arrive in time") from None
    except ClientDisconnect:
        raise refuse(408, "the client went away") from None
    return bytes(data)


def _wrong_fields(error: ValidationError) -> Refused:
    raw = error.errors(include_url=False, include_context=False, include_input=False)
    found = field_problems([dict(each) for each in raw])
    said = "; ".join(f"{each.field}: {each.message}" for each in found)
    return refuse(422, said, errors=found)
