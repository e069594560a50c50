"""Metrics in Prometheus' text format. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pipeline.control.model import Health
from pipeline.control.views import DaemonView, MachineView, OperationView, StageView, StoreView

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HEALTH = {Health.NORMAL: 0, Health.WARNING: 1, Health.CRITICAL: 2}
_CODE = "0 normal, 1 warning, 2 critical"
_MOVES = ("put", "get")
_BUCKETS = range(8, 27, 2)  # of the counts: 256 µs to 67 s

Sample = tuple[dict[str, str], float]

# Name, kind, help, and the value of a machine; None: it has none now.
_MACHINE: Sequence[tuple[str, str, str, Callable[[MachineView], float | None]]] = (
    ("health", "gauge", f"How it is: {_CODE}.", lambda one: _HEALTH[one.health]),
    ("rpo_seconds", "gauge", "Age of the oldest write not in the vault.", lambda o: o.rpo_seconds),
    ("point", "gauge", "Number of the newest consistent recovery point.", lambda one: one.point),
    (
        "point_timestamp_seconds",
        "gauge",
        "Time of the newest consistent recovery point.",
        lambda one: None if one.point_stamp_us is None else one.point_stamp_us / 1e6,
    ),
    ("journal_bytes", "gauge", "Journal not shipped yet.", lambda one: one.journal_bytes),
    ("journal_limit_bytes", "gauge", "What the journal may hold.", lambda one: one.journal_limit),
    ("shipped_bytes_total", "counter", "Bytes shipped to the vault.", lambda o: o.shipped_bytes),
    (
        "ladder_attempt",
        "gauge",
        "Failed attempts in a row; 0: it runs.",
        lambda o: o.ladder.attempt,
    ),
    (
        "scan_done_bytes",
        "gauge",
        "Bytes of the scan under way that are done.",
        lambda one: None if one.scan is None else one.scan.done,
    ),
    (
        "scan_total_bytes",
        "gauge",
        "Bytes of the scan under way.",
        lambda one: None if one.scan is None else one.scan.total,
    ),
)

_STAGE: Sequence[tuple[str, str, Callable[[StageView], float]]] = (
    ("busy", "Worker-seconds at work.", lambda one: one.busy_seconds),
    ("wait_in", "Worker-seconds without anything to do.", lambda one: one.wait_in_seconds),
    ("wait_out", "Worker-seconds held up by the next stage.", lambda one: one.wait_out_seconds),
)


def exposition(daemon: DaemonView, machines: Sequence[MachineView]) -> str:
    """All metrics, sorted as they are written here."""
    started = daemon.started_us / 1e6
    lines = [
        *family("ready", "gauge", "The daemon serves.", [({}, int(daemon.ready))]),
        *family("health", "gauge", f"How it is: {_CODE}.", [({}, _HEALTH[daemon.health])]),
        *family("start_time_seconds", "gauge", "When it started.", [({}, started)]),
        *family("info", "gauge", "Its version.", [({"version": daemon.version}, 1)]),
    ]
    if daemon.key_drilled_us is not None:
        said = "When a private key was last proved to open the vault."
        value = daemon.key_drilled_us / 1e6
        lines += family("key_drill_timestamp_seconds", "gauge", said, [({}, value)])
    for name, kind, said, value_of in _MACHINE:
        found = ((one, value_of(one)) for one in machines)
        samples = [({"machine": one.name}, value) for one, value in found if value is not None]
        lines += family(f"machine_{name}", kind, said, samples)
    states = [({"machine": one.name, "state": one.state.value}, 1.0) for one in machines]
    lines += family("machine_state", "gauge", "1 for the state that it is in.", states)
    lines += _of_stages(machines)
    lines += _of_stores(daemon.stores)
    return "".join(f"{line}\n" for line in lines)


def _of_stages(machines: Sequence[MachineView]) -> Iterable[str]:
    """A rate of these, divided by the workers, is the share of the time."""
    each = [
        ({"machine": one.name, "stage": stage.name}, stage)
        for one in machines
        for stage in one.stages
    ]
    if not each:
        return
    said = "Workers of a stage of delivery."
    yield from family("stage_workers", "gauge", said, [(a, one.workers) for a, one in each])
    for name, said, value_of in _STAGE:
        samples = [(labels, value_of(one)) for labels, one in each]
        yield from family(f"stage_{name}_seconds_total", "counter", said, samples)


def _of_stores(stores: Sequence[StoreView]) -> Iterable[str]:
    """Requests to vaults; each with its vault and what was asked."""
    if not stores:
        return
    each = [
        ({"vault": one.vault, "operation": operation.name}, operation)
        for one in stores
        for operation in one.operations
    ]
    calls = [(labels, found.calls) for labels, found in each]
    yield from family("store_requests_total", "counter", "Requests to a vault.", calls)
    errors = [
        (labels | {"error": name}, count)
        for labels, found in each
        for name, count in sorted(found.errors.items())
    ]
    yield from family("store_errors_total", "counter", "Requests that failed.", errors)
    moved = [(labels, found.bytes) for labels, found in each if found.name in _MOVES]
    yield from family("store_bytes_total", "counter", "Bytes put and got.", moved)
    yield from _histogram(each)
    limits = [
        ({"vault": one.vault, "direction": way}, limit)
        for one in stores
        for way, limit in (("upload", one.upload_limit), ("download", one.download_limit))
        if limit is not None
    ]
    said = "Bytes a second that may go now; absent: no limit."
    yield from family("store_limit_bytes_per_second", "gauge", said, limits)
    waiting = [({"vault": one.vault}, one.waiting) for one in stores]
    yield from family("store_waiting", "gauge", "Requests that a limit holds up.", waiting)
    months = [
        ({"vault": one.vault, "operation": name}, count)
        for one in stores
        for name, count in (
            ("put", one.month.puts),
            ("get", one.month.gets),
            ("info", one.month.infos),
            ("list", one.month.lists),
            ("delete", one.month.deletes),
        )
    ]
    said = "Requests of 30 days, as status forecasts them."
    yield from family("store_month_requests", "gauge", said, months)


def _histogram(each: Sequence[tuple[dict[str, str], OperationView]]) -> Iterable[str]:
    name = "backstay_store_request_seconds"
    yield f"# HELP {name} How long requests took, failed ones too."
    yield f"# TYPE {name} histogram"
    for labels, found in each:
        for bucket in _BUCKETS:
            bound = {"le": repr(2**bucket / 1e6)}
            yield _sample(f"{name}_bucket", labels | bound, sum(found.latencies[: bucket + 1]))
        count = sum(found.latencies)
        yield _sample(f"{name}_bucket", labels | {"le": "+Inf"}, count)
        yield _sample(f"{name}_sum", labels, found.seconds)
        yield _sample(f"{name}_count", labels, count)


def family(name: str, kind: str, said: str, samples: Sequence[Sample]) -> Iterable[str]:
    """The lines of one metric."""
    full = f"backstay_{name}"
    yield f"# HELP {full} {said}"
    yield f"# TYPE {full} {kind}"
    for labels, value in samples:
        yield _sample(full, labels, value)


def _sample(full: str, labels: dict[str, str], value: float) -> str:
    shown = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
    return f"{full}{{{shown}}} {number(value)}" if shown else f"{full} {number(value)}"


def escaped(text: str) -> str:
    """A label's value."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def number(value: float) -> str:
    """A sample's value, exact for integers."""
    return str(value) if isinstance(value, int) else repr(float(value))
