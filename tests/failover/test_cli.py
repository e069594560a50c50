"""The commands on a bare host, and the replica under real NBD clients."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cli.exporter import PATIENCE, Exporter, started
from tests.cli.support import KEYS, Place, Shipped, same, tool

WEB = ("web1", *KEYS)


def failover(place: Place, command: str, *more: str) -> dict[str, Any]:
    return place.json("failover", command, *WEB, *more)


@contextmanager
def serving(place: Place, *arguments: str) -> Iterator[Exporter]:
    """``failover serve`` until the block ends."""
    with started(place, "failover", "serve", *WEB, *arguments) as found:
        yield found


def qemu_io(place: Place, uri: str, *commands: str) -> str:
    words = [word for command in commands for word in ("-c", command)]
    return place.call(tool("qemu-io"), "-f", "raw", *words, uri)


def test_a_failover_from_vault_and_key_alone(shipped: Shipped, bare: Place) -> None:
    looked = failover(bare, "unplanned", "--dry-run")
    assert (looked["dry_run"], looked["point"]["seq"]) == (True, shipped.points[1])
    assert failover(bare, "status")["records"] == []
    done = failover(bare, "unplanned", "--confirm", "web1", "--at", "#1", "--note", "fire")
    assert done["state"] == "failed over, commit pending"
    changed = failover(bare, "change-point", "--point", "latest-app")
    assert changed["point"]["seq"] == shipped.points[1]
    assert changed["branch"] != done["branch"]
    found = failover(bare, "status")
    assert found["whole"]
    assert [record["event"] for record in found["records"]] == ["opened", "changed"]
    assert "was failed over by" in bare.backstay("rescue", *KEYS).out
    # The source that comes back is told.
    said = shipped.backstay("run", "c.yaml", "--once")
    assert said.code == 10
    assert "failed over by" in said.err
    assert "backstay failover cancel" in said.err
    assert failover(bare, "commit", "--confirm", "web1")["state"] == "failover committed"
    said = shipped.backstay("run", "c.yaml", "--once")
    assert said.code == 10
    assert "do not start the guest here" in said.err


def test_after_a_cancel_the_source_goes_on(shipped: Shipped, bare: Place) -> None:
    failover(bare, "planned")
    done = failover(bare, "cancel", "--confirm", "web1")
    assert done["state"] == "failover cancelled"
    (run,) = shipped.json("run", "c.yaml", "--once")["machines"]
    assert run["consistent"]


def test_what_cannot_be_undone_wants_the_name(bare: Place) -> None:
    failover(bare, "unplanned", "--confirm", "web1")
    for command in ("commit", "cancel"):
        for more in ((), ("--confirm", "web2")):
            said = bare.backstay("failover", command, *WEB, *more)
            assert said.code == 2
            assert "reversible: NO" in said.err
            assert "--confirm web1" in said.err
    assert len(failover(bare, "status")["records"]) == 1
    said = bare.backstay("failover", "test", *WEB)
    assert said.code == 11
    assert "commit pending" in said.err
    assert "failover commit" in said.err
    said = bare.backstay("failover", "commit", *WEB, "--confirm", "web1")
    assert said.code == 0
    assert "UTC (" in said.err
    assert "failover committed" in said.out
    assert "committed point #2 by" in bare.backstay("failover", "status", *WEB).out


def test_the_replica_keeps_what_it_wrote(shipped: Shipped, bare: Place) -> None:
    failover(bare, "unplanned", "--confirm", "web1")
    with serving(bare) as replica:
        bare.call(tool("nbdcopy"), replica.uri("data"), "copy.img")
        assert same(bare / "copy.img", shipped / "second-data.img")
        qemu_io(bare, replica.uri(), "write -P 0x7e 1M 64k", "flush")
        replica.kill()
    with serving(bare) as replica:
        out = qemu_io(bare, replica.uri(), "read -P 0x7e 1M 64k")
        assert "Pattern verification failed" not in out
        said = bare.backstay("failover", "cancel", *WEB, "--confirm", "web1")
        assert said.code == 12, said  # it is being served
        replica.end()
    done = failover(bare, "cancel", "--confirm", "web1")
    assert len(done["dropped"]) == 5  # two disks, their maps, the note of the point
    said = bare.backstay("failover", "serve", *WEB, "--listen", f"unix:{bare / 'sock'}")
    assert said.code == 11
    assert "not failed over" in said.err or "cancelled" in said.err


def test_a_test_in_isolation(shipped: Shipped, bare: Place) -> None:
    failover(bare, "test", "--at", "#1")
    with serving(bare, "--test") as replica:
        qemu_io(bare, replica.uri(), "write -P 0x11 0 64k", "flush")
        (run,) = shipped.json("run", "c.yaml", "--once")["machines"]  # replication goes on
        assert run["consistent"]
        replica.end()
    done = failover(bare, "cleanup", "--note", "it boots")
    assert not done["test"]
    assert len(done["dropped"]) == 5  # two disks, their maps, the note of the point
    assert list((bare / "failover").iterdir()) == []


SCRIPT = """#!/bin/sh
cat > {log}/$BACKSTAY_ACTION.json
env | grep ^BACKSTAY_ > {log}/$BACKSTAY_ACTION.env
echo "hello from $BACKSTAY_ACTION"
{more}
"""


def script(place: Place, more: str = "") -> Path:
    path = place / "target"
    path.write_text(SCRIPT.format(log=place.root, more=more))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_command_gets_the_replica(bare: Place) -> None:
    failover(bare, "unplanned", "--confirm", "web1")
    more = "qemu-io -f raw -c 'write -P 5 0 4k' \"$BACKSTAY_DISK_0\" || exit 3"
    with serving(bare, "--command", str(script(bare, more))) as replica:
        assert "hello from start" in replica.heard("hello")
        replica.end()
    for action in ("start", "stop"):  # the disks were served at both
        fields = json.loads((bare / f"{action}.json").read_text())
        assert (fields["action"], fields["machine"], fields["point"]) == (action, "web1", 2)
        assert [disk["name"] for disk in fields["disks"]] == ["root", "data"]
        environment = (bare / f"{action}.env").read_text()
        assert f"BACKSTAY_DISK_0={fields['disks'][0]['uri']}\n" in environment
        assert "BACKSTAY_DISKS=root data\n" in environment


def test_a_command_that_fails_or_hangs(bare: Place) -> None:
    failover(bare, "unplanned", "--confirm", "web1")
    listen = ("--listen", f"unix:{bare / 'sock'}")
    for more, words in (("exit 7", "exit code 7"), ("sleep 600", "took longer than 1 s")):
        command = str(script(bare, more))
        process = bare.start(
            "failover", "serve", *WEB, *listen, "--command", command, "--timeout", "1"
        )
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 12, err
        assert words in err
        assert "failover serve" in err
        assert not (bare / "sock").exists()
    assert failover(bare, "status")["state"] == "failed over, commit pending"


def test_it_ends_on_a_signal_whenever(bare: Place) -> None:
    failover(bare, "unplanned", "--confirm", "web1")
    process = bare.start("failover", "serve", *WEB, "--listen", f"unix:{bare / 'sock'}")
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def test_two_commands_at_once(bare: Place) -> None:
    """Processes of their own on one vault: whoever comes second is told, or finishes the same."""
    words = ("failover", "unplanned", *WEB, "--confirm", "web1", "--json")
    both = [bare.start(*words, "--at", f"#{seq}") for seq in (1, 2)]
    ended = [(*process.communicate(timeout=PATIENCE), process.returncode) for process in both]
    found = failover(bare, "status")
    assert [record["event"] for record in found["records"]] == ["opened"]
    assert found["whole"]
    won = [json.loads(out) for out, _, code in ended if code == 0]
    assert all(each["point"]["seq"] == found["point"]["seq"] for each in won)
    assert [each["done_before"] for each in won].count(False) == 1
    for _, err, code in ended:
        assert code == 0 or (code == 11 and "IllegalOperation" in err), err
