"""A drilled key is noted where ``status`` looks; a key that does not open anything is not."""

from __future__ import annotations

from pathlib import Path

from tests.cli.support import KEYS, Shipped


def test_the_drill_is_noted_and_shown(shipped: Shipped, tmp_path: Path) -> None:
    with shipped.copied(tmp_path / "w") as place:
        assert "never" in place.json("status", "c.yaml")["key_drilled"]
        assert "never" in place.backstay("status", "c.yaml").out
        done = place.json("key", "drill", *KEYS, "--state", "state")
        assert done["drilled"] == {"web1": place.points[1]}
        assert place.json("status", "c.yaml")["key_drilled"] == "0 s ago"


def test_a_drill_that_fails_is_not_noted(shipped: Shipped, tmp_path: Path) -> None:
    with shipped.copied(tmp_path / "w") as place:
        for path in (place / "vault").glob("groups/*/data/*/*"):
            path.unlink()
        for path in (place / "vault").glob("groups/*/log/*"):
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data[: len(data) // 2])
        said = place.backstay("key", "drill", *KEYS, "--state", "state", "--json")
        assert said.code == 6
        assert "never" in place.json("status", "c.yaml")["key_drilled"]


def test_missing_data_is_found_wherever_it_is(shipped: Shipped, tmp_path: Path) -> None:
    with shipped.copied(tmp_path / "w") as place:
        for path in (place / "vault").glob("groups/*/data/00000001/*"):
            path.unlink()
        for _ in range(5):  # the place that is tried is drawn each time
            said = place.backstay("key", "drill", *KEYS, "--json")
            assert said.code == 6, said


def test_a_point_that_was_passed_over_is_told(shipped: Shipped, tmp_path: Path) -> None:
    """Whoever drills or holds another point than the newest hears of it, as restore tells it."""
    with shipped.copied(tmp_path / "w") as place:
        (late, *_) = (place / "vault").glob("groups/*/data/00000002/*")
        late.unlink()
        (note,) = place.json("restore", "web1", *KEYS, "--to", "r", "--dry-run")["notes"]
        assert f"point #{place.points[1]} passed over: groups/" in note
        done = place.json("key", "drill", *KEYS)
        assert done["drilled"] == {"web1": place.points[0]}
        assert done["notes"] == [f"web1: {note}"]
        assert f"note: web1: {note}\n" in place.backstay("key", "drill", *KEYS).out
        hold = ("hold", "web1", "2999-01-01T00:00:00Z", *KEYS)
        planned = place.json(*hold, "--dry-run")
        assert planned["notes"][0] == note
        held = place.json(*hold)
        assert (held["point"]["seq"], held["notes"]) == (place.points[0], planned["notes"])
        assert f"note: {note}\n" in place.backstay(*hold).err
