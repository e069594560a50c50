"""Results made up for tests: nothing here was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.machine import Machine
from bench.record import Result
from bench.results import Entry, Goal, Outcome, Sample

MACHINE = Machine(
    system="Some <System> 1",
    kernel="6.1",
    cpu="A & B Processor",
    cores=2,
    memory=8 << 30,
    file_system="ext4",
    python="3.11.0",
    libraries={"numpy": "2.0"},
    programs={"restic": "restic 0.14"},
    missing=("borg", "nbdkit"),
)
STAGES: Mapping[str, Mapping[str, float]] = {
    "capture": {"busy": 0.2, "wait_in": 0.1, "wait_out": 0.7},
    "compress": {"busy": 0.97, "wait_in": 0.02, "wait_out": 0.01},
}


def entry(subject: str, seconds: Sequence[float], **more: float) -> Entry:
    """One sample for each of ``seconds``; figures are the same in all of them."""
    return Entry(subject, tuple(Sample(one, cpu=one / 2, figures=dict(more)) for one in seconds))


def copying(ours: Sequence[float] = (2.0, 2.2, 2.1), scenario: str = "initial") -> Outcome:
    """A scenario with a peer, a ceiling and stages."""
    samples = tuple(
        Sample(one, inner=one - 0.5, cpu=one, peak=200 << 20, stored=50 << 20, stages=STAGES)
        for one in ours
    )
    return Outcome(
        scenario=scenario,
        title="a copy, <made up>",
        entries=(
            Entry("backstay", samples),
            entry("restic", [6.0 for _ in ours]),
            entry("ceiling: zstd", [1.0 for _ in ours]),
        ),
        goals=(Goal("speed", 3.0, 2.5, True), Goal("memory", 400.0, 300.0, False, "MiB")),
        notes=("a note & more",),
        reference="backstay",
        peer="restic",
        ceiling="ceiling: zstd",
    )


def live(rates: Sequence[float] = (50.0, 55.0)) -> Outcome:
    """A scenario of two loads, with series."""
    series = {
        "rate, MiB/s": tuple((at / 10, 5.0 + at % 3) for at in range(20)),
        "age, s": tuple((at / 10, 0.5 + at % 7 / 10) for at in range(20)),
    }
    entries = []
    for load in ("4k d1", "64k d8"):
        for name, factor in (("backstay", 1.0), ("nbdkit file", 2.0)):
            samples = tuple(
                Sample(5.0, figures={"rate": rate * factor}, series=series) for rate in rates
            )
            entries.append(Entry(f"{load}: {name}", samples))
    memory = Entry("memory of intake", (Sample(0.0, peak=100 << 20),))
    return Outcome(
        "sustained",
        "writes",
        (*entries, memory),
        peer="nbdkit file",
        columns=(("rate", "a second"),),
    )


def sized() -> Outcome:
    """A scenario whose inputs have sizes."""
    entries = tuple(
        Entry(
            f"{size} GiB: {name}",
            (Sample(size * cost, cpu=size * cost, figures={"gib": float(size)}),),
        )
        for size in (1, 2, 4)
        for name, cost in (("backstay", 1.0), ("restic", 3.0))
    )
    return Outcome("sizes", "sizes", entries, peer="restic", axis=("gib", "GiB"))


def result(*outcomes: Outcome, machine: Machine = MACHINE, content: float = 64.0) -> Result:
    """A run with these outcomes."""
    return Result(
        began="2026-01-02T03:04:05+00:00",
        command=("--only", "<initial>"),
        revision="abc",
        machine=machine,
        load_before=(0.1, 0.2, 0.3),
        load_after=(1.0, 0.5, 0.3),
        scenarios=outcomes,
        took={outcome.scenario: 1.5 for outcome in outcomes},
        scale={"content": content},
    )
