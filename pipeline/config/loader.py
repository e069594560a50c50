"""From a path to a ``Config``, or to one ``ConfigError`` that tells everything that is wrong."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import TypeVar

from pydantic import ValidationError

from pipeline.config.check import disk_problems, listen_problems, reference_problems, shape_problems
from pipeline.config.fields import Place
from pipeline.config.model import Config
from pipeline.config.problems import Problem, base_name, failure, show
from pipeline.config.section import Section
from pipeline.config.syntax import position_at
from pipeline.config.tree import Node, parse
from pipeline.config.units import MIB
from stages.errors import ConfigError
from stages.ports import Files
from stages.system import SystemFiles

S = TypeVar("S", bound=Section)

MAX_BYTES = 4 * MIB

_BOM = "\ufeff"
_MISSING = "no such file"


def load(path: str, *, files: Files | None = None, now: float | None = None) -> Config:
    """Read and check the configuration at ``path``, at ``now`` (seconds since 1970).

    Raises ``ConfigError``: its message has one line ``file.yaml:LINE:COLUMN: path: message`` for
    each problem, in file order, at most 20 and a count of the rest.
    """
    root, problems = _parsed(path, files, "a configuration needs daemon, vaults and machines")
    place = Place.of(path, now)
    try:
        config = Config.model_validate(root.plain(), context=place)
    except ValidationError as error:
        problems += shape_problems(error, root)
    problems += reference_problems(root)
    problems += disk_problems(root, place.folder)
    problems += listen_problems(root, place.folder)
    if problems:
        raise failure(path, problems)
    return config


def load_as(
    path: str,
    model: type[S],
    needs: str,
    more: Callable[[Node], Iterable[Problem]] = lambda _: (),
) -> S:
    """Read and check another kind of configuration. ``needs`` says what stands in it; ``more``
    looks at the tree for what no section can see by itself.

    Raises ``ConfigError`` as ``load`` does.
    """
    root, problems = _parsed(path, None, needs)
    try:
        config = model.model_validate(root.plain(), context=Place.of(path))
    except ValidationError as error:
        problems += shape_problems(error, root, model)
    problems += more(root)
    if problems:
        raise failure(path, problems)
    return config


def _parsed(path: str, files: Files | None, needs: str) -> tuple[Node, list[Problem]]:
    root, problems = parse(_read(path, files or SystemFiles()))
    if root is None:
        raise failure(path, problems)
    if not isinstance(root.content, dict):
        raise failure(path, [*problems, _no_mapping(root, needs)])
    return root, list(problems)


def _no_mapping(root: Node, needs: str) -> Problem:
    if root.content is None:
        return Problem(1, 1, (), "the file is empty", needs)
    wanted = f"must be a mapping of {needs.partition(' needs ')[2].replace(' and ', ', ')} …"
    return Problem(root.line, root.column, (), f"{wanted}, not {show(root.content)}")


def _read(path: str, files: Files) -> str:
    try:
        found = files.stat(path)
        if found is None:
            raise _unreadable(path, _MISSING)
        if not found.is_file:
            raise _unreadable(path, "is a folder" if found.is_dir else "is not a file")
        data = files.read(path, MAX_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise _unreadable(path, f"larger than {MAX_BYTES >> 20} MiB") from error
        raise _unreadable(path, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the path
        raise _unreadable(path, _MISSING) from error
    return _decode(path, data)


def _decode(path: str, data: bytes) -> str:
    try:
        return data.decode().removeprefix(_BOM)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode().removeprefix(_BOM)
        line, column = position_at(before, len(before))
        message = f"byte 0x{data[error.start]:02x} is not UTF-8"
        hint = "save the file as UTF-8"
        raise failure(path, [Problem(line, column, (), message, hint)]) from error


def _unreadable(path: str, message: str) -> ConfigError:
    hint = "configs/quickstart.yaml is one to start from" if message == _MISSING else ""
    message = f"{base_name(path)}: {message}"
    return ConfigError(message, operation="config", subject=path, hint=hint)
