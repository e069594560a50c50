"""A configuration's text with other values in one pipeline: comments and layout stay.

Round trip by ruamel, which indents all mappings as the first one is. What comes out is read again,
and must be the old configuration but for the values that were to change; an alias that would carry
a change elsewhere is thereby refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.util import load_yaml_guess_indent

from bench.tune.space import Setting, Value, option_named, sections
from pipeline.config.fields import Place
from pipeline.config.model import Config, Pipeline
from pipeline.config.tree import parse
from stages.errors import UsageError

_INDENTED = re.compile(r"^( +)[^\s#-]", re.MULTILINE)
_WIDE = 1 << 16  # no line is wrapped that was not


def changed(text: str, path: str, pipeline: str, change: Setting) -> str:
    """``text``, the valid configuration at ``path``, with ``change`` in its pipeline so named.

    The pipeline and its sections are added where they are missing. Raises ``UsageError``.
    """
    _, indent, offset = load_yaml_guess_indent(text)
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, _WIDE
    mapping = _first_indent(text)
    yaml.indent(mapping=mapping, sequence=indent or mapping, offset=offset or 0)
    document = yaml.load(text)
    place = _below(_below(document, "pipelines"), pipeline)
    for section, values in sections(change).items():
        here = _below(place, section)
        for key, value in values.items():
            here[key] = option_named(f"{section}.{key}").shown(value)
    out = StringIO()
    yaml.dump(document, out)
    _require_only(text, out.getvalue(), path, pipeline, change)
    return out.getvalue()


def with_setting(pipeline: Pipeline, setting: Setting) -> Pipeline:
    """The pipeline with other values."""
    found = {
        section: getattr(pipeline, section).model_copy(update=values)
        for section, values in sections(setting).items()
    }
    return pipeline.model_copy(update=found)


def _first_indent(text: str) -> int:
    """Spaces before the first key that has any; 2 where there is none."""
    found = _INDENTED.search(text)
    return len(found[1]) if found else 2


def _below(place: Any, key: str) -> Any:
    """The mapping at ``key``, which may be missing or empty."""
    if place.get(key) is None:
        place[key] = {}
    return place[key]


def _require_only(before: str, after: str, path: str, pipeline: str, change: Setting) -> None:
    old, new = _read(before, path), _read(after, path)
    wanted: Mapping[str, Pipeline] = {
        **old.pipelines,
        pipeline: with_setting(old.pipelines.get(pipeline, Pipeline()), change),
    }
    same = all(
        getattr(old, name) == getattr(new, name)
        for name in ("daemon", "vaults", "policies", "machines")
    )
    if not same or dict(new.pipelines) != dict(wanted):
        raise UsageError(
            f"pipeline {pipeline} cannot be changed alone in this file",
            operation="tune",
            subject=path,
            hint="does it share an alias (*name) with another? Write it out, then tune again",
        )


def _read(text: str, path: str) -> Config:
    root, problems = parse(text)
    if root is None or problems:
        raise UsageError("it cannot be written anew", operation="tune", subject=path)
    return Config.model_validate(root.plain(), context=Place.of(path))


def difference(before: Setting, after: Setting) -> dict[str, tuple[Value, Value]]:
    """What differs: the value before and after, by option."""
    return {name: (value, after[name]) for name, value in before.items() if after[name] != value}
