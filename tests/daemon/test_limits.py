"""A vault's limit in a running daemon: kept, shown, changed by reading the configuration again."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from tests.cli.support import Place
from tests.daemon.running import (
    qemu_io,
    replicating,
    restored_is_the_source,
    running,
)
from tests.waiting import until


def _until(place: Place, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What status says of the vault, once it is so."""

    def said() -> dict[str, Any]:
        (found,) = place.json("status", "c.yaml")["daemon"]["stores"]
        return dict(found)

    def look() -> dict[str, Any] | None:
        found = said()
        return found if good(found) else None

    return until(said, look, pause=0.2)


def _limit(place: Place, text: str) -> None:
    path = place / "c.yaml"
    plain = path.read_text().replace("trust: ./op.pub}", "trust: ./op.pub, limit: LIMIT}")
    if "limit: {" in plain:
        head, _, rest = plain.partition("limit: {")
        plain = f"{head}limit: LIMIT}}{rest.partition('}}')[2]}"
    path.write_text(plain.replace("LIMIT", text))


def test_a_limit_is_kept_shown_and_changed(place: Place) -> None:
    _limit(place, "{upload: 4MiB/s, download: 4MB/s}")
    with running(place) as daemon:
        replicating(place)
        qemu_io(place, *(f"write -s /dev/urandom {at}M 1M" for at in range(3)), "flush")
        before = _until(place, lambda found: bool(found["upload_limit"]))
        assert (before["upload_limit"], before["download_limit"]) == (4 << 20, 4_000_000)
        assert before["month"]["observed_seconds"] == 0
        assert before["month"]["idle_puts"] == 4320
        put = before["operations"][0]
        assert put["name"] == "put"
        assert put["calls"] > 0
        lists = next(one for one in before["operations"] if one["name"] == "list")
        assert lists["calls"] == 0
        sent = _until(place, lambda found: found["operations"][0]["bytes"] > 3 << 20)
        _limit(place, "{upload: 64MiB/s}")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.heard("reload: done")
        after = _until(place, lambda found: found["upload_limit"] == 64 << 20)
        assert after["download_limit"] is None
        assert after["operations"][0]["calls"] >= sent["operations"][0]["calls"]
        told = place.backstay("status", "c.yaml")
        assert "64.0 MiB/s" in told.out, told.out
        assert "at most" in told.out
        daemon.end()
    restored_is_the_source(place)
