"""What a loaded configuration offers: defaults, absolute paths, nothing that can be changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.config import Config, Disk, Machine, Pipeline, Vault, load
from stages.errors import ConfigError, NotFound
from stages.nbd.listening import parse_address
from tests.config.support import HEAD, TAIL, lines_of, read


def test_defaults() -> None:
    config = read(HEAD + TAIL)
    machine = config.machines["web1"]
    pipeline = config.pipeline_of(machine)
    assert pipeline.capture.workers == "auto"
    assert pipeline.capture.batch == 4 << 20
    assert pipeline.capture.dedup == 48 << 20
    assert pipeline.cache.seal_bytes == 16 << 20
    assert (pipeline.compress.level, pipeline.compress.frame) == (1, 256 << 10)
    assert pipeline.compress.workers == 2
    assert pipeline.encrypt.workers == 1
    assert (pipeline.ship.in_flight, pipeline.ship.inline) == (4, 256 << 10)
    assert machine.policy == machine.pipeline == "default"
    assert machine.disks["root"].snapshot is None


def test_default_is_there_beside_others_and_can_be_set() -> None:
    text = HEAD + "policies: {gold: {}}\npipelines: {fast: {compress: {level: 3}}}\n" + TAIL
    config = read(text)
    assert set(config.policies) == {"default", "gold"}
    assert config.pipelines["default"] == Pipeline()
    assert config.pipelines["fast"].compress.level == 3
    set_config = read(HEAD + "pipelines: {default: {compress: {level: 7}}}\n" + TAIL)
    assert set_config.pipeline_of(set_config.machines["web1"]).compress.level == 7


def test_machines_name_their_settings() -> None:
    text = (
        HEAD
        + "policies: {gold: {}}\npipelines: {fast: {capture: {workers: 0, dedup: 0}}}\n"
        + TAIL
        + "    policy: gold\n    pipeline: fast\n"
    )
    config = read(text)
    machine = config.machine("web1")
    assert config.policy_of(machine) is config.policies["gold"]
    assert config.pipeline_of(machine).capture.workers == 0
    assert config.pipeline_of(machine).capture.dedup == 0
    assert config.vault_of(machine) is config.vaults["standby"]


def test_an_unknown_machine() -> None:
    with pytest.raises(NotFound) as caught:
        read(HEAD + TAIL).machine("web")
    assert caught.value.hint == 'did you mean "web1"?'
    assert caught.value.exit_code == 13


def test_paths_start_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "c.yaml").write_text(HEAD + TAIL.replace("./disk", "../img//disk"))
    monkeypatch.chdir(tmp_path)
    for given in ("etc/c.yaml", "./etc/c.yaml", str(tmp_path / "etc" / "c.yaml")):
        config = load(given)
        assert config.source == f"{tmp_path}/etc/c.yaml"
        assert config.daemon.state == f"{tmp_path}/etc/state"
        assert config.vaults["standby"].url == f"file:{tmp_path}/etc/vault"
        assert config.vaults["standby"].path == f"{tmp_path}/etc/vault"
        assert config.vaults["standby"].trust == f"{tmp_path}/etc/backstay.pub"
        assert config.machines["web1"].disks["root"].path == f"{tmp_path}/etc/../img/disk.img"


@pytest.mark.parametrize("url", ["file:/srv/vault", "file:///srv/vault", "file:/srv//./vault/"])
def test_absolute_vaults(url: str) -> None:
    config = read(HEAD.replace("file:./vault", url) + TAIL)
    assert config.vaults["standby"].url == "file:/srv/vault"


def test_nothing_can_be_changed() -> None:
    config = read(HEAD + TAIL)
    with pytest.raises(ValidationError, match="frozen"):
        config.daemon = config.daemon
    with pytest.raises(ValidationError, match="frozen"):
        config.pipelines["default"].compress.level = 9
    for section in (config.vaults, config.policies, config.pipelines, config.machines):
        with pytest.raises(TypeError):
            section["other"] = None  # type: ignore[index]
    with pytest.raises(TypeError):
        del config.machines["web1"].disks["root"]  # type: ignore[attr-defined]


def test_a_configuration_can_be_dumped() -> None:
    config = read(HEAD + TAIL)
    dumped = config.model_dump(mode="json")
    assert dumped["machines"]["web1"]["disks"]["root"]["path"] == "/etc/x/disk.img"
    assert dumped == Config.model_validate_json(config.model_dump_json()).model_dump(mode="json")


def test_models_can_be_built_by_hand() -> None:
    disk = Disk(path="/srv/disk.img", capture="scan")
    machine = Machine(vault="standby", disks={"root": disk})
    assert machine.disks["root"] is disk
    assert Vault(url="file:/v", trust="/t").path == "/v"


def test_one_disk_under_two_names_is_found_through_links(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"")
    (tmp_path / "link").symlink_to("disk.img")
    path = tmp_path / "c.yaml"
    path.write_text(
        HEAD + TAIL + "  web2:\n    vault: standby\n    disks: {a: {path: link, capture: scan}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    assert caught.value.message == (
        "c.yaml:11:23: machines.web2.disks.a.path: "
        "this is also the disk machines.web1.disks.root (line 8, column 20)"
    )


def test_aliases_stand_for_whole_values() -> None:
    text = HEAD + "pipelines: {a: &a {compress: {level: 5}}, b: *a}\n" + TAIL
    assert read(text).pipelines["b"].compress.level == 5


@pytest.mark.parametrize(
    ("stage", "key", "good"),
    [
        ("capture", "workers", ["auto", "0", "16"]),
        ("capture", "batch", ["256KiB", "16MiB", "320KiB"]),
        ("capture", "dedup", ["0", "1MiB", "1GiB", "1000000001"]),
        ("cache", "seal_bytes", ["1MiB", "64MiB", "2MB"]),
        ("cache", "seal_after", ["auto", "100ms", "1h", "2500ms"]),
        ("cache", "journal_limit", ["auto", "64MiB", "3TiB"]),
        ("cache", "when_full", ["track", "throttle"]),
        ("compress", "level", ["1", "19"]),
        ("compress", "frame", ["256KiB", "262144"]),
        ("compress", "workers", ["1", "16"]),
        ("encrypt", "workers", ["1", "16"]),
        ("ship", "in_flight", ["1", "64"]),
        ("ship", "inline", ["0", "4KiB", "1MiB"]),
    ],
)
def test_bounds_are_inclusive(stage: str, key: str, good: list[str]) -> None:
    for value in good:
        pipeline = f"pipelines: {{default: {{{stage}: {{{key}: {value}}}}}}}\n"
        assert not lines_of(HEAD + pipeline + TAIL), value


@pytest.mark.parametrize(
    ("stage", "key", "bad"),
    [
        ("capture", "workers", ["-1", "17", "Auto", "1.0"]),
        ("capture", "batch", ["0", "192KiB", "262143", "16448KiB", "262145"]),
        ("capture", "dedup", ["1", "1023KiB", "1025MiB"]),
        ("cache", "seal_bytes", ["0", "1MB", "64.5MiB", "67108865"]),
        ("cache", "seal_after", ["0s", "99ms", "3601s", "2h", "1", "never"]),
        ("cache", "journal_limit", ["0", "63MiB", "67108863", "auto1"]),
        ("cache", "when_full", ["Track", "drop", "0"]),
        ("compress", "level", ["0", "20", "-1", "fast"]),
        ("compress", "frame", ["0", "512KiB"]),
        ("compress", "workers", ["0", "17", "auto"]),
        ("encrypt", "workers", ["0", "17"]),
        ("ship", "in_flight", ["0", "65"]),
        ("ship", "inline", ["1", "4095", "2MiB"]),
    ],
)
def test_beyond_the_bounds(stage: str, key: str, bad: list[str]) -> None:
    for value in bad:
        pipeline = f"pipelines: {{default: {{{stage}: {{{key}: {value}}}}}}}\n"
        told = lines_of(HEAD + pipeline + TAIL)
        assert len(told) == 1, value
        assert f": pipelines.default.{stage}.{key}: " in told[0]


LIVE = """machines:
  web1:
    vault: standby
    disks:
      root: {path: ./disk.img, capture: nbd, listen: "LISTEN"}
"""


@pytest.mark.parametrize(
    ("listen", "found"),
    [
        ("unix:./root.sock", "unix:/etc/x/root.sock"),
        ("unix:/run/root.sock", "unix:/run/root.sock"),
        ("127.0.0.1:10809", "127.0.0.1:10809"),
        ("127.8.0.1:1", "127.8.0.1:1"),
        ("localhost:65535", "127.0.0.1:65535"),
        ("[::1]:10809", "[::1]:10809"),
        ("::1:10809", "[::1]:10809"),
    ],
)
def test_addresses_as_the_server_takes_them(listen: str, found: str) -> None:
    disk = read(HEAD + LIVE.replace("LISTEN", listen)).machines["web1"].disks["root"]
    assert disk.listen == found
    assert str(parse_address(found))


def test_live_machines_and_their_tuning() -> None:
    text = HEAD + "pipelines: {default: {cache: {seal_after: 250ms, journal_limit: 1GiB}}}\n"
    config = read(text + LIVE.replace("LISTEN", "unix:./r.sock"))
    machine = config.machines["web1"]
    cache = config.pipeline_of(machine).cache
    assert machine.live
    assert (cache.seal_after, cache.journal_limit, cache.when_full) == (0.25, 1 << 30, "track")
    assert not read(HEAD + TAIL).machines["web1"].live


def test_the_order_of_keys_does_not_matter() -> None:
    text = LIVE.replace("{path", "{listen: 'unix:./r.sock', path").replace(', listen: "LISTEN"', "")
    assert read(HEAD + text).machines["web1"].live


def test_disks_of_one_machine_share_an_address() -> None:
    more = "      data: {path: ./data.img, capture: nbd, listen: 'unix:./r.sock'}\n"
    text = HEAD + LIVE.replace("LISTEN", "unix:./r.sock") + more
    assert not lines_of(text)
    apart = more.replace("      data", "  web2:\n    vault: standby\n    disks:\n      data")
    told = lines_of(HEAD + LIVE.replace("LISTEN", "unix:./r.sock") + apart)
    assert len(told) == 1
    assert told[0].startswith("c.yaml:12:54: machines.web2.disks.data.listen: machine web1 listens")
