"""A live replica at a real site: it follows through kill -9, and becomes the machine's disks."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from pipeline.site.config import load_site
from pipeline.site.standing import standing
from stages.replica.record import path_of
from stages.system import SystemFiles
from tests.cli.support import Place, put
from tests.site.serving import Served, served
from tests.site.story import configured, source
from tests.waiting import until

THERE = """daemon: {{state: ./there-state}}
vaults:
  standby: {{url: "file:{vault}", trust: ./op.pub}}
machines:
  web1:
    vault: standby
    disks:
      root: {{path: ./guests/web1-root.img, capture: scan}}
"""


class _Told:
    """What the site's replica says of itself, and the images that it has to be."""

    def __init__(self, site: Served):
        self.site = site
        self.images: dict[int, bytes] = {}

    def now(self) -> tuple[str, int, str]:
        """Status, point, trouble; whatever promises to be whole is compared byte for byte."""
        (found,) = standing(SystemFiles(), load_site(str(self.site.place / "site.yaml")))
        if found.record is None or found.record.at is None:
            return "none", 0, found.trouble
        return found.record.status.value, found.record.at.seq, found.trouble

    def until(self, seq: int) -> None:
        """Wait until it is at a point, and compare."""
        until(self.all_said, lambda: self.now()[:2] == ("whole", seq), pause=0.02)
        self.is_right()

    def is_right(self) -> None:
        """With nobody at work: if it is said to be whole, it is."""
        status, seq, _ = self.now()
        if status == "whole":
            found = Path(path_of(str(self.site.place / "replica"), 0))
            assert found.read_bytes() == self.images[seq]

    def troubled(self, word: str) -> None:
        until(self.all_said, lambda: word in self.now()[2], pause=0.02)

    def all_said(self) -> tuple[object, str]:
        return self.now(), self.site.log


def _written(here: Place, told: _Told, dice: random.Random) -> int:
    """The machine changes and is protected."""
    for _ in range(8):
        at = dice.randrange(0, 11 << 20)
        put(here / "root.img", at, dice.randbytes(dice.randrange(1, 1 << 20)))
    (run,) = here.json("run", "c.yaml", "--once")["machines"]
    told.images[run["seq"]] = (here / "root.img").read_bytes()
    return int(run["seq"])


def _listed(there: Place) -> dict[str, Any]:
    (found,) = there.json("site", "replica", "list", "site.yaml")["replicas"]
    return dict(found)


def test_it_follows_and_becomes_the_machine(tmp_path: Path, site_process: Served) -> None:
    here, there, dice = Place(tmp_path / "here"), Place(tmp_path / "there"), random.Random(7)
    for place in (here, there):
        place.root.mkdir()
    shutil.copytree(site_process.place / "certs", there / "certs")
    with served(there.root) as site:
        told = _Told(site)
        source(here.root, site, "replica")
        text = (here / "c.yaml").read_text()
        live = 'capture: nbd, listen: "unix:./root.sock"'
        assert live in text
        (here / "c.yaml").write_text(text.replace(live, "capture: scan"))
        for name in ("replica.key", "op.key", "op.pub"):
            shutil.copy(here / name, there.root)
        configured(site, "op.key")
        told.troubled("this is the operator's key")
        (there / "op.key").rename(there / "away.key")
        seq = _written(here, told, dice)
        configured(site, "replica.key")
        told.until(seq)
        assert told.now()[2] == ""
        for _ in range(3):
            before, seq = seq, _written(here, told, dice)
            while told.now()[:2] == ("whole", before):
                pass  # until it has begun: it looks ten times a second
            site.kill()
            told.is_right()
            site.start()
            told.until(seq)
        assert _listed(there)["recovery_point"]
        listed = there.backstay("site", "replica", "list", "site.yaml").out
        assert f"web1: whole, at point #{seq}, " in listed
        give = ("site", "replica", "promote", "site.yaml", "web1", "--to", "guests")
        refused = there.backstay(*give)
        assert refused.code == 11
        assert "backstay failover unplanned web1" in refused.err
        _taken_over(here, there, told, give)


def _taken_over(here: Place, there: Place, told: _Told, give: tuple[str, ...]) -> None:
    """The source is gone. Of the last points the one before the newest is wanted."""
    wanted = sorted(told.images)[-2]
    image = told.images[wanted]
    shutil.rmtree(here.root)
    where = ("--vault", f"file:{told.site.vault}", "--key", "away.key")
    web = ("web1", *where, "--confirm", "web1")
    there.json("failover", "unplanned", *web, "--at", f"#{wanted}")
    told.until(wanted)  # by itself: what is wanted then is there already
    before = Path(path_of(str(there / "replica"), 0)).stat().st_ino
    done = there.json(*give)
    assert (done["point"], done["written"]) == (wanted, 0)
    (disk,) = map(Path, done["disks"])
    assert disk == there / "guests/web1-root.img"
    assert disk.stat().st_ino == before  # nothing was copied
    assert disk.read_bytes() == image
    assert there.json(*give) == done  # given again
    assert (_listed(there)["status"], _listed(there)["to"]) == ("given", str(there / "guests"))
    there.json("failover", "commit", *web)
    # The guest runs here now, and is protected from here.
    put(disk, 5000, b"written at the site")
    (there / "there.yaml").write_text(THERE.format(vault=told.site.vault))
    protect = ("failover", "reprotect", *web, "--state", "there-state")
    refused = there.backstay(*protect)
    writer = refused.err.split("--writer ")[1].split()[0].strip("'")
    there.json("vault", "admit", *where[1:], "--writer", writer, "--name", "there")
    there.json(*protect)
    (run,) = there.json("run", "there.yaml", "--once")["machines"]
    assert run["consistent"]
    there.json("restore", "web1", *where, "--to", "back")
    assert (there / "back/web1-root.img").read_bytes() == disk.read_bytes()
    # Dropped, a new one follows the branch.
    there.json("site", "replica", "drop", "site.yaml", "web1", "--confirm", "web1")
    told.images[int(run["seq"])] = disk.read_bytes()
    told.until(int(run["seq"]))
