"""A daemon that ships to a second site in a network of its own; every part is killed; then the
source is gone, and the site takes over."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cli.exporter import started
from tests.cli.support import Place, same
from tests.daemon.running import Daemon, died, qemu_io, replicating, running
from tests.site.lan import Lan, lan
from tests.site.serving import Served, served
from tests.site.story import Guest, configured, give, guest, point, source

DISK = "nbd+unix:///root?socket=root.sock"


def _killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    died(pid)


def _the_site(site: Served, writes: Guest) -> None:
    """Guests notice nothing of it."""
    site.kill()
    writes.goes_on()
    site.start()


def _the_network(net: Lan, writes: Guest) -> None:
    net.cut()
    writes.goes_on(8)
    net.mend()


def _delivery(daemon: Daemon, writes: Guest) -> None:
    _killed(daemon.child("delivery_main"))
    writes.goes_on()


def _intake(daemon: Daemon, writes: Guest) -> None:
    _killed(daemon.intake)
    writes.goes_on()  # once it is there again


def _shipped(here: Place, site: Served, net: Lan) -> int:
    """A guest's life with all that; the number of the last point, whose disk is ``root.was``."""
    with running(here) as daemon:
        replicating(here)
        with guest(here, DISK) as writes:
            writes.goes_on()
            harms: list[Callable[[], None]] = [
                partial(_the_site, site, writes),
                partial(_the_network, net, writes),
                partial(_delivery, daemon, writes),
                partial(_intake, daemon, writes),
            ]
            for what in harms:
                before = point(here)
                what()
                assert point(here) > before
            _killed(daemon.process.pid)  # the supervisor: intake outlives it
            writes.goes_on()
            with running(here, ready=None) as again:
                writes.goes_on()
                point(here)
                writes.end()
                last = point(here)
                shutil.copy(here / "root.img", here / "root.was")
                qemu_io(here, "write -P 255 0 64k", "flush")  # shipped perhaps
                for pid in (again.process.pid, daemon.intake, again.child("delivery_main")):
                    _killed(pid)
    return last


@pytest.mark.long
def test_every_part_is_killed_and_the_site_takes_over() -> None:
    with (
        TemporaryDirectory(prefix="bs-") as one,  # short: sockets have short paths
        TemporaryDirectory(prefix="bs-") as other,
        lan() as net,
        served(Path(other), host=net.host, prefix=net.prefix) as site,
    ):
        here, there = Place(Path(one)), Path(other)
        source(here.root, site, "replica")
        for name in ("replica.key", "op.pub"):
            shutil.copy(here / name, there)
        configured(site, "replica.key")
        last = _shipped(here, site, net)
        # The house burns down: what is left is a key, and what the site has.
        kept = there / "root.was"
        shutil.move(here / "root.was", kept)
        shutil.move(here / "op.key", there / "op.key")
        shutil.rmtree(here.root)
        here.root.mkdir()

        # From a third place, with the certificate that the site gave to its operator.
        third = here.root
        shutil.copy(there / "op.key", third / "op.key")
        over_there = ("web1", "--vault", site.url("admin"), "--key", "op.key")
        Place(third).json("failover", "test", *over_there, "--at", f"#{last}")
        Place(third).json("failover", "cleanup", *over_there, "--note", "it is there")
        site.kill()
        net.cut()

        # At the site, cut off and with its server down, the vault is a folder.
        where = ("--vault", f"file:{site.vault}", "--key", "op.key")
        (found,) = give(there, "rescue", *where, prefix=net.prefix)["machines"]
        assert found["point"]["seq"] >= last
        confirmed = ("--at", f"#{last}", "--confirm", "web1")
        done = give(there, "failover", "unplanned", "web1", *where, *confirmed, prefix=net.prefix)
        assert (done["state"], done["point"]["seq"]) == ("failed over, commit pending", last)
        serve = ("failover", "serve", "web1", *where)
        with started(Place(there), *serve, prefix=net.prefix) as replica:
            Place(there).call("nbdcopy", replica.uri(), str(there / "copy.img"))
            assert same(there / "copy.img", kept)
            replica.end()
        give(there, "failover", "commit", "web1", *where, "--confirm", "web1", prefix=net.prefix)
        promote = ("site", "replica", "promote", "site.yaml", "web1", "--to", "guests")
        given = give(there, *promote, prefix=net.prefix)
        assert (given["point"], given["disks"]) == (last, [f"{there}/guests/web1-root.img"])
        assert same(there / "guests/web1-root.img", kept)
        Place(there).json("restore", "web1", *where, "--to", "back")
        assert same(there / "back/web1-root.img", kept)
