"""Shipping to stores elsewhere, on tiny images: figures are of right copies, wrong ones told."""

from __future__ import annotations

from pathlib import Path

from bench.puts import keys
from bench.running import code_of
from bench.scenarios import shipping, site
from bench.servers.cloud import Cloud
from bench.subjects import BACKSTAY, Backstay, Copy, Subject
from tests.bench.support import Copier, context


class Spoiling(Backstay):
    """What comes back of its vaults elsewhere is changed."""

    def open(self, folder: Path, image: Path) -> Copy:
        return Copier(BACKSTAY).open(folder, image)

    def at(self, url: str) -> Subject:
        return Copier(BACKSTAY, spoil=True)


def test_the_pipeline_is_held_against_puts_alone_and_a_file_vault(
    tmp_path: Path, s3: Cloud
) -> None:
    made = context(tmp_path, Backstay())
    outcome = shipping.measure(made, {"SeaweedFS": s3.url}, ["Azurite is left out: no node"])
    assert outcome.wrong == outcome.failed == ()
    names = [shipping.FILE, "puts alone: SeaweedFS", "backstay: SeaweedFS"]
    times = {name: outcome.entry(name).median("inner") for name in names}  # type: ignore[union-attr]
    (goal,) = outcome.goals
    slower = max(times[shipping.FILE] or 0, times["puts alone: SeaweedFS"] or 0)
    assert goal.measured == slower / (times["backstay: SeaweedFS"] or 0)
    assert "Azurite is left out: no node" in outcome.notes
    assert code_of([outcome]) == 0


def test_a_wrong_copy_is_caught_and_its_time_not_counted(tmp_path: Path, s3: Cloud) -> None:
    outcome = shipping.measure(context(tmp_path, Spoiling()), {"Azurite": s3.url}, [])
    assert outcome.wrong == ("shipping: the copy of backstay: Azurite",)
    assert outcome.entry("backstay: Azurite") is None
    assert outcome.goals[0].verdict == "not measured"
    assert code_of([outcome]) == 1


def test_a_vault_without_objects_is_no_measure(tmp_path: Path, s3: Cloud) -> None:
    made = context(tmp_path, Copier(BACKSTAY))
    outcome = shipping.measure(made, {"SeaweedFS": s3.url}, [])
    assert "the vault holds no objects" in outcome.failed[0]
    assert outcome.goals[0].verdict == "not measured"


def test_a_site_is_held_against_curl(tmp_path: Path) -> None:
    outcome = site.run(context(tmp_path, Backstay()))
    assert outcome.wrong == outcome.failed == ()
    mine, plain = outcome.entry(site.PIPELINE), outcome.entry(site.CURL)
    assert mine is not None
    assert plain is not None
    assert outcome.goals[0].measured == plain.samples[0].seconds / (mine.samples[0].inner or 0)
    near = outcome.entry(site.FILE)
    assert near is not None
    slower = max(plain.samples[0].seconds, near.samples[0].inner or 0)
    assert outcome.goals[1].measured == slower / (mine.samples[0].inner or 0)


def test_what_curl_put_is_compared(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "groups").mkdir(parents=True)
        (tmp_path / name / "groups" / "object").write_bytes(b"sealed")
    one, other = tmp_path / "one", tmp_path / "other"
    assert site.same(one, other, keys(one))
    (other / "groups" / "object").write_bytes(b"Sealed")
    assert not site.same(one, other, keys(one))
