"""The kinds of values a configuration has, each with its bounds and its own words when wrong.

Validators raise ``Wrong`` (a ``ValueError``), which pydantic collects with the place of the value.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WrapSerializer,
)

from pipeline.config.problems import quote, show
from pipeline.config.units import (
    Wrong,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

MAX_PATH = 4095  # bytes; PATH_MAX of Linux without the final NUL
NOT_YET = "not implemented in this version"
NEEDS_LIST = 'it must be a list ("- …" lines)'
NEEDS_MAPPING = 'it must be a mapping ("key: value" lines)'

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NAME_RULE = 'use at most 63 of a-z, 0-9, ".", "_" and "-", and start with a letter or digit'


@dataclass(frozen=True, slots=True)
class Place:
    """Where a configuration was read: ``source`` the file, ``folder`` what paths start from; and
    when (``now``: seconds since 1970)."""

    source: str
    folder: str
    now: float

    @staticmethod
    def of(path: str, now: float | None = None) -> Place:
        """Absolute forms of ``path`` and its folder; symbolic links are left alone."""
        source = PurePosixPath(path)
        if not source.is_absolute():
            source = PurePosixPath(Path.cwd()) / source
        return Place(str(source), str(source.parent), time.time() if now is None else now)


def text(value: object) -> str:
    """Return a non-empty text or raise ``Wrong``."""
    if not isinstance(value, str):
        quotable = isinstance(value, bool | int | float)
        hint = f'write "{show(value)}"' if quotable else ""
        raise Wrong(f"must be text, not {show(value)}" if value is not None else "is empty", hint)
    if not value:
        raise Wrong("is empty")
    return value


def resolve(value: object, folder: str) -> str:
    """Return the absolute form of a path, or raise ``Wrong``. ``..`` and links are left alone."""
    path = text(value)
    if any(char < " " for char in path):
        raise Wrong(f"{quote(path)} has a control character")
    if path.startswith("~"):
        raise Wrong(f'"~" in {quote(path)} is not expanded', "write the whole path")
    if "${" in path:
        raise Wrong(f"variables in {quote(path)} are not expanded", "write the path itself")
    full = str(PurePosixPath(folder, path))
    if len(os.fsencode(full)) > MAX_PATH:
        raise Wrong(f"a path has at most {MAX_PATH} bytes")
    return full


def whole(low: int, high: int, *words: str) -> PlainValidator:
    """A whole number from ``low`` to ``high``, or one of ``words``."""
    other = "".join(f"{quote(word)} or " for word in words)
    rule = f"must be {other}a whole number from {low} to {high}"

    def check(value: object) -> int | str:
        if isinstance(value, str) and value in words:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Wrong(f"{rule}, not {show(value)}")
        return value

    return PlainValidator(check)


def size(low: int, high: int, *, multiple: int = 1, zero: bool = False) -> PlainValidator:
    """Bytes from ``low`` to ``high``, a multiple of ``multiple``; ``zero``: or 0."""
    rule = f"must be {'0 or ' * zero}from {format_size(low)} to {format_size(high)}"

    def check(value: object) -> int:
        found = parse_size(value)
        if found == 0 and zero:
            return found
        if not low <= found <= high:
            raise Wrong(f"{rule}, not {_as_written(value)}")
        if found % multiple:
            raise Wrong(f"must be a multiple of {format_size(multiple)}, not {_as_written(value)}")
        return found

    return PlainValidator(check)


def one_size(only: int) -> PlainValidator:
    """The one size that this version knows."""

    def check(value: object) -> int:
        if parse_size(value) != only:
            raise Wrong(f"{_as_written(value)} is {NOT_YET}", f"write {format_size(only)}")
        return only

    return PlainValidator(check)


def duration(low: float, high: float) -> PlainValidator:
    """Seconds from ``low`` to ``high``."""

    def check(value: object) -> int | float:
        found = parse_duration(value)
        if not low <= found <= high:
            bounds = f"from {format_duration(low)} to {format_duration(high)}"
            raise Wrong(f"must be {bounds}, not {_as_written(value)}")
        return found

    return PlainValidator(check)


def durations(low: float, high: float, most: int) -> PlainValidator:
    """A list of 1 to ``most`` durations, each from ``low`` to ``high`` seconds."""
    one = duration(low, high)

    def check(value: object) -> tuple[int | float, ...]:
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= most:
            raise Wrong(f"must be a list of 1 to {most} durations", "for example [1m, 2m, 4m]")
        return tuple(one.func(each) for each in value)  # type: ignore[call-arg]

    return PlainValidator(check)


def or_auto(other: PlainValidator) -> PlainValidator:
    """The word "auto", or what ``other`` takes."""

    def check(value: object) -> object:
        if value == "auto":
            return value
        return other.func(value)  # type: ignore[call-arg]

    return PlainValidator(check)


def choice(*known: str) -> PlainValidator:
    """One of the words ``known``."""
    rule = f"must be {' or '.join(quote(word) for word in known)}"

    def check(value: object) -> str:
        word = text(value)
        if word not in known:
            raise Wrong(f"{rule}, not {quote(word)}")
        return word

    return PlainValidator(check)


def with_default(make: Callable[[], object]) -> AfterValidator:
    """Read-only names to settings, with an entry ``default`` where the file has none."""

    def complete(found: Mapping[str, object]) -> Mapping[str, object]:
        added = {} if "default" in found else {"default": make()}
        return MappingProxyType({**added, **found})

    return AfterValidator(complete)


def _as_written(value: object) -> str:
    return value.strip() if isinstance(value, str) else show(value)


def _name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise Wrong(f"{quote(value)} is not a name", _NAME_RULE)
    return value


def _path(value: object, info: ValidationInfo) -> str:
    return resolve(value, folder_of(info))


def optional(check: Callable[[object, ValidationInfo], str]) -> PlainValidator:
    """What ``check`` takes; None only where no file is read, in which it is a slip."""

    def checked(value: object, info: ValidationInfo) -> str | None:
        if value is None and not isinstance(info.context, Place):
            return None
        return check(value, info)

    return PlainValidator(checked)


def _capture(value: object, info: ValidationInfo) -> str:
    """Checked after ``listen``, so that what does not go together is told here."""
    word = text(value)
    if word not in ("scan", "nbd"):
        raise Wrong(f'must be "scan" or "nbd", not {quote(word)}')
    listen = info.data.get("listen", "")
    if word == "nbd" and listen is None:
        raise Wrong('"nbd" needs a socket to listen on', 'add "listen: unix:./NAME.sock"')
    if word == "scan" and listen:
        raise Wrong('"listen" goes with "capture: nbd" only', 'remove it, or write "nbd"')
    return word


def folder_of(info: ValidationInfo) -> str:
    """What relative paths start from."""
    place = info.context
    return place.folder if isinstance(place, Place) else Place.of("-").folder


def _present(value: object, info: ValidationInfo) -> object:
    """A key without a value is a slip in a file; None is the default everywhere else."""
    if value is None and isinstance(info.context, Place):
        raise Wrong("is empty", NEEDS_MAPPING)
    return value


Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, PlainValidator(text)]
FilePath = Annotated[str, PlainValidator(_path)]
OptionalPath = Annotated[str | None, optional(_path)]
CaptureKind = Annotated[str, PlainValidator(_capture)]
PRESENT = BeforeValidator(_present)
READ_ONLY = AfterValidator(MappingProxyType)
AS_DICT = WrapSerializer(lambda found, dump: dump(dict(found)))  # for model_dump
# As they are written in a file, so that what was dumped can be read again.
AS_DURATION = PlainSerializer(format_duration, return_type=str)
AS_DURATIONS = PlainSerializer(lambda found: [format_duration(each) for each in found], list[str])
