"""The command line as a client of a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from pipeline.cli.client import Client, Where, as_error
from pipeline.cli.status import socket_of
from pipeline.control.jobs import JobEvent
from pipeline.control.model import JobState, State
from stages.errors import EXIT_CODES, BackstayError
from tests.api.operator import Operator
from tests.api.serving import TOKENS, Serving, served
from tests.cli.support import Place, Said

Run = Callable[..., Awaitable[Said]]


@pytest.fixture
def control() -> Operator:
    return Operator()


@pytest.fixture
async def serving(control: Operator, tmp_path: Path) -> AsyncIterator[Serving]:
    async with served(control, control.refused, tmp_path, tls=True) as found:
        yield found


@pytest.fixture
def run(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a thread, against the server."""
    monkeypatch.setenv("BACKSTAY_API", serving.addresses[0])

    async def go(*words: str) -> Said:
        return await trio.to_thread.run_sync(Place(serving.place).backstay, *words)

    return go


async def test_status(run: Run) -> None:
    said = await run("status")
    assert (said.code, said.err) == (0, "")
    rows = {line.split()[0]: line for line in said.out.splitlines() if line.strip()}
    assert "failover committed" in rows["db"]
    assert "attempt 3 failed, next at 2023-11-14" in rows["db"]
    assert "1.5 s" in rows["web1"]
    assert "#7" in rows["web1"]
    assert "critical: db: RPO is 2 h" in said.out
    assert "warning: daemon: no key was drilled" in said.out
    assert "key drilled: never" in said.out
    fields = (await run("status", "--json")).fields
    assert [each["machine"] for each in fields["machines"]] == ["db", "new", "web1"]
    assert fields["daemon"]["version"] == "0.1.0"
    assert (await run("status", "--watch", "--json")).code == 2


async def test_machines(run: Run) -> None:
    said = await run("machines")
    assert "unprotect, suspend, resync, retry, migrate" in said.out
    assert len((await run("machines", "--json")).fields["machines"]) == 3
    one = await run("machines", "web1")
    assert "/srv/web1.img" in one.out
    assert (await run("machines", "web1", "--json")).fields["state"] == "replicating"
    missing = await run("machines", "nobody", "--json")
    assert (missing.code, missing.error["error"]) == (13, "NotFound")
    assert (await run("machines", "../daemon")).code == 13


async def test_operations_at_once(run: Run, control: Operator) -> None:
    said = await run("suspend", "web1")
    assert (said.code, said.out) == (0, "web1: suspend: done\n")
    refused = await run("suspend", "web1")
    assert refused.code == 11
    assert "it is suspended" in refused.err
    assert "allowed now: unprotect, resume" in refused.err
    assert (await run("resume", "web1", "--json")).fields["job"] is None
    assert control.states["web1"] is State.REPLICATING
    assert (await run("retry", "web1")).code == 0


async def test_a_dry_run_does_nothing(run: Run, control: Operator) -> None:
    for words in (("resync",), ("unprotect", "--keep-data"), ("migrate",), ("suspend",)):
        said = await run(words[0], "web1", *words[1:], "--dry-run")
        assert said.out.splitlines()[0] == f"{words[0]} of web1"
        fields = (await run(words[0], "web1", *words[1:], "--dry-run", "--json")).fields
        assert fields["stake"]["lines"][1] == "the source is alive"
    assert (await control.jobs(), control.states["web1"]) == ([], State.REPLICATING)
    for words in (("reprotect", "db"), ("failback", "db"), ("protect", "new")):
        assert (await run(*words, "--dry-run")).code == 0


async def test_what_cannot_be_undone_is_confirmed(run: Run, control: Operator) -> None:
    command = ("unprotect", "web1", "--keep-data")
    said = await run(*command)
    assert said.code == 2
    assert "the source is alive" in said.err
    assert "--confirm web1" in said.err
    wrong = await run(*command, "--confirm", "web")
    assert wrong.code == 2
    assert await control.jobs() == []
    said = await run(*command, "--confirm", "web1")
    assert (said.code, said.out) == (0, "web1: job #1: disable protection: in progress\n")
    neither = await run("unprotect", "web1")
    assert (neither.code, "--keep-data or --delete-data" in neither.err) == (2, True)


async def test_parameters(run: Run, control: Operator) -> None:
    assert (await run("protect", "new", "--at", "2026-03-01T12:00:00Z", "--dry-run")).code == 0
    assert (await run("protect", "new", "--at", "yesterday")).code == 2
    assert (await run("protect", "new", "--at", "#7")).code == 2
    assert (await run("protect", "new", "--by-hand", "--at", "2026-03-01")).code == 2
    assert (await run("protect", "new", "--by-hand")).code == 0
    assert [job.machine for job in await control.jobs()] == ["new"]


async def test_jobs(run: Run, control: Operator) -> None:
    await run("resync", "web1")
    listed = await run("job", "list")
    assert "resynchronize" in listed.out
    assert len((await run("job", "list", "--active", "--json")).fields["jobs"]) == 1
    assert (await run("job", "list", "--machine", "db", "--json")).fields["jobs"] == []
    shown = await run("job", "show", "1")
    assert "#1: resynchronize of web1" in shown.out
    dry = (await run("job", "cancel", "1", "--dry-run", "--json")).fields
    assert dry["allowed"] is True
    said = await run("job", "cancel", "1", "--note", "not now")
    assert said.out == "job #1: resynchronize: cancelled\n"
    assert "not now" in (await run("job", "show", "1")).out
    assert (await run("job", "resume", "1")).code == 11
    assert (await run("job", "restart", "1")).code == 0
    assert (await run("job", "show", "9")).code == 13
    assert (await control.job(1)).state is JobState.NOT_STARTED


@pytest.mark.parametrize(
    ("event", "code"), [(JobEvent.SUCCEED, 0), (JobEvent.FAIL, 11), (JobEvent.CANCEL, 11)]
)
async def test_waiting_for_a_job(run: Run, control: Operator, event: JobEvent, code: int) -> None:
    codes = []

    async def wait() -> None:
        codes.append((await run("resync", "web1", "--wait")).code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        with trio.fail_after(30):
            while not await control.jobs():  # noqa: ASYNC110 - it has no event to wait for
                await trio.sleep(0.01)
        control.finish(1, event)
    assert codes == [code]


async def test_events(run: Run, control: Operator) -> None:
    for number in range(3):
        control.happen("state", "web1", f"said {number}", 4)
    control.happen("daemon", "", "begins")
    said = await run("events", "--after", "1")
    assert [line.split(": ", 1)[1] for line in said.out.splitlines()] == [
        "said 1 (job #4)",
        "said 2 (job #4)",
        "begins",
    ]
    assert "daemon: begins" in said.out
    found = (await run("events", "--json", "--machine", "web1", "--count", "2")).fields["events"]
    assert [each["id"] for each in found] == [1, 2]


async def test_following_events(serving: Serving, control: Operator) -> None:
    command = [sys.executable, "-m", "pipeline.cli.main", "events", "--follow", "--json"]
    words = [*command, "--api", serving.addresses[0], "--after", "1"]
    for number in range(3):
        control.happen("state", "web1", f"said {number}")
    async with trio.open_nursery() as nursery:
        process = await nursery.start(_piped, words)
        text = b""
        with trio.fail_after(60):
            while text.count(b"\n") < 2:
                text += await process.stdout.receive_some()
            control.happen("state", "web1", "new")
            while text.count(b"\n") < 3:
                text += await process.stdout.receive_some()
        process.terminate()
    assert [json.loads(line)["message"] for line in text.splitlines()] == [
        "said 1",
        "said 2",
        "new",
    ]


async def _piped(words: list[str], task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(words, stdout=subprocess.PIPE, check=False, task_status=task_status)


async def test_over_tls(serving: Serving, control: Operator, run: Run) -> None:
    assert serving.ca is not None
    token = serving.place / "token"
    token.write_text(f"{TOKENS['anna'][1]}\n")
    secure = ("--api", serving.url, "--ca", serving.ca.path)
    said = await run("status", *secure, "--token-file", str(token))
    assert said.code == 0
    refused = await run("suspend", "web1", *secure, "--token-file", str(token), "--json")
    assert (refused.code, refused.error["exit_code"]) == (4, 4)
    assert "anna is viewer" in refused.error["message"]
    assert TOKENS["anna"][1] not in refused.err
    unknown = await run("status", *secure)
    assert unknown.code == 4
    certificate, key = serving.ca.issue("console")
    words = (*secure, "--cert", certificate, "--cert-key", key)
    assert (await run("suspend", "web1", *words)).code == 0
    assert (await control.audit())[0]["who"] == "console"
    stranger = await run("status", "--api", serving.url)  # nobody vouches for its certificate
    assert (stranger.code, "does not answer" in stranger.err) == (8, True)
    for wrong in ("http://localhost:1", "nonsense", "https://:x"):
        assert (await run("status", "--api", wrong)).code == 2
    assert (await run("status", *secure, "--token-file", "none")).code == 3
    assert (await run("status", *secure, "--cert", "none")).code == 3


async def test_nobody_there(run: Run, tmp_path: Path) -> None:
    said = await run("machines", "--api", f"unix:{tmp_path}/none.sock", "--json")
    assert (said.code, said.error["error"]) == (8, "DaemonGone")
    assert "backstay run" in said.error["hint"]


async def test_an_answer_that_was_lost(tmp_path: Path) -> None:
    """A request with a key is sent again; one without is not."""
    path = str(tmp_path / "s")
    asked: list[bytes] = []

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            text = await stream.receive_some(65536)
            asked.append(text.lower().partition(b"idempotency-key: ")[2].partition(b"\r")[0])
            if len(asked) == 3:
                await stream.send_all(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}')

    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await sock.bind(path)
        sock.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, answer, [trio.SocketListener(sock)])
            client = Client(Where(f"unix:{path}"))
            found = await trio.to_thread.run_sync(client.post, "/x", {}, "k1")
            assert (found, asked) == ({"a": 1}, [b"k1"] * 3)
            with pytest.raises(BackstayError, match="does not answer"):
                await trio.to_thread.run_sync(client.post, "/x", {})
            assert len(asked) == 4
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "text",
    [
        "daemon: {state: ./state}\nvaults: {}\n",
        "# daemon: {state: ./other}\ndaemon:\n  # where\n  state: ./state\nvaults:\n",
        "vaults: {}\ndaemon:\n\n  api: unix:./state/api.sock\n  state: './other'  # here\n",
        'daemon: {api: "unix:state/api.sock", state: "other"}  # so\n',
        "daemon:\n  state: './state'  # api: unix:x\n",
    ],
)
async def test_the_daemon_of_a_configuration(control: Operator, tmp_path: Path, text: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    assert socket_of(str(config)) is None
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    async with served(control, control.refused, place) as serving:
        (place / "api.sock").symlink_to(serving.unix)
        assert socket_of(str(config)) == str(place / "api.sock")
        said = await trio.to_thread.run_sync(Place(tmp_path).backstay, "status", "c.yaml", "--json")
        assert said.fields["daemon"]["version"] == "0.1.0"
    assert socket_of(str(config)) is None


@pytest.mark.parametrize(
    "text", ["", "daemon:\nvaults: {state: ./state}\n", "daemon: {}\nstate: ./state\n", "\x00"]
)
async def test_a_configuration_without_a_state(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert socket_of(str(tmp_path / "c.yaml")) is None
    assert socket_of(str(tmp_path / "none.yaml")) is None


def test_an_error_of_another_version_keeps_its_code() -> None:
    for code in (0, 99, "x", None, 10):
        found = as_error({"error": "Newer", "exit_code": code, "detail": "d", "hint": "h"})
        assert found.exit_code == (10 if code == 10 else 1)
        assert found.exit_code in EXIT_CODES
        assert (found.message, found.hint) == ("d", "h")


async def test_it_is_quick_because_it_imports_little(serving: Serving) -> None:
    program = (
        "import sys; from pipeline.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'trio', 'numpy', 'pydantic', 'ruamel', 'starlette', 'sqlalchemy', 'hypercorn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    words = [sys.executable, "-c", program, "status", "--api", serving.addresses[0]]
    done = await trio.run_process(words, capture_stdout=True, capture_stderr=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
