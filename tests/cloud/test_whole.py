"""The whole way with its vault on real object servers: from the first write to the restored disk,
with ``kill -9`` of every part of the daemon in between."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bench.servers.cloud import Cloud
from tests.cli.exporter import started
from tests.cli.support import Place, put, same
from tests.daemon.running import died, prepare, qemu_io, replicating, running


@pytest.fixture
def place(cloud: Cloud) -> Iterator[tuple[Place, str]]:
    """A folder with a short path, as sockets need one; the address of its vault."""
    url = cloud.url()
    with TemporaryDirectory(prefix="bs-") as folder:
        made = prepare(Path(folder))
        made.json("init", url, "--key", "op.key", "--single-recipient", "--state", "./state")
        bare, _, query = url.partition("?")
        options = "".join(
            f", {name}: {value!r}"
            for name, _, value in (one.partition("=") for one in query.split("&"))
        )
        config = made / "c.yaml"
        text = config.read_text().replace('{url: "file:./vault"', f'{{url: "{bare}"{options}')
        config.write_text(text)
        yield made, url


@pytest.mark.long
def test_every_part_is_killed(place: tuple[Place, str]) -> None:
    here, url = place
    keys = ("--vault", url, "--key", "op.key")
    with running(here) as daemon:
        qemu_io(here, "write -P 1 64k 128k", "write -P 2 5000 300", "flush")
        replicating(here)
        pid = daemon.child("delivery_main")
        qemu_io(here, "write -P 3 2M 700k", "flush")
        os.kill(pid, signal.SIGKILL)
        daemon.heard("delivery: ended (-9)")
        replicating(here)
        qemu_io(here, "write -P 4 5M 300k", "flush")
        for each in (daemon.process.pid, daemon.intake, daemon.child("delivery_main")):
            os.kill(each, signal.SIGKILL)
            died(each)
    with running(here) as again:
        replicating(here)
        assert "not all was shipped" not in again.end()

    checked = here.json("vault", "check", "standby", "--config", "c.yaml", "--key", "op.key")
    assert checked["credential"] == {"create": True, "overwrite": True, "delete": True}
    assert "configs/cloud" in checked["warnings"][0]
    (machine,) = here.json("rescue", *keys)["machines"]
    words = shlex.split(machine["next"])
    here.json(*words[1:])  # as it was printed
    restored = (here / "restored-web1/web1-root.img").read_bytes()
    assert restored == (here / "root.img").read_bytes()
    assert here.json("verify", "web1", *keys)["whole"]
    _failed_over(here, *keys)


def _failed_over(here: Place, *keys: str) -> None:
    """With the source gone and nothing but the vault's address and the key."""
    truth = here / "root.was"
    (here / "root.img").rename(truth)
    shutil.rmtree(here / "state")
    web = ("web1", *keys)
    earlier, newest = (each["seq"] for each in reversed(here.json("points", *web)["points"][:2]))
    assert here.json("key", "drill", *keys)["drilled"] == {"web1": newest}
    with started(here, "export", *web) as exported:
        here.call("nbdcopy", exported.uri(), "exported.img")
        exported.end()
    assert same(here / "exported.img", truth)
    over = functools.partial(here.json, "failover")
    assert over("test", *web, "--at", f"#{earlier}")["point"]["seq"] == earlier
    assert not over("cleanup", *web, "--note", "it boots")["test"]
    confirmed = (*web, "--confirm", "web1")
    assert over("unplanned", *confirmed, "--at", f"#{earlier}")["point"]["seq"] == earlier
    assert over("change-point", *web, "--at", f"#{newest}")["point"]["seq"] == newest
    with started(here, "failover", "serve", *web) as replica:
        uri = replica.uri()
        here.call("qemu-io", "-f", "raw", "-c", "write -P 9 1M 64k", "-c", "flush", uri)
        replica.kill()
    with started(here, "failover", "serve", *web) as replica:
        here.call("nbdcopy", replica.uri(), "replica.img")
        replica.end()
    put(truth, 1 << 20, bytes([9]) * (64 << 10))
    assert same(here / "replica.img", truth)
    assert over("commit", *confirmed)["state"] == "failover committed"
    found = over("status", *web)
    assert found["whole"]
    events = [record["event"] for record in found["records"]]
    assert events == ["test-opened", "test-cleaned", "opened", "changed", "committed"]


def test_a_vault_is_made_once_and_in_an_empty_place(place: tuple[Place, str]) -> None:
    here, url = place
    again = ("--key", "op.key", "--single-recipient", "--state", "./state", "--json")
    said = here.backstay("init", url, *again)
    assert said.code == 5
    assert "is a vault already" in said.error["message"]
    bare, _, query = url.partition("?")
    above = f"{bare.rpartition('/')[0]}?{query}"
    said = here.backstay("init", above, *again)
    assert said.code == 5
    assert "neither empty nor a vault" in said.error["message"]
