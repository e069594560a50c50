"""Policies and the daemon's face: what is taken, defaults, times."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pipeline.config import Policy, load
from pipeline.config.when import moment_us, window_minutes, zone_of
from stages.errors import ConfigError
from tests.config.support import HEAD, TAIL, OneFile, lines_of, read

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC).timestamp()


def _policy(text: str, now: float = NOW) -> Policy:
    data = (HEAD + f"policies: {{default: {{{text}}}}}\n" + TAIL).encode()
    return load("/etc/x/c.yaml", files=OneFile(data), now=now).policies["default"]


def test_defaults() -> None:
    policy = _policy("")
    assert (policy.rpo.warning, policy.rpo.critical) == (60, 900)
    assert (policy.timezone, policy.resync_window) == ("local", "always")
    assert (policy.points, policy.app_consistent) == (None, None)
    assert policy.initial_replication == "now"
    assert policy.scrub_days == 7


@pytest.mark.parametrize(
    ("given", "kept", "minutes"),
    [
        ("18:30-06:00", "18:30-06:00", (1110, 360)),
        ("6:05-7:00", "06:05-07:00", (365, 420)),
        ("00:00-24:00", "always", (0, 1440)),
        ("always", "always", (0, 1440)),
        ("22:00-24:00", "22:00-24:00", (1320, 1440)),
        ("23:59-00:00", "23:59-00:00", (1439, 0)),
    ],
)
def test_windows(given: str, kept: str, minutes: tuple[int, int]) -> None:
    policy = _policy(f'resync_window: "{given}"')
    assert policy.resync_window == kept
    assert window_minutes(kept) == minutes


@pytest.mark.parametrize("given", ["24:00-06:00", "06:60-07:00", "06:00-24:01", "1-2", "a"])
def test_windows_that_no_day_has(given: str) -> None:
    with pytest.raises(ConfigError):
        _policy(f'resync_window: "{given}"')


def test_initial_replication_is_at_most_seven_days_ahead_in_the_policys_zone() -> None:
    # Noon in UTC is 21:00 in Tokyo; the order of the keys does not matter.
    late = 'initial_replication: "2026-12-03 21:00", timezone: Asia/Tokyo'
    assert _policy(late).initial_replication == "2026-12-03 21:00"
    with pytest.raises(ConfigError, match="more than 7 days ahead"):
        _policy(late.replace("21:00", "21:01"))
    assert _policy('initial_replication: "2020-01-01 00:00"').initial_replication[:4] == "2020"
    # The file stays valid when the time comes, and is refused long before.
    with pytest.raises(ConfigError):
        _policy(late, NOW - 3600)
    _policy(late, NOW + 30 * 86400)


@pytest.mark.parametrize(
    ("given", "zone", "utc"),
    [
        ("2026-12-01 22:00", ZoneInfo("Europe/Berlin"), datetime(2026, 12, 1, 21, tzinfo=UTC)),
        ("2026-03-29 02:30", ZoneInfo("Europe/Berlin"), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
        ("2026-10-25 02:30", ZoneInfo("Europe/Berlin"), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
    ],
)
def test_moments(given: str, zone: tzinfo, utc: datetime) -> None:
    assert moment_us(given, zone) == utc.timestamp() * 1_000_000
    assert moment_us("now", zone) is None


def test_the_local_zone_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert zone_of("local") == ZoneInfo("Asia/Tokyo")
    monkeypatch.setenv("TZ", "Nowhere/Here")
    assert zone_of("local") is UTC
    monkeypatch.delenv("TZ")
    assert zone_of("local") is not None


def test_the_api_in_short_and_by_default() -> None:
    assert read(HEAD + TAIL).daemon.api_socket == "/etc/x/state/api.sock"
    short = read(HEAD.replace("state}", 'state, api: "unix:./a.sock"}') + TAIL).daemon
    assert short.api is not None
    assert short.api_socket == "/etc/x/a.sock"
    assert short.api.socket == "/etc/x/a.sock"


@pytest.mark.parametrize(
    ("api", "fine"),
    [
        ('{listen: "127.0.0.1:8080", tokens: ./t}', True),
        ('{listen: "[::1]:8080", tokens: ./t}', True),
        ('{listen: "127.0.0.1:8080"}', False),
        ('{listen: "127.0.0.1:8080", tls: {cert: a, key: b}}', False),
        ('{listen: "10.0.0.1:8080", tls: {cert: a, key: b, client_ca: c}}', True),
        ('{listen: "10.0.0.1:8080", tls: {cert: a, key: b}, tokens: t}', True),
        ('{listen: "10.0.0.1:8080", tokens: t}', False),
        ('{listen: "example.com:8080", tokens: t}', False),
        ('{listen: "unix:./a.sock", tokens: t}', True),
    ],
)
def test_who_may_use_the_api_is_said(api: str, *, fine: bool) -> None:
    assert bool(lines_of(HEAD.replace("state}", f"state, api: {api}}}") + TAIL)) != fine


def test_a_policy_in_use_cannot_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    named = HEAD + "policies: {gold: {}}\n" + TAIL + "    policy: gold\n"
    path.write_text(named)
    assert load(str(path)).machines["web1"].policy == "gold"
    path.write_text(named.replace("gold: {}", "silver: {}"))
    with pytest.raises(ConfigError, match='there is no policy "gold"; known: default, silver'):
        load(str(path))
