"""The result file: everything that was measured, every sample, and where. Format 1.

A JSON object: ``format`` ("backstay-bench"), ``version`` (1), ``began`` (ISO 8601, UTC),
``command`` (the arguments), ``revision`` (of the source, or ""), ``machine`` (``bench.machine``),
``load_before``, ``load_after`` (averages over 1, 5 and 15 minutes), ``scenarios`` (``Outcome`` of
``bench.results``, field by field; seconds and bytes), ``took`` (seconds by scenario),
``scale`` (how large the inputs were, ``bench.context``).

For readers who do not want to compute, ``verdict`` of goals and ``median`` of entries are added;
they are left out of account when it is read back. A name that is not known is an error: it would
be lost without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from bench.machine import Machine
from bench.results import Outcome

FORMAT, VERSION = "backstay-bench", 1
LARGEST = 256 << 20  # bytes of a file that is read
_MEDIANS = ("seconds", "durable", "inner", "cpu", "stored")
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class WrongFile(Exception):
    """A result file cannot be read; the message names the file and where in it."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Result:
    """One run of the bench."""

    began: str
    command: tuple[str, ...]
    revision: str
    machine: Machine
    load_before: tuple[float, ...]
    load_after: tuple[float, ...]
    scenarios: tuple[Outcome, ...]
    took: Mapping[str, float] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)

    def scenario(self, name: str) -> Outcome | None:
        """The outcome of a scenario that was run."""
        return next((one for one in self.scenarios if one.scenario == name), None)


def as_fields(result: Result) -> dict[str, Any]:
    """What is written, verdicts and medians added."""
    return {
        "format": FORMAT,
        "version": VERSION,
        **asdict(result),
        "scenarios": outcomes_as_fields(result.scenarios),
    }


def outcomes_as_fields(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Scenarios with everything in them."""
    return [_outcome_fields(outcome) for outcome in outcomes]


def as_text(result: Result) -> str:
    """The file's text. ``ValueError`` if a figure is not a number."""
    return json.dumps(as_fields(result), indent=1, allow_nan=False) + "\n"


def read(path: Path) -> Result:
    """Read a result file. Raises ``WrongFile``."""
    try:
        if path.stat().st_size > LARGEST:
            raise WrongFile(f"{path}: larger than {LARGEST >> 20} MiB: not a result file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WrongFile(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise WrongFile(f"{path}: not a text file") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Result:
    """The result in a file's text; ``name`` is for errors. Raises ``WrongFile``."""
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise WrongFile(f"{name}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise WrongFile(f"{name}: not a result file: no JSON object")
    if found.pop("format", None) != FORMAT:
        raise WrongFile(f'{name}: format: not a result file: "{FORMAT}" is expected')
    version = found.pop("version", None)
    if type(version) is not int or version != VERSION:
        raise WrongFile(f"{name}: version: {VERSION} is understood, not {version!r}")
    _drop_derived(found)
    try:
        return _adapter().validate_json(json.dumps(found), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        more = error.error_count() - 1
        where = ".".join(map(str, first["loc"]))
        others = f" (and {more} more)" if more else ""
        raise WrongFile(f"{name}: {where}: {first['msg']}{others}") from None


def _adapter() -> TypeAdapter[Result]:
    return TypeAdapter(Result)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    fields = asdict(outcome)
    fields["goals"] = [{**asdict(goal), "verdict": goal.verdict} for goal in outcome.goals]
    for entry, target in zip(outcome.entries, fields["entries"], strict=True):
        target["median"] = {name: entry.median(name) for name in _MEDIANS}
    return fields


def _drop_derived(found: dict[str, Any]) -> None:
    """What can be computed from the rest is not read."""
    for outcome in _objects(found.get("scenarios")):
        for goal in _objects(outcome.get("goals")):
            goal.pop("verdict", None)
        for entry in _objects(outcome.get("entries")):
            entry.pop("median", None)


def _objects(found: object) -> Iterator[dict[str, Any]]:
    if isinstance(found, list):
        yield from (one for one in found if isinstance(one, dict))
