"""Every file in ``configs/`` loads; every bad sample is told exactly as its header says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.config import Alert, Config, Daemon, Pipeline, Policy, Section, load
from stages.errors import ConfigError
from tests.config.support import BAD, GOOD, ROOT

EXPECT = "# expect: "
LINE = re.compile(r"(?P<file>[a-z0-9-]+\.yaml):(?P<line>\d+):(?P<column>\d+): .+")


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_good_samples_load(path: Path) -> None:
    config = load(str(path))
    assert config.machines
    for machine in config.machines.values():
        assert config.policy_of(machine) == config.policies[machine.policy]
        assert config.pipeline_of(machine) == Pipeline()
        assert config.vault_of(machine) in config.vaults.values()


def test_the_named_samples_are_there() -> None:
    names = {path.name for path in GOOD}
    assert {
        "quickstart.yaml",
        "two-disks.yaml",
        "tuned.yaml",
        "block-device.yaml",
        "live.yaml",
        "service.yaml",
        "s3.yaml",
        "azure.yaml",
        "gcs.yaml",
        "second-site.yaml",
    } <= names
    assert len(BAD) >= 30


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_samples_say_what_their_header_expects(path: Path) -> None:
    source = path.read_bytes().decode(errors="replace").splitlines()
    expected = [line.removeprefix(EXPECT) for line in source if line.startswith(EXPECT)]
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    assert caught.value.message.split("\n") == expected
    assert caught.value.subject == str(path)
    assert caught.value.operation == "config"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_positions_lie_in_the_file_and_in_order(path: Path) -> None:
    source = path.read_bytes().decode(errors="replace").split("\n")
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    places = []
    for line in caught.value.message.split("\n"):
        if re.fullmatch(rf"{path.name}: and \d+ more", line):
            continue
        found = LINE.fullmatch(line)
        assert found is not None, line
        assert found["file"] == path.name
        places.append((int(found["line"]), int(found["column"])))
    assert places == sorted(places)
    for row, column in places:
        assert 1 <= column <= len(source[row - 1]) + 1


def test_the_tuned_sample_shows_every_tuning_key_with_its_default() -> None:
    path = next(path for path in GOOD if path.name == "tuned.yaml")
    config = load(str(path))
    assert config.pipelines["default"].model_fields_set == set(Pipeline.model_fields)
    for name in Pipeline.model_fields:
        stage = getattr(config.pipelines["default"], name)
        assert stage == getattr(Pipeline(), name)
        assert stage.model_fields_set == set(type(stage).model_fields)


def test_the_block_device_sample_has_hooks() -> None:
    path = next(path for path in GOOD if path.name == "block-device.yaml")
    disk = load(str(path)).machines["archive"].disks["all"]
    assert disk.path == "/dev/sdb"
    assert disk.snapshot is not None
    assert disk.snapshot.pre == "/etc/backstay/freeze"
    assert disk.snapshot.post == "/etc/backstay/thaw"
    assert disk.snapshot.timeout == 60


def test_the_live_sample_has_live_machines_and_one_that_is_scanned() -> None:
    config = load(str(next(path for path in GOOD if path.name == "live.yaml")))
    assert {name: machine.live for name, machine in config.machines.items()} == {
        "web1": True,
        "archive": False,
    }
    disks = config.machines["web1"].disks
    assert disks["root"].listen == f"unix:{ROOT}/configs/web1-root.sock"
    assert disks["data"].listen == "127.0.0.1:10809"
    assert disks["data"].snapshot is not None


def test_the_service_sample_shows_every_key_of_policies_and_daemon() -> None:
    config = load(str(next(path for path in GOOD if path.name == "service.yaml")))
    gold, daemon = config.policies["gold"], config.daemon
    assert gold.model_fields_set == set(Policy.model_fields)
    assert daemon.model_fields_set == set(Daemon.model_fields)
    for section in (gold.rpo, gold.points, gold.app_consistent, daemon.log, daemon.api):
        assert section is not None
        assert section.model_fields_set == set(type(section).model_fields)
    alone = {"timezone", "resync_window", "points", "app_consistent"}
    for name in set(Policy.model_fields) - alone:
        assert getattr(gold, name) == getattr(Policy(), name), name
    shown = {key for alert in daemon.alerts for key in alert.model_fields_set}
    assert shown == set(Alert.model_fields)


def _sections(kind: type[Section]) -> list[type[Section]]:
    return [kind, *(one for child in kind.__subclasses__() for one in _sections(child))]


def test_keys_told_elsewhere_are_no_fields_and_have_a_bad_sample() -> None:
    told = "\n".join(path.read_bytes().decode(errors="replace") for path in BAD)
    for section in _sections(Section):
        assert not set(section.not_here) & set(section.model_fields)
        for key, message in section.not_here.items():
            assert re.search(rf"^{EXPECT}.*\.{key}: {message}$", told, re.MULTILINE), key


def test_sections_are_the_documented_ones() -> None:
    assert list(Config.model_fields) == ["daemon", "vaults", "policies", "pipelines", "machines"]
