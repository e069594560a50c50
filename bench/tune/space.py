"""What can be tuned: options of a pipeline, each with the values that are worth trying. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.config.model import Pipeline
from pipeline.config.units import KIB, MIB, format_size

Value = int | str
Setting = Mapping[str, Value]
"""A value for each option, by its name: ``section.key``."""


@dataclass(frozen=True, slots=True)
class Option:
    """``section.key`` of a pipeline; ``values`` in ascending order; ``size``: they are bytes."""

    name: str
    values: tuple[int, ...]
    size: bool = False

    def shown(self, value: Value) -> Value:
        """As it is written in a configuration."""
        return format_size(value) if self.size and isinstance(value, int) else value

    def around(self, value: Value) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Greater values, nearest first, and smaller ones. ``auto`` has all on one side."""
        if isinstance(value, str):
            return self.values, ()
        greater = tuple(one for one in self.values if one > value)
        return greater, tuple(one for one in reversed(self.values) if one < value)


OPTIONS: tuple[Option, ...] = (
    Option("compress.workers", (1, 2, 3, 4, 6, 8, 12, 16)),
    Option("compress.level", (1, 2, 3, 4, 6)),
    Option("cache.seal_bytes", (4 * MIB, 8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB), size=True),
    Option("capture.workers", (0, 1, 2, 3, 4, 6, 8)),
    Option("capture.batch", (1 * MIB, 2 * MIB, 4 * MIB, 8 * MIB), size=True),
    Option("ship.in_flight", (1, 2, 4, 8, 16)),
    Option("encrypt.workers", (1, 2, 4)),
    Option("ship.inline", (0, 64 * KIB, 256 * KIB, 1 * MIB), size=True),
)
"""In the order in which they are tried: what usually matters most comes first."""

_PER_CORE = ("compress.workers", "capture.workers", "encrypt.workers")


def options(cores: int | None = None) -> tuple[Option, ...]:
    """The options for a machine: no more than twice as many workers as it has cores."""
    most = 2 * (cores or os.cpu_count() or 1)
    return tuple(
        Option(one.name, tuple(value for value in one.values if value <= most))
        if one.name in _PER_CORE
        else one
        for one in OPTIONS
    )


def setting_of(pipeline: Pipeline) -> Setting:
    """What a pipeline has now."""
    found: dict[str, Value] = {}
    for option in OPTIONS:
        section, key = option.name.split(".")
        found[option.name] = getattr(getattr(pipeline, section), key)
    return MappingProxyType(found)


def sections(setting: Setting) -> dict[str, dict[str, Value]]:
    """As a configuration has it: by section, then by key."""
    found: dict[str, dict[str, Value]] = {}
    for name, value in setting.items():
        section, key = name.split(".")
        found.setdefault(section, {})[key] = value
    return found


def option_named(name: str) -> Option:
    """The option called so; raises ``KeyError``."""
    return {one.name: one for one in OPTIONS}[name]
