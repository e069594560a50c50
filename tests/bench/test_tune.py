"""Tuning a configuration: its text, the runs, the command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from types import MappingProxyType

import pytest
from click.testing import CliRunner

from bench.measure import CommandFailed
from bench.subjects import Backstay, BackstayCopy
from bench.tune import command
from bench.tune.edit import changed
from bench.tune.plan import Measure, Rules, search
from bench.tune.runner import Budget, Runner, WrongCopy, drive
from bench.tune.space import OPTIONS, Option, Setting, options, setting_of
from pipeline.config import load
from pipeline.config.model import Pipeline
from stages.errors import ConfigError, UsageError
from tests.bench.support import context

TEXT = """\
# Ours.
daemon: {state: ./state}   # beside this file

vaults:
  standby:
    url: "file:./vault"
    trust: ./backstay.pub
pipelines:
  default:
    compress:   # the tight one
      level: 3  # was 1 before
      workers: 2
machines:
  web1:
    vault: standby
    disks:
      root: {path: ./disk.img, capture: scan}
"""
MIB = 1 << 20


@pytest.mark.parametrize("indent", [2, 4])
def test_only_the_lines_of_what_is_changed_differ(tmp_path: Path, indent: int) -> None:
    path, unit = tmp_path / "c.yaml", " " * indent
    text = re.sub("^(  )+", lambda found: unit * (len(found[0]) // 2), TEXT, flags=re.MULTILINE)
    path.write_text(text)
    new = changed(text, str(path), "default", {"compress.level": 1, "cache.seal_bytes": 32 * MIB})
    lines = [line for line in new.splitlines() if line not in text.splitlines()]
    assert [line.split("#")[0].rstrip() for line in lines] == [
        f"{unit * 3}level: 1",
        f"{unit * 2}cache:",
        f"{unit * 3}seal_bytes: 32MiB",
    ]
    assert "# was 1 before" in new
    assert all(line in new for line in text.splitlines() if "level" not in line)
    path.write_text(new)
    assert load(str(path)).pipelines["default"].cache.seal_bytes == 32 * MIB


def test_a_configuration_without_pipelines_gets_one(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    text = re.sub(r"pipelines:.*?(?=machines:)", "", TEXT, flags=re.DOTALL)
    path.write_text(changed(text, str(path), "default", {"ship.in_flight": 8}))
    assert load(str(path)).pipelines["default"].ship.in_flight == 8


def test_a_value_that_others_share_by_an_alias_is_left_alone(tmp_path: Path) -> None:
    text = TEXT.replace("  default:\n", "  default: &one\n").replace(
        "machines:", "  other: *one\nmachines:"
    )
    with pytest.raises(UsageError, match="cannot be changed alone"):
        changed(text, str(tmp_path / "c.yaml"), "default", {"compress.level": 1})


def test_every_value_that_is_tried_is_valid() -> None:
    for option in OPTIONS:
        section, key = option.name.split(".")
        for value in option.values:
            found = Pipeline.model_validate({section: {key: option.shown(value)}})
            assert setting_of(found)[option.name] == value
    assert max(options(2)[0].values) == 4


def test_who_is_first_alternates_and_a_failing_candidate_is_out() -> None:
    ran: list[int] = []
    start: Setting = MappingProxyType({"compress.level": 3})

    def once(setting: Setting) -> Measure:
        level = int(setting["compress.level"])
        ran.append(level)
        if level == 4:
            raise CommandFailed("no")
        return Measure(float(level), MIB, 100)

    option = next(one for one in OPTIONS if one.name == "compress.level")
    verdict = drive(search(start, (option,), Rules(pairs=4)), once, Budget(None, 7, 4))
    assert ran[:2] == [4, 3]
    assert ran[2:10] == [2, 3, 3, 2, 2, 3, 3, 2]
    assert verdict.setting["compress.level"] == 1
    assert verdict.sure > 0.99


def test_time_is_kept_for_the_last_comparison() -> None:
    now = 0.0
    budget = Budget(100.0, final=5, row=3, clock=lambda: now)
    assert not budget.hurry()
    budget.pair_took(10.0)
    now = 19.0
    assert not budget.hurry()
    now = 21.0
    assert budget.hurry()


class Spoiling(BackstayCopy):
    """Brings back something else."""

    def restored(self, target: Path) -> Path:
        path = target / "spoilt"
        data = bytearray(super().restored(target).read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        return path


class Spoilt(Backstay):
    def copy(self, folder: Path, image: Path) -> BackstayCopy:
        return Spoiling(folder, image)


def test_a_real_run_under_a_setting_is_verified(tmp_path: Path) -> None:
    made = context(tmp_path)
    start = {**setting_of(Pipeline()), "compress.level": 2}
    runner = Runner(made, {"capture": {"dedup": MIB}})
    first = runner.once(start)
    assert min(first.seconds, first.peak, first.stored) > 0
    assert runner.runs == 1
    spoilt = Runner(made, {}, Spoilt())
    spoilt._blank = runner._blank
    with pytest.raises(WrongCopy, match="other bytes"):
        spoilt.once(start)
    with pytest.raises(CommandFailed):
        runner.once({**start, "compress.level": 99})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(TEXT)
    return path


def invoke(*arguments: str | Path) -> tuple[int, str, str]:
    found = CliRunner().invoke(command.tune, [str(one) for one in arguments])
    return found.exit_code, found.stdout, found.stderr


def test_a_wrong_configuration_is_the_usual_error(config: Path) -> None:
    config.write_text(TEXT.replace("level: 3", "level: 99"))
    code, _, said = invoke(config)
    assert code == ConfigError.exit_code
    assert "c.yaml:11:14" in said
    assert invoke(config.with_name("none.yaml"))[0] == ConfigError.exit_code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "c.yaml"), "there already"),
        (("--out", "below/c.yaml"), "another folder"),
        (("--pipeline", "fast"), "no pipeline is called"),
        (("--option", "compress.speed"), "no such option"),
    ],
)
def test_what_it_refuses_before_it_runs(
    config: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(config.parent)
    code, _, error = invoke("c.yaml", *arguments)
    assert code == 2
    assert said in error
    assert config.read_text() == TEXT


def answered(monkeypatch: pytest.MonkeyPatch, cost: Callable[[Setting], Measure]) -> None:
    monkeypatch.setattr(Runner, "once", lambda _self, setting: cost(setting))
    monkeypatch.setattr(Runner, "prepare", lambda _self: None)


def test_a_gain_is_written_beside_the_configuration_and_said(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(monkeypatch, lambda one: Measure(float(one["compress.level"]), MIB, 100))
    code, text, _ = invoke(config)
    tuned = config.with_name("c.tuned.yaml")
    assert code == 0
    assert "compress.level: 3 → 1" in text
    assert "3.00 times as fast" in text
    assert "99.2% sure" in text
    assert load(str(tuned)).pipelines["default"].compress.level == 1
    assert config.read_text() == TEXT
    code, text, _ = invoke(config, "--json", "--out", config, "--overwrite")
    found = json.loads(text)
    assert found["changed"] == {"compress.level": {"before": 3, "after": 1}}
    assert config.read_text() == tuned.read_text()


def test_without_a_gain_nothing_is_written(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, lambda _: Measure(1.0, MIB, 100))
    code, text, _ = invoke(config, "--quick")
    assert code == 0
    assert "nothing is changed" in text
    assert list(config.parent.iterdir()) == [config]


def test_a_wrong_copy_ends_it(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_: Setting) -> Measure:
        raise WrongCopy("it came back with other bytes")

    answered(monkeypatch, wrong)
    assert invoke(config)[0] == 1


def test_the_time_is_over_before_anything_is_sure(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, ran = 0.0, 0

    def cost(setting: Setting) -> Measure:
        nonlocal now, ran
        ran += 1
        now += 1.0 if ran <= 20 else 10.0  # somebody else begins to work here
        return Measure(float(setting["compress.level"]), MIB, 100)

    answered(monkeypatch, cost)
    monkeypatch.setattr(command, "Budget", partial(Budget, clock=lambda: now))
    code, text, _ = invoke(config, "--seconds", "3", "--option", "compress.level")
    assert (code, now) == (0, 2.0)
    assert "the time was over before one option had been compared" in text
    assert "give --seconds more, or a smaller --size" in text
    now, ran = 0.0, 0
    code, text, _ = invoke(config, "--seconds", "100", "--option", "compress.level")
    assert (code, now) == (0, 100.0)
    assert "the time was over before that was sure" in text
    assert "3.00 times as fast" in text
    assert "75.0% sure" in text  # two pairs
    assert list(config.parent.iterdir()) == [config]


def test_noise_is_called_noise(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = cycle([1.0, 1.1, 1.05, 0.97, 1.2, 0.9, 1.02])
    answered(monkeypatch, lambda _: Measure(next(costs), MIB, 100))
    code, text, _ = invoke(config, "--option", "compress.level")
    assert code == 0
    assert "nothing is changed: nothing is better than the noise" in text
    assert list(config.parent.iterdir()) == [config]


def test_a_bad_value_is_found_by_real_runs(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Level 19 with one worker: the gain is many times, whatever else this machine does."""
    bad = TEXT.replace("level: 3 ", "level: 19").replace("workers: 2", "workers: 1")
    config.write_text(bad)
    level = Option("compress.level", (1,))
    monkeypatch.setattr(command, "options", lambda: (level,))
    few = {"pairs": 1, "final": 1, "step_alpha": 0.5, "alpha": 0.5}
    monkeypatch.setattr(command, "QUICK_RULES", few)
    monkeypatch.setattr(command, "QUICK_CONTENT", 2 * MIB)
    words = ("--quick", "--input", "text", "--prefer", "speed", "--seconds", "600")
    code, text, said = invoke(config, *words, "--json")
    assert code == 0, said
    found = json.loads(text)
    assert found["changed"] == {"compress.level": {"before": 19, "after": 1}}
    assert found["gain"] > 1.5
    assert found["sure"] == 0.5  # all that one pair can say
    assert found["runs"] == 2 * found["pairs"] == 4
    tuned = config.with_name("c.tuned.yaml")
    assert found["written"] == str(tuned)
    lines = zip(bad.splitlines(), tuned.read_text().splitlines(), strict=True)
    differ = [(old.strip(), new.strip()) for old, new in lines if old != new]
    assert len(differ) == 1
    assert re.fullmatch(r"level: 19 +# was 1 before", differ[0][0])
    assert re.fullmatch(r"level: 1 +# was 1 before", differ[0][1])
    assert load(str(tuned)).pipelines["default"].compress.level == 1
    assert config.read_text() == bad
