"""``keeper``, ``hold``, ``release``, ``holds``, ``vault admit-keeper``, as people type them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.cli.support import KEYS, Place, Shipped, put, same

KEEPER = ("--vault", "file:./vault", "--key", "keeper.key", "--trust", "op.pub")
ALL_GOES = ("--retention", "all=0s", "--grace", "0s")


def _protect(place: Place, times: int) -> list[int]:
    """Points of a disk that changes."""
    seqs = []
    for _ in range(times):
        put(place / "data.img", 200_000, secrets.token_bytes(1_200_000))
        (run,) = place.json("run", "c.yaml", "--once")["machines"]
        seqs.append(run["seq"])
        (place / f"data-{run['seq']}.img").write_bytes((place / "data.img").read_bytes())
    return seqs


def _vault(place: Place) -> str:
    return str(place.json("vault", "check", "file:./vault", "--key", "op.key")["vault"])


def _listed(place: Place) -> list[int]:
    return sorted(point["seq"] for point in place.json("points", "web1", *KEYS)["points"])


def test_a_day_of_a_keeper(shipped: Shipped, tmp_path: Path) -> None:
    """A key of its own, a plan, two phases, a held point, and everything that is left reads."""
    with shipped.copied(tmp_path / "w") as place:
        place.json("keygen", "--out", "keeper", "--no-passphrase")
        refused = place.backstay("keeper", "plan", *KEEPER, *ALL_GOES)
        assert (refused.code, "neither the operator's nor a keeper's" in refused.err) == (4, True)
        admit = ("vault", "admit-keeper", "file:./vault", "--key", "op.key")
        admitted = place.json(*admit, "--keeper", "keeper.pub")
        assert admitted["wrapped"] > 0
        assert place.json(*admit, "--keeper", "keeper.pub")["wrapped"] == 0
        seqs = _protect(place, 6)
        before = _listed(place)
        held = place.json("hold", "web1", f"#{seqs[1]}", *KEEPER, "--note", "before the upgrade")
        assert held["point"]["seq"] == seqs[1]
        assert place.json("hold", "web1", f"#{seqs[1]}", *KEYS)["held_before"]
        (shown,) = place.json("holds", "web1", *KEYS)["holds"]
        assert (shown["point"], shown["note"]) == (seqs[1], "before the upgrade")

        names = place.digest("vault")
        (planned,) = place.json("keeper", "plan", *KEEPER, *ALL_GOES)["groups"]
        assert place.digest("vault") == names
        assert planned["points_let_go"] > 0

        confirm = ("--confirm", _vault(place)[:8])
        run = ("keeper", "run", *KEEPER, *ALL_GOES)
        wrong = place.backstay(*run, "--confirm", "00000000")
        assert (wrong.code, "not confirmed" in wrong.err) == (2, True)
        assert place.backstay(*run).code == 2
        (first,) = place.json(*run, *confirm)["groups"]
        assert (first["floor_written"], first["deleted_objects"]) == (1, 0)
        (second,) = place.json(*run, *confirm)["groups"]
        assert second["deleted_objects"] > 0
        left = _listed(place)
        assert seqs[1] in left
        assert seqs[-1] in left
        assert len(left) < len(before)
        for seq in (seqs[1], seqs[-1]):
            at = ("--at", f"#{seq}")
            assert place.json("verify", "web1", *KEYS, *at)["whole"]
            place.json("restore", "web1", *KEYS, *at, "--to", f"r{seq}")
            assert same(place / f"r{seq}/web1-data.img", place / f"data-{seq}.img")
        gone = next(seq for seq in before if seq not in left)
        said = place.backstay("restore", "web1", *KEYS, "--at", f"#{gone}", "--to", "never")
        assert (said.code, "let go by retention" in said.err) == (13, True)
        assert "no damage" in said.err

        release = ("release", "web1", f"#{seqs[1]}", *KEYS)
        assert place.backstay(*release).code == 2
        assert place.json(*release, "--dry-run")["dry_run"]
        place.json(*release, "--confirm", "web1")
        assert place.backstay(*release, "--confirm", "web1").code == 13
        for _ in range(2):
            place.json(*run, *confirm)
        assert seqs[1] not in _listed(place)
        assert _protect(place, 1)[0] > seqs[-1]
        assert place.json("verify", "web1", *KEYS)["whole"]


def test_retention_of_the_configuration(shipped: Shipped, tmp_path: Path) -> None:
    with shipped.copied(tmp_path / "w") as place:
        text = (place / "c.yaml").read_text()
        policy = "policies: {default: {retention: {all: 2h, daily: 60d}}}\n"
        (place / "c.yaml").write_text(policy + text)
        (found,) = place.json("keeper", "plan", *KEYS, "--config", "c.yaml")["groups"]
        assert (found["points_let_go"], found["problems"]) == (0, [])
        (place / "c.yaml").write_text(text.replace("web1", "other"))
        (found,) = place.json("keeper", "plan", *KEYS, "--config", "c.yaml")["groups"]
        assert "left alone" in found["notes"][0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((), "nothing says what to keep"),
        (("--retention", "weekly=3d"), "says nothing about what to keep"),
        (("--retention", "hourly=3d"), "'all' is missing"),
        (("--retention", "all=3 weeks"), "is not a unit of time"),
        (("--retention", "all=3d", "--grace", "5"), "needs a unit"),
    ],
)
def test_what_is_not_understood(shipped: Shipped, given: tuple[str, ...], says: str) -> None:
    said = shipped.backstay("keeper", "plan", *KEYS, *given)
    assert (said.code, says in said.err) == (2, True), said


def _age(place: Place, hours: float) -> None:
    """Let nobody have written for a while, as far as the vault's clock knows."""
    for path in (place / "vault").rglob("*"):
        then = path.stat().st_mtime - hours * 3600
        os.utime(path, (then, then))


def test_a_machine_is_deleted(shipped: Shipped, tmp_path: Path) -> None:
    """Shown, typed, gone: what reads says so, its daemon is fenced, and begins anew if told to."""
    words = ("unprotect", "web1", "--delete-data", *KEYS)
    with shipped.copied(tmp_path / "w") as place:
        asked = place.backstay("unprotect", "web1", "--delete-data")
        assert (asked.code, "takes the operator's key" in asked.err) == (2, True)
        refused = place.backstay(*words, "--yes-delete", "web1")
        assert (refused.code, "a daemon still replicates it" in refused.err) == (11, True)
        _age(place, 1)
        second = ("--vault", "file:./vault", "--key", "second.key", "--trust", "op.pub")
        stranger = place.backstay(*words[:3], *second, "--yes-delete", "web1")
        assert (stranger.code, "only the vault's operator" in stranger.err) == (4, True)
        before = place.digest("vault")
        planned = place.json(*words, "--dry-run")
        assert (planned["obstacles"], planned["deleted_objects"]) == ([], 0)
        (group,) = planned["groups"]
        assert (group["points"], group["last"]) == (place.points[1], place.points[1])
        assert place.backstay(*words).code == 2
        wrong = place.backstay(*words, "--yes-delete", "web2")
        assert (wrong.code, "not confirmed" in wrong.err) == (2, True)
        assert place.digest("vault") == before

        done = place.json(*words, "--yes-delete", "web1")
        assert (done["deleted_objects"], done["deleted_bytes"]) == (
            group["objects"],
            group["bytes"],
        )
        left = sum(path.stat().st_size for path in (place / "vault").rglob("*") if path.is_file())
        assert left < group["bytes"] / 100
        for command in (("points",), ("restore", "--to", "never")):
            said = place.backstay(command[0], "web1", *KEYS, *command[1:])
            assert (said.code, "was deleted from the vault on purpose" in said.err) == (13, True)
        (run,) = place.backstay("run", "c.yaml", "--once", "--json").fields["machines"]
        assert "was deleted from the vault on purpose" in str(run)
        (folder,) = (place / "state").glob("machines/web1*")
        folder.rename(place / "away")
        (run,) = place.json("run", "c.yaml", "--once")["machines"]
        place.json("restore", "web1", *KEYS, "--to", "anew")
        assert same(place / "anew/web1-root.img", place / "root.img")
