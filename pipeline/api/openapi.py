"""The OpenAPI document, made of the table of routes and the models that are really used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter

from pipeline.api.access import ROLES
from pipeline.api.guard import Spec
from pipeline.api.problems import MEDIA_TYPE, ProblemDocument
from pipeline.api.repeats import HEADER

_REF = "#/components/schemas/{model}"
_ALWAYS = (500,)
_SAID = {200: "done", 202: "a job was begun"}


def openapi(specs: Sequence[Spec], version: str) -> dict[str, Any]:
    """The document (3.1)."""
    schemas: dict[str, Any] = {}
    _schema(ProblemDocument, schemas, "serialization")
    paths: dict[str, dict[str, Any]] = {}
    for spec in specs:
        paths.setdefault(spec.path, {})[spec.method.lower()] = _operation(spec, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Backstay",
            "version": version,
            "description": "Disaster recovery: what is protected, and what may be done with it. "
            f"Roles, each may do what those before it may: {', '.join(ROLES)}.",
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
        },
    }


def _operation(spec: Spec, schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": spec.name,
        "summary": spec.summary,
        "parameters": _parameters(spec),
        "responses": _responses(spec, schemas),
    }
    if spec.role is not None:
        found["description"] = f"Needs the role {spec.role}."
        found["security"] = [{"bearer": []}, {"certificate": []}]
    if spec.body is not None:
        schema = _schema(spec.body, schemas, "validation")
        found["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return found


def _responses(spec: Spec, schemas: dict[str, Any]) -> dict[str, Any]:
    text = spec.answer is str
    schema = {"type": "string"} if text else _schema(spec.answer, schemas, "serialization")
    media = spec.media.partition(";")[0]
    found: dict[str, Any] = {
        str(status): {"description": _SAID[status], "content": {media: {"schema": schema}}}
        for status in spec.statuses
    }
    problem = {"schema": {"$ref": _REF.format(model="ProblemDocument")}}
    for status in sorted({*spec.errors, *_ALWAYS}):
        found[str(status)] = {"description": "an error", "content": {MEDIA_TYPE: problem}}
    return found


def _parameters(spec: Spec) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", spec.path)
    ]
    if spec.query is not None:
        found += _query(spec.query)
    if spec.changes:
        found.append(_header(HEADER.title(), "a repetition with the same key begins nothing"))
    if spec.name == "follow":
        found.append(_header("Last-Event-ID", "the newest event that was seen"))
    return found


def _header(name: str, said: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": said, "schema": {"type": "string"}}


def _query(model: type[BaseModel]) -> list[dict[str, Any]]:
    fields: Mapping[str, Any] = model.model_json_schema(ref_template=_REF)["properties"]
    return [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]


def _schema(model: Any, schemas: dict[str, Any], mode: Any) -> dict[str, Any]:
    """A reference to a model; what it is made of goes to ``schemas``."""
    found = TypeAdapter(model).json_schema(ref_template=_REF, mode=mode)
    schemas.update(found.pop("$defs", {}))
    name = str(found["title"])
    schemas[name] = found
    return {"$ref": _REF.format(model=name)}
