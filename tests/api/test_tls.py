"""The API over TLS: who is known, by token or certificate, and what each may."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from pipeline.api.access import Access, load_access, token_digest
from pipeline.api.server import serve_api
from pipeline.api.settings import ApiSettings, Limits, Tcp
from pipeline.https.peer import Peer
from stages.errors import ConfigError, StateError
from tests.api.operator import Operator
from tests.api.serving import TOKENS, Authority, access_file, served

_OPERATE = "/v1/machines/web1/operations/"


async def test_roles(tmp_path: Path) -> None:
    control = Operator()
    async with served(control, control.refused, tmp_path, tls=True) as serving:
        expected = {
            #       read   audit  suspend  unprotect
            "anna": (200, 403, 403, 403),
            "bert": (200, 200, 200, 403),
            "cleo": (200, 200, 200, 202),
        }
        for name, statuses in expected.items():
            async with serving.client(name) as client:
                done = (
                    await client.get("/v1/machines"),
                    await client.get("/v1/audit"),
                    await client.post(_OPERATE + "suspend"),
                    await client.post(_OPERATE + "unprotect", json={"confirm": "web1"}),
                )
            assert tuple(each.status_code for each in done) == statuses, name
            control.states["web1"] = type(control.states["web1"]).REPLICATING
        assert done[3].json()["job"]["by"] == "cleo"
        entries = [
            (e["who"], e["role"], e["operation"], e["outcome"]) for e in await control.audit()
        ]
        assert (
            "anna",
            "viewer",
            "suspend",
            "refused: anna is viewer: this needs operator",
        ) in entries
        assert ("bert", "operator", "suspend", "done") in entries
        assert any(e["address"].startswith("127.0.0.1:") for e in await control.audit())


async def test_strangers(tmp_path: Path) -> None:
    control = Operator()
    async with served(control, control.refused, tmp_path, tls=True) as serving:
        assert serving.ca is not None
        context = ssl.create_default_context(cafile=serving.ca.path)
        async with httpx.AsyncClient(verify=context, base_url=serving.url) as client:
            for words in (
                "",
                "Bearer",
                "Bearer wrong-token-0123456789",
                "Basic YTpi",
                "Bearer \xff",
            ):
                headers = {"Authorization": words.encode("latin1")} if words else {}
                found = await client.get("/v1/machines", headers=headers)  # type: ignore[arg-type]
                assert found.status_code == 401
                assert found.headers["www-authenticate"] == "Bearer"
                assert found.json()["exit_code"] == 4
                posted = await client.post(_OPERATE + "suspend", headers=headers)  # type: ignore[arg-type]
                assert posted.status_code == 401
            assert (await client.get("/metrics")).status_code == 401
            assert (await client.get("/healthz")).status_code == 200
        refused = await control.audit()
        assert {(e["who"], e["operation"]) for e in refused} == {("unknown", "suspend")}
        assert "wrong-token" not in str(refused)


async def test_strangers_do_not_fill_the_audit(tmp_path: Path) -> None:
    control = Operator()
    limits = Limits(refusals_a_minute=3)
    async with (
        served(control, control.refused, tmp_path, tls=True, limits=limits) as serving,
        serving.client("nobody") as client,
    ):
        for _ in range(8):
            assert (await client.post(_OPERATE + "suspend")).status_code == 401
    assert len(await control.audit()) == 3


async def test_certificates(tmp_path: Path) -> None:
    control = Operator()
    async with served(control, control.refused, tmp_path, tls=True) as serving:
        async with serving.client(certificate="console") as client:
            done = await client.post(_OPERATE + "unprotect", json={"confirm": "web1"})
            assert done.json()["job"]["by"] == "console"
        async with serving.client(certificate="stranger") as client:
            assert (await client.get("/v1/machines")).status_code == 401
        # What is signed by somebody else ends with the handshake.
        assert serving.ca is not None
        other = Authority(tmp_path, "other")
        context = ssl.create_default_context(cafile=serving.ca.path)
        context.load_cert_chain(*other.issue("console"))
        async with httpx.AsyncClient(verify=context, base_url=serving.url) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/v1/machines")


async def test_what_is_revoked_is_revoked_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    control = Operator()
    async with (
        served(control, control.refused, tmp_path, tls=True) as serving,
        serving.client("cleo") as client,
    ):
        path = trio.Path(tmp_path / "access")
        text = await path.read_text()
        assert (await client.get("/v1/machines")).status_code == 200
        await path.write_text("cleo king token:geheim1\n")
        assert (await client.get("/v1/machines")).status_code == 200  # a wrong file changes nothing
        assert "stays in force" in caplog.text
        assert "geheim1" not in caplog.text
        await path.write_text("".join(li for li in text.splitlines(True) if "cleo" not in li))
        assert (await client.get("/v1/machines")).status_code == 401


async def test_no_plain_http(tmp_path: Path) -> None:
    control = Operator()
    async with served(control, control.refused, tmp_path, tls=True) as serving:
        async with httpx.AsyncClient(base_url=serving.url.replace("https", "http")) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/healthz")
        async with serving.client("anna") as client:  # and goes on
            assert (await client.get("/healthz")).status_code == 200


def test_tokens_are_compared_as_digests(tmp_path: Path) -> None:
    secret = "a-token-0123456789abcdef"
    line = f"dora operator blake3:{token_digest(secret).hex()}"
    access = load_access(access_file(tmp_path, line))
    assert secret not in repr(access)
    caller = access.caller(Peer("x"), f"bearer  {secret}")
    assert caller is not None
    assert (caller.name, caller.role) == ("dora", "operator")
    for name, (role, token) in TOKENS.items():
        known = access.caller(Peer("x"), f"Bearer {token}")
        assert known is not None
        assert (known.name, known.role) == (name, role)
        assert access.caller(Peer("x"), f"Bearer {token}x") is None
        assert token not in repr(access)
    assert Access().caller(Peer("x"), "") is None
    assert Access().caller(Peer("x", name="console"), "") is None


@pytest.mark.parametrize(
    "line",
    [
        "dora operator",
        "dora king token:0123456789abcdef0123",
        "dora operator token:geheim1",
        "dora operator blake3:geheim1",
        "dora operator password:geheim1-0123456789abcdef",
        "dora operator cert:",
    ],
)
def test_a_wrong_line_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError) as found:
        load_access(access_file(tmp_path, line))
    assert "access:5" in str(found.value)
    assert "geheim1" not in f"{found.value} {found.value.hint}"


def test_an_access_file_that_others_can_read(tmp_path: Path) -> None:
    path = access_file(tmp_path)
    Path(path).chmod(0o640)
    with pytest.raises(ConfigError, match="others can read"):
        load_access(path)
    with pytest.raises(ConfigError):
        load_access(str(tmp_path / "none"))


async def test_what_keeps_it_from_listening(tmp_path: Path) -> None:
    control: Any = Operator()
    (tmp_path / "file").write_text("x")
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    for path in (tmp_path / "file", tmp_path / "open/api.sock", tmp_path / "no/such/api.sock"):
        with pytest.raises(StateError) as found:
            await serve_api(control, ApiSettings(str(path)), control.refused)
        assert found.value.exit_code == 14
        assert found.value.hint
    async with served(control, control.refused, tmp_path) as serving:
        with pytest.raises(StateError, match="another process is listening"):
            await serve_api(control, ApiSettings(serving.unix), control.refused)
        async with serving.client() as client:
            assert (await client.get("/healthz")).status_code == 200
    assert not await trio.Path(serving.unix).exists()
    tcp = Tcp("127.0.0.1", 0, str(tmp_path / "file"), str(tmp_path / "file"), access_file(tmp_path))
    with pytest.raises(ConfigError, match="certificate or key"):
        await serve_api(control, ApiSettings(tcp=tcp), control.refused)


async def test_the_socket_of_one_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    control = Operator()
    (tmp_path / "run").mkdir(mode=0o700)
    with trio.socket.socket(trio.socket.AF_UNIX) as dead:
        await dead.bind(str(tmp_path / "run/api.sock"))
    async with served(control, control.refused, tmp_path) as serving, serving.client() as client:
        assert (await client.get("/healthz")).status_code == 200


async def test_a_path_longer_than_a_sockets_address(tmp_path: Path) -> None:
    control = Operator()
    deep = tmp_path / ("x" * 100)
    deep.mkdir(mode=0o700)
    socket = trio.Path(deep / "run/api.sock")
    async with served(control, control.refused, deep):
        assert await socket.is_socket()
    assert not await socket.exists()
