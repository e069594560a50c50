"""The API over a real Unix socket: what it shows, does, and says when it will not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from pipeline.api.settings import Limits
from tests.api.operator import WRONG_CONFIG, Operator
from tests.api.serving import Serving, served


@pytest.fixture
def control() -> Operator:
    return Operator()


@pytest.fixture
async def serving(control: Operator, tmp_path: Path) -> AsyncIterator[Serving]:
    async with served(control, control.refused, tmp_path) as found:
        yield found


@pytest.fixture
async def http(serving: Serving) -> AsyncIterator[httpx.AsyncClient]:
    async with serving.client() as client:
        yield client


def problem(response: httpx.Response, status: int, error: str, code: int) -> dict[str, Any]:
    """Check a problem document and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert found["type"] == f"urn:backstay:error:{error}"
    assert (found["status"], found["error"], found["exit_code"]) == (status, error, code)
    assert found["detail"]
    assert found["title"]
    return dict(found)


async def test_what_it_shows(http: httpx.AsyncClient, control: Operator) -> None:
    daemon = (await http.get("/v1/daemon")).json()
    assert (daemon["version"], daemon["ready"], daemon["health"]) == ("0.1.0", True, "warning")
    found = (await http.get("/v1/machines")).json()["machines"]
    assert [each["name"] for each in found] == ["db", "new", "web1"]
    one = (await http.get("/v1/machines/web1")).json()
    assert one == found[2]
    assert one["state"] == "replicating"
    assert one["disks"] == [
        {
            "name": "root",
            "size": 1 << 30,
            "path": "/srv/web1.img",
            "socket": "nbd+unix:///?socket=/s",
        }
    ]
    assert found[0]["ladder"]["last"]["error"] == "StoreUnreachable"
    health = (await http.get("/v1/health")).json()
    assert health["health"] == "critical"
    assert [each["health"] for each in health["machines"]] == ["critical", "normal", "normal"]
    assert (await http.get("/healthz")).json() == {"ok": True}
    assert (await http.get("/readyz")).json() == {"ok": True}
    control.is_ready = False
    problem(await http.get("/readyz"), 503, "Refused", 8)
    assert (await http.get("/healthz")).status_code == 200


async def test_an_operation_and_its_job(http: httpx.AsyncClient, control: Operator) -> None:
    dry = await http.post("/v1/machines/web1/operations/resync", json={"dry_run": True})
    assert dry.status_code == 200
    assert dry.json()["stake"]["lines"][0] == "resync of web1"
    assert dry.json()["job"] is None
    assert (await http.get("/v1/jobs")).json() == {"jobs": []}
    begun = await http.post("/v1/machines/web1/operations/resync")
    assert (begun.status_code, begun.headers["location"]) == (202, "/v1/jobs/1")
    job = (await http.get("/v1/jobs/1")).json()
    assert job == begun.json()["job"]
    assert (job["state"], job["kind"], job["allowed"]) == (
        "in progress",
        "resynchronize",
        ["cancel"],
    )
    again = problem(
        await http.post("/v1/machines/web1/operations/resync"), 409, "IllegalOperation", 11
    )
    assert "job #1 is under way" in again["detail"]
    assert again["hint"] == "allowed now: nothing"
    done = await http.post("/v1/jobs/1/cancel", json={"note": "not now"})
    assert (done.json()["state"], done.json()["notes"]) == ("cancelled", ["not now"])
    problem(await http.post("/v1/jobs/1/cancel"), 409, "IllegalOperation", 11)
    restarted = (await http.post("/v1/jobs/1/restart")).json()
    assert restarted["state"] == "not started"
    control.finish(1, control_event("start"))
    control.finish(1)
    jobs = (await http.get("/v1/jobs", params={"machine": "web1", "limit": 1})).json()["jobs"]
    assert [each["state"] for each in jobs] == ["succeeded"]
    assert (await http.get("/v1/jobs", params={"active": True})).json()["jobs"] == []
    at_once = await http.post("/v1/machines/web1/operations/suspend", json={})
    assert (at_once.status_code, at_once.json()["job"]) == (200, None)
    assert (await http.get("/v1/machines/web1")).json()["state"] == "suspended"


def control_event(word: str) -> Any:
    from pipeline.control.jobs import JobEvent

    return JobEvent(word)


async def test_what_cannot_be_undone_wants_the_name(http: httpx.AsyncClient) -> None:
    where = "/v1/machines/web1/operations/unprotect"
    for confirm in ({}, {"confirm": ""}, {"confirm": "web"}, {"confirm": "db"}):
        found = problem(await http.post(where, json=confirm), 422, "Refused", 2)
        assert found["errors"] == [
            {"field": "confirm", "message": "must be the name of the machine"}
        ]
        assert found["stake"][1] == "the source is alive"
    assert (await http.get("/v1/jobs")).json() == {"jobs": []}
    body = {"confirm": "web1", "parameters": {"data": "keep"}}
    assert (await http.post(where, json=body)).status_code == 202


async def test_a_repeated_request_begins_one_job(http: httpx.AsyncClient, serving: Serving) -> None:
    where, key = "/v1/machines/web1/operations/resync", {"Idempotency-Key": "abc"}
    answers: list[httpx.Response] = []

    async def ask() -> None:
        async with serving.client() as client:
            answers.append(await client.post(where, headers=key))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert {each.status_code for each in answers} == {202}
    assert {each.json()["job"]["id"] for each in answers} == {1}
    assert sorted(each.json()["repeated"] for each in answers) == [False, *[True] * 4]
    assert len((await http.get("/v1/jobs")).json()["jobs"]) == 1
    other = problem(
        await http.post("/v1/machines/db/operations/failback", headers=key), 422, "Refused", 2
    )
    assert other["errors"][0]["field"] == "Idempotency-Key"
    long = {"Idempotency-Key": "x" * 129}
    problem(await http.post(where, headers=long), 422, "Refused", 2)


async def test_a_repetition_after_a_restart_begins_nothing(
    control: Operator, tmp_path: Path
) -> None:
    where, key = "/v1/machines/web1/operations/resync", {"Idempotency-Key": "abc"}
    for _ in range(2):
        async with served(control, control.refused, tmp_path) as again, again.client() as http:
            assert (await http.post(where, headers=key)).json()["job"]["id"] == 1
    assert len(await control.jobs()) == 1


async def test_what_failed_may_be_tried_again_with_its_key(
    http: httpx.AsyncClient, control: Operator
) -> None:
    where, key = "/v1/machines/web1/operations/resume", {"Idempotency-Key": "abc"}
    problem(await http.post(where, headers=key), 409, "IllegalOperation", 11)
    await http.post("/v1/machines/web1/operations/suspend")
    assert (await http.post(where, headers=key)).json()["repeated"] is False
    assert (await http.post(where, headers=key)).json()["repeated"] is True


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"parametres": {}}, "parametres"),
        ({"dry_run": "perhaps"}, "dry_run"),
        ({"parameters": []}, "parameters"),
        ({"confirm": 7}, "confirm"),
        ({"confirm": "x" * 300}, "confirm"),
        ([], "body"),
        ({"parameters": {"colour": "blue"}}, "parameters"),
    ],
)
async def test_a_wrong_body_names_the_field(http: httpx.AsyncClient, body: Any, field: str) -> None:
    response = await http.post("/v1/machines/web1/operations/resync", json=body)
    assert response.status_code == 422
    found = response.json()
    assert [each["field"] for each in found["errors"]] == [field]
    assert found["exit_code"] == 2


@pytest.mark.parametrize(
    ("query", "field"), [("limit=0", "limit"), ("limit=x", "limit"), ("befor=1", "befor")]
)
async def test_a_wrong_query_names_the_field(
    http: httpx.AsyncClient, query: str, field: str
) -> None:
    found = problem(await http.get(f"/v1/jobs?{query}"), 422, "Refused", 2)
    assert [each["field"] for each in found["errors"]] == [field]


async def test_what_is_not_there(http: httpx.AsyncClient) -> None:
    problem(await http.get("/v1/machines/nobody"), 404, "NotFound", 13)
    problem(await http.post("/v1/machines/nobody/operations/resync"), 404, "NotFound", 13)
    dance = problem(await http.post("/v1/machines/web1/operations/dance"), 404, "NotFound", 13)
    assert "failover-planned" in dance["hint"]
    problem(await http.get("/v1/jobs/77"), 404, "NotFound", 13)
    problem(await http.get("/v1/jobs/x"), 404, "NotFound", 13)
    problem(await http.get("/v1/jobs/" + "9" * 40), 404, "NotFound", 13)
    problem(await http.post("/v1/jobs/1/dance"), 404, "NotFound", 13)
    problem(await http.get("/v2/machines"), 404, "Refused", 13)
    assert problem(await http.put("/v1/machines"), 405, "Refused", 2)["hint"]


async def test_bodies_are_bounded(http: httpx.AsyncClient) -> None:
    where = "/v1/machines/web1/operations/resync"
    json_type = {"Content-Type": "application/json"}
    problem(await http.post(where, content=b" " * 70_000, headers=json_type), 413, "Refused", 2)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 4096

    found = await http.post(where, content=endless(), headers=json_type)
    problem(found, 413, "Refused", 2)
    found = await http.request("GET", "/v1/jobs", content=endless())
    problem(found, 413, "Refused", 2)
    for content in (b"{", b"\xff", b"[" * 60_000):
        found = await http.post(where, content=content, headers=json_type)
        assert problem(found, 422, "Refused", 2)["errors"][0]["field"] == "body"
    found = await http.post(where, content=b"{}", headers={"Content-Type": "text/plain"})
    problem(found, 415, "Refused", 2)


async def test_a_body_that_does_not_come(control: Operator, tmp_path: Path) -> None:
    limits = Limits(request_seconds=0.05)
    async with served(control, control.refused, tmp_path, limits=limits) as serving:
        stream = await trio.open_unix_socket(serving.unix)
        head = b"POST /v1/daemon/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
        await stream.send_all(head)
        with trio.fail_after(30):
            assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 408")
        await stream.aclose()


async def test_a_defect_is_an_error_and_not_the_end(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"parameters": {"crash": "geheim1"}}
    response = await http.post("/v1/machines/web1/operations/resync", json=body)
    found = problem(response, 500, "Defect", 1)
    assert "geheim1" not in json.dumps(found)
    assert (await http.get("/v1/machines")).status_code == 200
    assert "RuntimeError" in caplog.text


async def test_reload(http: httpx.AsyncClient, control: Operator) -> None:
    assert (await http.post("/v1/daemon/reload")).json() == {"changed": ["web2: new"]}
    control.reload_error = WRONG_CONFIG
    found = problem(await http.post("/v1/daemon/reload"), 422, "ConfigError", 3)
    assert found["detail"] == "c.yaml:3:4: no"


async def test_every_change_is_audited_once(http: httpx.AsyncClient, control: Operator) -> None:
    where = "/v1/machines/web1/operations/"
    await http.post(where + "resync", json={"dry_run": True})
    calls = [
        (where + "resync", {}, "resync", "job 1"),
        (where + "resync", {}, "resync", "refused: it is replicating, job #1"),
        ("/v1/jobs/1/resume", {}, "job resume", "refused: it is in progress"),
        ("/v1/jobs/1/cancel", {}, "job cancel", "done"),
        (where + "unprotect", {}, "unprotect", "refused: unprotect cannot be undone"),
        (where + "unprotect", {"a": 1}, "unprotect", "refused: a: Extra inputs"),
        (where + "dance", {}, "dance", "refused: there is no such operation"),
        ("/v1/daemon/reload", {}, "reload", "done"),
    ]
    for path, body, _, _ in calls:
        await http.post(path, json=body)
    entries = (await http.get("/v1/audit")).json()["entries"][::-1]
    assert len(entries) == len(calls)
    for entry, (_, _, operation, outcome) in zip(entries, calls, strict=True):
        assert entry["operation"] == operation
        assert entry["outcome"].startswith(outcome)
        assert (entry["role"], entry["address"]) == ("approver", "unix")
    assert [entry["seq"] for entry in entries] == list(range(1, len(calls) + 1))
    page = (await http.get("/v1/audit", params={"before": 3, "limit": 1})).json()["entries"]
    assert [entry["seq"] for entry in page] == [2]


async def test_the_socket_is_its_owners_alone(serving: Serving) -> None:
    path = trio.Path(serving.unix)
    assert (await path.stat()).st_mode & 0o777 == 0o600
    assert (await path.parent.stat()).st_mode & 0o777 == 0o700


async def test_many_connections_are_cut_off(control: Operator, tmp_path: Path) -> None:
    limits = Limits(connections=3)
    async with served(control, control.refused, tmp_path, limits=limits) as serving:
        held = [await trio.open_unix_socket(serving.unix) for _ in range(3)]
        for stream in held:  # it was taken when it is answered
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 200")
        with trio.fail_after(30):
            more = await trio.open_unix_socket(serving.unix)
            assert await more.receive_some(1) == b""
        for stream in (*held, more):
            await stream.aclose()
