from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bench.inputs import clone
from bench.live import NBDKIT
from bench.measure import Command
from bench.peers import QemuImg
from bench.running import code_of
from bench.scenarios import exported
from bench.subjects import BACKSTAY, Backstay, BackstayCopy
from tests.bench.support import context


class Other(BackstayCopy):
    """Copies something else than it is asked to: one bit."""

    def backup(self) -> Command:
        spoilt = clone(self.image, self.folder / "spoilt")
        with spoilt.open("r+b") as file:
            file.seek(70_000)
            (value,) = file.read(1)
            file.seek(70_000)
            file.write(bytes([value ^ 1]))
        self.config.write_text(self.config.read_text().replace(str(self.image), str(spoilt)))
        return super().backup()


class Spoiling(Backstay):
    def copy(self, folder: Path, image: Path) -> BackstayCopy:
        return Other(folder, image)


def test_reads_are_measured_only_of_who_serves_what_it_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "LOADS", exported.LOADS[:1])
    made = context(tmp_path)
    made.scale = replace(made.scale, burst=1)
    good = exported.run(made, Backstay())
    assert good.wrong == good.failed == ()
    for name in (BACKSTAY, NBDKIT, exported.QCOW2):
        entry = good.entry(f"{exported.LOADS[0].name}: {name}")
        assert entry is not None
        assert entry.median("rate")
    monkeypatch.setattr(exported, "QemuImg", _Absent)
    (tmp_path / "other").mkdir()
    other = context(tmp_path / "other")
    other.scale = made.scale
    bad = exported.run(other, Spoiling())
    assert bad.wrong == (f"exported: what {BACKSTAY} served",)
    assert bad.entry(f"{exported.LOADS[0].name}: {BACKSTAY}") is None
    assert any("no-such-tool is left out" in note for note in bad.notes)
    assert code_of([bad]) == 1
    assert shutil.which("nbdcopy")


class _Absent(QemuImg):
    needs = ("no-such-tool",)
