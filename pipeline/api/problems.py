"""Errors as RFC 9457 problem documents: what a program can rely on, what a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from stages.errors import BackstayError

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    message: str


class ProblemDocument(BaseModel):
    """An error (RFC 9457). ``error`` and ``exit_code`` are those of the command line."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="urn:backstay:error: and the class of the error")
    title: str
    status: int
    detail: str
    error: str
    operation: str
    subject: str
    hint: str
    recoverable: bool
    exit_code: int
    errors: list[FieldProblem] = Field(default_factory=list)
    stake: list[str] = Field(default_factory=list, description="what a confirmation would allow")


class Refused(BackstayError):
    """The API does not take a request; ``status`` is HTTP's. See ``refuse``."""

    status: int = 422
    errors: tuple[FieldProblem, ...] = ()
    stake: tuple[str, ...] = ()


def refuse(
    status: int,
    message: str,
    *,
    hint: str = "",
    errors: Sequence[FieldProblem] = (),
    stake: Sequence[str] = (),
) -> Refused:
    """The error for a request that is not taken. ``stake``: what a confirmation would allow."""
    found = Refused(message, operation="request", hint=hint)
    found.status, found.errors, found.stake = status, tuple(errors), tuple(stake)
    return found


# By exit code: what a client can mend is 4xx, what may be otherwise later 503.
_STATUS: Mapping[int, int] = {2: 422, 3: 422, 8: 503, 9: 503, 13: 404, 14: 503, 1: 500}
_CONFLICT = 409
_EXIT: Mapping[int, int] = {401: 4, 403: 4, 404: 13, 500: 1, 503: 8}
_WRONG_REQUEST = 2


def status_of(error: BackstayError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, Refused):
        return error.status
    return _STATUS.get(error.exit_code, _CONFLICT)


def document(error: BackstayError) -> ProblemDocument:
    """An error as it is sent."""
    status = status_of(error)
    refused = error if isinstance(error, Refused) else None
    name = type(error).__name__
    fields = list(refused.errors) if refused else []
    if status == 422 and not fields:  # all of them name a field
        fields = [FieldProblem(field="parameters", message=error.message)]
    return ProblemDocument(
        type=f"urn:backstay:error:{name}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        error=name,
        operation=error.operation,
        subject=error.subject,
        hint=error.hint,
        recoverable=status in (408, 503) if refused else error.recoverable,
        exit_code=_EXIT.get(status, _WRONG_REQUEST) if refused else error.exit_code,
        errors=fields,
        stake=list(refused.stake) if refused else [],
    )


def field_problems(found: Sequence[Mapping[str, Any]]) -> list[FieldProblem]:
    """What pydantic complains of; never the input itself, which may be a secret."""
    return [
        FieldProblem(
            field=".".join(str(part) for part in each["loc"]) or "body", message=str(each["msg"])
        )
        for each in found[:20]
    ]
