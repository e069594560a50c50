"""Errors of a site as answers: what the client's store can tell apart."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import Response

from pipeline.api.problems import MEDIA_TYPE, document
from stages.errors import (
    BackstayError,
    NoSpace,
    ObjectMissing,
    OutcomeUnknown,
    StoreUnreachable,
)
from stages.store.site import protocol

HEADERS = {protocol.VERSION_HEADER: protocol.VERSION, "cache-control": "no-store"}


class SiteRefused(BackstayError):
    """A site does not take a request; ``status`` is HTTP's."""

    exit_code = 2
    status: int = 400


class Forbidden(SiteRefused):
    """The certificate is known, or not, but this is not for whoever shows it."""

    exit_code = 4
    status = 403


class Busy(SiteRefused):
    """Too much at a time: later it may be otherwise."""

    recoverable = True
    exit_code = 8
    status = 503


def refuse(status: int, message: str, *, hint: str = "") -> SiteRefused:
    """The error for a request that is not taken."""
    kind = Busy if status in (408, 503) else SiteRefused
    found = kind(message, operation="request", hint=hint)
    found.status = status
    return found


def status_of(error: BackstayError) -> int:
    """The HTTP status of an error. What the site's own disk refuses is the site's trouble (5xx)."""
    if isinstance(error, SiteRefused):
        return error.status
    if isinstance(error, ObjectMissing):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, NoSpace):
        return HTTPStatus.INSUFFICIENT_STORAGE
    if isinstance(error, StoreUnreachable) and not isinstance(error, OutcomeUnknown):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.INTERNAL_SERVER_ERROR


def answer_to(error: BackstayError) -> Response:
    """The response to an error."""
    status = status_of(error)
    found = document(error).model_copy(
        update={"status": status, "title": HTTPStatus(status).phrase, "errors": []}
    )
    headers = HEADERS | {protocol.ERROR_HEADER: type(error).__name__}
    return Response(found.model_dump_json(), status, headers, MEDIA_TYPE)
