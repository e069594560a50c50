"""The OpenAPI document holds every route and every error; the metrics are what Prometheus reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import validate
from starlette.routing import Route

from pipeline.api import metrics
from pipeline.api.access import Access
from pipeline.api.app import build_app
from pipeline.api.guard import Api
from pipeline.api.openapi import openapi
from pipeline.api.problems import Refused, status_of
from pipeline.api.routes import SPECS
from pipeline.api.settings import Limits
from pipeline.control.model import State
from stages import errors
from tests.api.operator import Operator
from tests.api.serving import served


def _document() -> dict[str, Any]:
    return openapi(SPECS, "0.1.0")


def test_it_is_valid() -> None:
    validate(_document())


def test_every_route_is_in_it() -> None:
    control = Operator()
    app = build_app(Api(control, control.refused, Limits(), Access()))
    found = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    paths = _document()["paths"]
    documented = {(m.upper(), path) for path, methods in paths.items() for m in methods}
    assert found - {("GET", "/openapi.json")} == documented
    names = [spec.name for spec in SPECS]
    assert len(set(names)) == len(names)


def test_every_error_is_in_it() -> None:
    """Whatever ``Control`` raises has a status that the routes that ask it say."""
    for spec in SPECS:
        said = set(_document()["paths"][spec.path][spec.method.lower()]["responses"])
        assert "500" in said
        if spec.role is not None:
            assert {"401", "403", "503"} <= said
        if spec.query is not None or spec.body is not None:
            assert "422" in said
        if "{" in spec.path:
            assert "404" in said
        if spec.changes:
            assert {"404", "408", "409", "413", "415", "422"} <= said


def _errors(kind: type[errors.BackstayError]) -> Iterator[type[errors.BackstayError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _errors(child)


@pytest.mark.parametrize("kind", [*_errors(errors.BackstayError)], ids=lambda kind: kind.__name__)
def test_every_error_has_a_status(kind: type[errors.BackstayError]) -> None:
    if kind is Refused:
        return
    status = status_of(kind("x"))
    assert status in (404, 409, 422, 500, 503)
    if kind.recoverable:
        assert status == 503  # it may be otherwise later


async def test_it_is_served(tmp_path: Path) -> None:
    control = Operator()
    async with served(control, control.refused, tmp_path) as serving, serving.client() as client:
        found = (await client.get("/openapi.json")).json()
    assert found == _document()
    schemas = found["components"]["schemas"]
    assert {"MachineView", "JobView", "ProblemDocument", "Stake", "EventView"} <= set(schemas)
    assert schemas["State"]["enum"] == [state.value for state in State]


_SAMPLE = re.compile(r'^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)$')


def _samples(text: str) -> dict[tuple[str, str], float]:
    assert text.endswith("\n")
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = _SAMPLE.match(line)
            assert match is not None, line
            found[(match[1], match[2] or "")] = float(match[3])
    return found


async def test_metrics(tmp_path: Path) -> None:
    control = Operator()
    async with served(control, control.refused, tmp_path) as serving, serving.client() as client:
        response = await client.get("/metrics")
    assert response.headers["content-type"] == metrics.MEDIA_TYPE
    found = _samples(response.text)
    assert found["backstay_ready", ""] == 1
    assert found["backstay_machine_state", 'machine="web1",state="replicating"'] == 1
    assert found["backstay_machine_rpo_seconds", 'machine="web1"'] == 1.5
    assert ("backstay_machine_rpo_seconds", 'machine="new"') not in found
    assert found["backstay_machine_ladder_attempt", 'machine="db"'] == 3
    assert found["backstay_machine_health", 'machine="db"'] == 2
    assert found["backstay_machine_journal_bytes", 'machine="db"'] == 4096
    assert found["backstay_machine_shipped_bytes_total", 'machine="db"'] == 12345
    stage = 'machine="web1",stage="compress"'
    assert found["backstay_stage_workers", stage] == 2
    assert found["backstay_stage_busy_seconds_total", stage] == 3.5
    assert found["backstay_stage_wait_out_seconds_total", stage] == 0.25
    names = re.findall(r"^# TYPE (\S+)", response.text, re.MULTILINE)
    assert len(set(names)) == len(names)


@given(st.text())
def test_labels_are_escaped(name: str) -> None:
    shown = metrics.escaped(name)
    assert "\n" not in shown
    plain = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], shown)
    assert plain == name
    assert not re.search(r'(?<!\\)(?:\\\\)*"', shown)


@given(st.integers(0, 2**63) | st.floats(allow_nan=False))
def test_numbers_are_exact(value: float) -> None:
    assert type(value)(metrics.number(value)) == value
