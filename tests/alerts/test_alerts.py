"""Alerts reach a real HTTP server and real commands, once for each change; nothing leaks."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from pipeline.alerts import AlertMessage, Alerts, dispatch
from pipeline.alerts.receivers import Command, NotTold, Refused, Webhook
from pipeline.config.service import Alert, Daemon, Secret
from pipeline.control.model import Health, Reason
from pipeline.credential import read_secret
from pipeline.health.calm import Calm, Change
from stages.errors import ConfigError
from stages.system import this_machine
from tests.alerts.server import Heard, serving

BAD = Change(
    Health.NORMAL, Health.CRITICAL, (Reason("rpo", Health.CRITICAL, "it is old", "look there"),)
)
WELL = Change(Health.CRITICAL, Health.NORMAL, ())
MESSAGE = AlertMessage.of("web1", BAD, 1_700_000_000_000_000, "host1")


@pytest.fixture
def server() -> Iterator[Heard]:
    with serving() as heard:
        yield heard


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "PAUSES", (0.01, 0.01, 0.01))


def _script(folder: Path, *lines: str) -> str:
    path = folder / "page"
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return str(path)


@asynccontextmanager
async def _running(*alerts: Alert) -> AsyncIterator[Alerts]:
    found = Alerts(this_machine(), "host1")
    found.configure(Daemon(state="/nowhere", alerts=alerts))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        yield found
        nursery.cancel_scope.cancel()


async def test_each_change_once_to_everybody(
    server: Heard, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = _script(tmp_path, f"cat >> {tmp_path}/said", f"echo $BACKSTAY_HEALTH >> {tmp_path}/h")
    async with _running(Alert(webhook=server.url), Alert(command=command)) as alerts:
        alerts.tell("web1", BAD)
        alerts.tell("", WELL)
        assert await alerts.drain(30)
    first, second = server.bodies
    assert (first["machine"], first["before"], first["after"]) == ("web1", "normal", "critical")
    assert first["reasons"] == [
        {"code": "rpo", "health": "critical", "message": "it is old", "hint": "look there"}
    ]
    assert first["text"] == "web1: critical: it is old"
    assert (second["machine"], second["after"], second["version"]) == ("", "normal", 1)
    assert server.headers[0]["Content-Type"] == "application/json"
    assert [json.loads(line) for line in (tmp_path / "said").read_text().splitlines()] == [
        first,
        second,
    ]
    assert (tmp_path / "h").read_text() == "critical\nnormal\n"
    said = capfd.readouterr().err.splitlines()
    assert said == ["web1: critical: it is old", "the daemon: well again (was critical)"]


async def test_what_fails_for_a_while_arrives(server: Heard) -> None:
    server.answers += [500, 503, 429]
    async with _running(Alert(webhook=server.url)) as alerts:
        alerts.tell("web1", BAD)
        assert await alerts.drain(30)
    assert len(server.bodies) == 4


async def test_what_is_refused_is_not_tried_again_and_the_next_says_so(
    server: Heard, capfd: pytest.CaptureFixture[str]
) -> None:
    server.answers += [404]
    async with _running(Alert(webhook=server.url)) as alerts:
        alerts.tell("web1", BAD)
        assert await alerts.drain(30)
        assert len(server.bodies) == 1
        alerts.tell("web1", WELL)
        alerts.tell("web1", BAD)
        assert await alerts.drain(30)
    assert [body["dropped"] for body in server.bodies] == [0, 1, 0]
    said = capfd.readouterr().err
    assert "answered with status 404; an alert is lost" in said
    assert "s3cret" not in said


async def test_redirects_are_not_followed(server: Heard) -> None:
    server.answers += [302]
    with pytest.raises(Refused, match="status 302"):
        await Webhook(Alert(webhook=server.url), this_machine()).tell(MESSAGE)
    assert len(server.bodies) == 1


async def test_a_receiver_that_hangs_holds_up_nobody_and_drops_the_oldest(
    server: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "QUEUE", 3)
    server.hangs.clear()
    hung = Alert.model_construct(webhook=server.url, timeout=60)
    quick = Alert(command=_script(tmp_path, f"cat >> {tmp_path}/said"))
    async with _running(hung, quick) as alerts:
        for number in range(6):
            alerts.tell(f"web{number}", BAD)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(30):
                await alerts._channels[quick].idle.wait()
        assert len((tmp_path / "said").read_text().splitlines()) == 6
        assert not await alerts.drain(0)
        server.hangs.set()
        assert await alerts.drain(30)
    assert [body["machine"] for body in server.bodies] == ["web0", "web3", "web4", "web5"]
    assert [body["dropped"] for body in server.bodies] == [0, 2, 0, 0]


async def test_no_answer_in_time(server: Heard) -> None:
    server.hangs.clear()
    alert = Alert.model_construct(webhook=server.url, token=None, command=None, timeout=0.1)
    with pytest.raises(NotTold, match=r"no answer within 0\.1 s"):
        await Webhook(alert, this_machine()).tell(MESSAGE)


async def test_a_server_that_is_not_there() -> None:
    with serving() as heard:
        url = heard.url
    with pytest.raises(NotTold, match="cannot be reached: ConnectError") as caught:
        await Webhook(Alert(webhook=url), this_machine()).tell(MESSAGE)
    assert "s3cret" not in str(caught.value)


async def test_a_token_from_the_environment_or_a_file_and_never_shown(
    server: Heard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ALERT_TOKEN", "t0ken-1")
    (tmp_path / "token").write_text("t0ken-2\n")
    command = Alert(command=_script(tmp_path, f"env > {tmp_path}/env"))
    first = Alert(webhook=server.url, token=Secret(environment="ALERT_TOKEN"))
    second = Alert(webhook=server.url, token=Secret(file=str(tmp_path / "token")))
    async with _running(first, second, command) as alerts:
        alerts.tell("web1", BAD)
        assert await alerts.drain(30)
        (tmp_path / "token").unlink()
        server.answers += [500] * 20
        alerts.tell("web1", WELL)
        assert await alerts.drain(30)
    sent = {headers.get("Authorization") for headers in server.headers}
    assert sent == {"Bearer t0ken-1", "Bearer t0ken-2"}
    assert "t0ken" not in capfd.readouterr().err
    assert "t0ken" not in (tmp_path / "env").read_text()
    assert "t0ken" not in repr(first)


async def test_https_is_verified() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with serving(context, "localhost") as heard:
        alert = Alert(webhook=heard.url)
        with pytest.raises(NotTold, match="cannot be reached"):
            await Webhook(alert, this_machine()).tell(MESSAGE)
        assert not heard.bodies
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        await Webhook(alert, this_machine(), trusting).tell(MESSAGE)
        assert len(heard.bodies) == 1


async def test_commands_that_go_wrong(tmp_path: Path) -> None:
    failing = Command(
        Alert(command=_script(tmp_path, "head -c 100000 /dev/zero | tr '\\0' x; exit 3"))
    )
    with pytest.raises(NotTold, match="failed with exit code 3: xxx") as caught:
        await failing.tell(MESSAGE)
    assert len(str(caught.value)) < 3000
    hanging = Alert.model_construct(command=_script(tmp_path, "sleep 600"), timeout=0.2)
    with pytest.raises(NotTold, match=r"took longer than 0\.2 s"):
        await Command(hanging).tell(MESSAGE)
    with pytest.raises(Refused, match="No such file"):
        await Command(Alert(command=str(tmp_path / "nothing"))).tell(MESSAGE)


async def test_a_command_that_does_not_listen(tmp_path: Path) -> None:
    many = tuple(Reason(f"c{at}", Health.CRITICAL, "x" * 5000) for at in range(500))
    large = AlertMessage.of("web1", Change(Health.NORMAL, Health.CRITICAL, many), 0, "h")
    assert len(large.body()) < 200_000
    await Command(Alert(command=_script(tmp_path, "exit 0"))).tell(large)


async def test_another_configuration(server: Heard, tmp_path: Path) -> None:
    command = Alert(command=_script(tmp_path, f"cat >> {tmp_path}/said"))
    async with _running(Alert(webhook=server.url)) as alerts:
        alerts.configure(Daemon(state="/nowhere", alerts=(command,)))
        alerts.tell("web1", BAD)
        assert await alerts.drain(30)
        alerts.configure(Daemon(state="/nowhere", alerts=()))
        alerts.tell("web1", WELL)
        assert await alerts.drain(30)
    assert not server.bodies
    assert len((tmp_path / "said").read_text().splitlines()) == 1


async def test_health_is_told_once_for_each_change(server: Heard) -> None:
    calm, bad = Calm(), [Reason("rpo", Health.CRITICAL, "old")]
    async with _running(Alert(webhook=server.url)) as alerts:
        for found in (bad, bad, bad, bad, [], [], []):
            change = calm.check(found)
            if change is not None:
                alerts.tell("web1", change)
        assert await alerts.drain(30)
    assert [body["after"] for body in server.bodies] == ["critical", "normal"]


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff", b"a\nb", b"x" * 20_000])
def test_secrets_that_cannot_be_used(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_secret(Secret(file=str(tmp_path / "s")), this_machine().files)
    assert caught.value.subject == str(tmp_path / "s")
    with pytest.raises(ConfigError, match="is not set"):
        read_secret(Secret(environment="NOT_THERE"), this_machine().files, os.environ)
