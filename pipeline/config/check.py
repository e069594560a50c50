"""What is wrong with a tree that is valid YAML: shape, values, references, what is named twice.

References and disks are checked on the tree, not on the models, so that they are told even while
other errors keep the models from existing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.addresses import address
from pipeline.config.fields import NEEDS_LIST, NEEDS_MAPPING, resolve
from pipeline.config.model import Config
from pipeline.config.problems import Path, Problem, closest, path_text, quote, show
from pipeline.config.section import Section
from pipeline.config.tree import Node
from pipeline.config.units import Wrong

_REFERENCES = (("policy", "policies"), ("pipeline", "pipelines"), ("vault", "vaults"))
_IMPLICIT = {"policies": {"default"}, "pipelines": {"default"}, "vaults": set[str]()}


@dataclass(frozen=True, slots=True)
class _Spot:
    """The value at a path, and where its key stands (the document's start, for the root)."""

    key: tuple[int, int]
    node: Node

    @property
    def value(self) -> tuple[int, int]:
        """Where the value stands; where its key stands, if there is nothing to point at."""
        return self.key if self.node.content is None else (self.node.line, self.node.column)


def shape_problems(
    error: ValidationError, root: Node, model: type[Section] = Config
) -> list[Problem]:
    """Put pydantic's findings at their places in the file, in our words."""
    details = error.errors(include_url=False, include_input=False)
    missing = {detail["loc"] for detail in details if detail["type"] == "missing"}
    parents = {path[:-1] for path in missing}
    extra = (detail["loc"] for detail in details if detail["type"] == "extra_forbidden")
    meant = missing & {_meant(path, model) for path in extra if path[:-1] in parents}
    left = [detail for detail in details if detail["loc"] not in meant]
    return [_shape_problem(detail, root, model) for detail in left]


def reference_problems(root: Node) -> Iterator[Problem]:
    """Machines that name a policy, pipeline or vault that is not there."""
    for key, section in _REFERENCES:
        known = frozenset(name for name, _ in _entries(root, section)) | _IMPLICIT[section]
        if not known:
            continue  # told already: there are no vaults at all
        for name, machine in _entries(root, "machines"):
            named = machine.entries().get(key)
            if named is None or not isinstance(word := named.value.content, str) or not word:
                continue
            if word not in known:
                path = "machines", name, key
                place = named.value.line, named.value.column
                message = f"there is no {key} {quote(word)}"
                yield Problem(*place, path, message, word=word, known=known)


def disk_problems(root: Node, folder: str) -> Iterator[Problem]:
    """Two disks that are one file or device. Symbolic links are followed, hard links are not."""
    first: dict[str, tuple[Path, Node]] = {}
    for machine, settings in _entries(root, "machines"):
        for disk, value in _entries(settings, "disks"):
            here = ("machines", machine, "disks", disk)
            entry = value.entries().get("path")
            real = None if entry is None else _real_path(entry.value.content, folder)
            if entry is None or real is None:
                continue
            if real not in first:
                first[real] = here, entry.value
                continue
            other, at = first[real]
            message = (
                f"this is also the disk {path_text(other)} (line {at.line}, column {at.column})"
            )
            yield Problem(entry.value.line, entry.value.column, (*here, "path"), message)


def listen_problems(root: Node, folder: str) -> Iterator[Problem]:
    """Two machines that listen at one address. The disks of one machine may: clients name them."""
    first: dict[str, tuple[str, Node]] = {}
    for machine, settings in _entries(root, "machines"):
        for disk, value in _entries(settings, "disks"):
            entry = value.entries().get("listen")
            place = None if entry is None else _address(entry.value.content, folder)
            if entry is None or place is None:
                continue
            other, at = first.setdefault(place, (machine, entry.value))
            if other != machine:
                path = ("machines", machine, "disks", disk, "listen")
                message = (
                    f"machine {other} listens there (line {at.line}, column {at.column}); only "
                    "disks of one machine share an address"
                )
                yield Problem(entry.value.line, entry.value.column, path, message)


def _shape_problem(detail: ErrorDetails, root: Node, model: type[Section]) -> Problem:
    path = detail["loc"]
    kind = detail["type"]
    if kind == "missing":
        line, column = _spot(root, path[:-1]).key
        return Problem(line, column, path, "this key is missing", _example(path, model))
    if kind == "extra_forbidden":
        return _unknown_key(path, *_spot(root, path).key, model)
    context = detail.get("ctx", {})
    wrong = context.get("error")
    if path[-1:] == ("[key]",) and isinstance(wrong, Wrong):
        return Problem(*_spot(root, path[:-1]).key, path[:-1], wrong.message, wrong.hint)
    spot = _spot(root, path)
    if isinstance(wrong, Wrong):
        return Problem(*spot.value, path, wrong.message, wrong.hint)
    if kind == "too_short":
        return Problem(*spot.value, path, "at least one entry is needed")
    if kind == "too_long":
        content = spot.node.content
        many = content if isinstance(content, tuple) else spot.node.entries()
        count, most = len(many), context.get("max_length")
        return Problem(*spot.value, path, f"{count} entries are too many", f"at most {most}")
    needs = NEEDS_LIST if kind == "tuple_type" else NEEDS_MAPPING
    if spot.node.content is None:
        return Problem(*spot.value, path, "is empty", needs)
    shown = show(spot.node.content)
    return Problem(*spot.value, path, f"is {shown}", needs)


def _unknown_key(path: Path, line: int, column: int, model: type[Section]) -> Problem:
    owner = _section_at(path[:-1], model)
    key = str(path[-1])
    if key in owner.not_here:
        return Problem(line, column, path, owner.not_here[key])
    message, hint = "this key is not known here", ""
    if not owner.model_fields:
        hint = "nothing can be set here in this version"
    known = frozenset(owner.model_fields)
    return Problem(line, column, path, message, hint, word=key, known=known)


def _meant(path: Path, model: type[Section]) -> Path:
    """The path of the key that a misspelt one probably stands for; itself, if there is none."""
    owner = _section_at(path[:-1], model)
    match = None if path[-1] in owner.not_here else closest(str(path[-1]), owner.model_fields)
    return (*path[:-1], match or path[-1])


def _example(path: Path, model: type[Section]) -> str:
    field = _section_at(path[:-1], model).model_fields[str(path[-1])]
    return f'for example "{path[-1]}: {field.examples[0]}"' if field.examples else ""


def _section_at(path: Path, model: type[Section]) -> type[Section]:
    """The model that describes the mapping at ``path``."""
    kind: Any = model
    for part in path:
        if get_origin(kind) is Mapping:
            kind = _bare(get_args(kind)[1])
        elif get_origin(kind) is tuple:
            kind = _bare(get_args(kind)[0])
        else:
            kind = kind.model_fields[part].annotation
            if get_origin(kind) not in (Mapping, tuple):  # "Snapshot | None" is a snapshot
                kind = next((one for one in get_args(kind) if _is_section(one)), kind)
    assert _is_section(kind), path  # noqa: S101 - pydantic reports keys of models only
    return kind  # type: ignore[no-any-return]


def _bare(kind: Any) -> Any:
    """Without ``Annotated``."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _spot(root: Node, path: Path) -> _Spot:
    key = root.line, root.column
    node = root
    for part in path:
        if isinstance(node.content, tuple):
            node = node.content[int(part)]
            key = node.line, node.column
            continue
        entry = node.entries()[str(part)]
        key, node = (entry.line, entry.column), entry.value
    return _Spot(key, node)


def _entries(node: Node, key: str) -> list[tuple[str, Node]]:
    """Names and values of the mapping at ``key``; nothing if it is no mapping."""
    found = node.entries().get(key)
    return [] if found is None else [(n, e.value) for n, e in found.value.entries().items()]


def _real_path(value: object, folder: str) -> str | None:
    try:
        return os.path.realpath(resolve(value, folder))
    except (Wrong, OSError):
        return None  # a wrong path is told by its own validator


def _address(value: object, folder: str) -> str | None:
    try:
        found = address(value, folder)
    except Wrong:
        return None  # likewise
    if not found.startswith("unix:"):
        return found
    return _real_path(found.removeprefix("unix:"), folder)
