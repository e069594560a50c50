"""YAML text to a tree of plain values in which everything knows its line and column.

Built from the parser's events, never from constructed objects: no tag can create anything. Bounded
in depth and in values (what aliases repeat counts each time), so no file can blow up in memory.
Scalars follow the YAML 1.2 core schema: ``yes`` and ``1:30`` are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from pipeline.config.problems import Path, Problem, quote
from pipeline.config.syntax import syntax_problem

MAX_DEPTH = 32  # the schema needs 7
MAX_VALUES = 100_000  # keys and values of a file; 2,000 machines need 30,000

# What fuzzing saw the parser raise on malformed input beside its own errors: escapes beyond
# Unicode (ValueError, or OverflowError for the largest), a %YAML 1.5 line (AssertionError).
_PARSER_FAILURES = (YAMLError, AssertionError, OverflowError, ValueError)

_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0(?:o[0-7]+|x[0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {"": None, "~": None}
for _word, _meaning in (("null", None), ("true", True), ("false", False)):
    _WORDS |= dict.fromkeys((_word, _word.capitalize(), _word.upper()), _meaning)
_MAX_DIGITS = 1000
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = "write the character itself, not \\u escapes for its halves"

Scalar: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value at ``line`` and ``column`` (from 1). ``size`` counts it and all it holds."""

    line: int
    column: int
    content: Scalar | tuple[Node, ...] | dict[str, Entry]
    size: int = 1

    def plain(self) -> Any:
        """The value as plain Python: str, int, float, bool, None, list, dict."""
        if isinstance(self.content, dict):
            return {key: entry.value.plain() for key, entry in self.content.items()}
        if isinstance(self.content, tuple):
            return [item.plain() for item in self.content]
        return self.content

    def entries(self) -> dict[str, Entry]:
        """The entries of a mapping; none of anything else."""
        return self.content if isinstance(self.content, dict) else {}


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a mapping, where it stands, and its value."""

    line: int
    column: int
    value: Node


class _Fatal(Exception):
    """Reading ends at this problem."""

    def __init__(self, problem: Problem):
        super().__init__(problem.message)
        self.problem = problem


def parse(text: str) -> tuple[Node | None, list[Problem]]:
    """Read one YAML document: its tree, and what is wrong with it as YAML.

    No tree where reading could not go on. Of duplicate keys the first is kept.
    """
    builder = _Builder(text)
    try:
        return builder.document(), builder.problems
    except _Fatal as fatal:
        return None, [*builder.problems, fatal.problem]


class _Builder:
    """Turns events into nodes; collects what is wrong and goes on where that makes sense."""

    def __init__(self, text: str):
        self.problems: list[Problem] = []
        self._events = _events(text)
        self._anchors: dict[str, Node] = {}
        self._values = 0

    def document(self) -> Node:
        event = next(self._events)
        while isinstance(event, StreamStartEvent | DocumentStartEvent):
            event = next(self._events)
        if isinstance(event, StreamEndEvent):
            return Node(1, 1, None)
        root = self._node(event, ())
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                raise _Fatal(_at(event, (), "a second document starts here", "keep only one"))
        return root

    def _node(self, event: Any, path: Path) -> Node:
        self._count(event, 1)
        if isinstance(event, AliasEvent):
            return self._alias(event, path)
        if event.tag is not None:
            self.problems.append(_at(event, path, "tags (!) are not supported"))
        line, column = _position(event)
        if isinstance(event, ScalarEvent):
            if _SURROGATE.search(event.value):
                raise _Fatal(_at(event, (), f"{quote(event.value)} is not text", _ESCAPE))
            node = Node(line, column, _scalar(event))
        else:
            if len(path) >= MAX_DEPTH:
                raise _Fatal(_at(event, (), f"nested deeper than {MAX_DEPTH} levels"))
            before = self._values
            many = self._mapping if isinstance(event, MappingStartEvent) else self._sequence
            node = Node(line, column, many(path), 1 + self._values - before)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any, path: Path) -> Node:
        found = self._anchors.get(event.anchor)
        if found is None:
            name = quote(f"*{event.anchor}")
            raise _Fatal(_at(event, path, f"alias {name} has no anchor before it"))
        self._count(event, found.size)
        line, column = _position(event)
        return replace(found, line=line, column=column)

    def _sequence(self, path: Path) -> tuple[Node, ...]:
        items: list[Node] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(self._node(event, (*path, len(items))))
        return tuple(items)

    def _mapping(self, path: Path) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, path)
            value = self._node(next(self._events), path if key is None else (*path, key))
            if key is None:
                continue
            if key in found:
                message = f"this key is here twice, first in line {found[key].line}"
                self.problems.append(_at(event, (*path, key), message))
            else:
                found[key] = Entry(*_position(event), value)
        return found

    def _key(self, event: Any, path: Path) -> str | None:
        """Return the key's text; None, with the problem noted, if it cannot be used."""
        node = self._node(event, (*path, "?"))
        plain = isinstance(event, ScalarEvent) and event.style is None
        if plain and event.value == "<<":
            hint = "write the keys out, or use an alias for a whole value"
            self.problems.append(_at(event, path, "merge keys (<<) are not supported", hint))
        elif plain and event.value == "":
            self.problems.append(_at(event, path, 'a key is missing before ":"'))
        elif not isinstance(event, ScalarEvent):
            kind = "list" if isinstance(node.content, tuple) else "mapping"
            what = "an alias" if isinstance(event, AliasEvent) else f"a {kind}"
            self.problems.append(_at(event, path, f"a key must be text, not {what}"))
        else:
            return str(event.value)
        return None

    def _count(self, event: Any, more: int) -> None:
        self._values += more
        if self._values > MAX_VALUES:
            message = f"more than {MAX_VALUES} values, counting what aliases repeat"
            raise _Fatal(_at(event, (), message))


def _events(text: str) -> Iterator[Any]:
    """The parser's events; whatever it raises becomes a fatal problem with a position."""
    last = (1, 1)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            last = event.end_mark.line + 1, event.end_mark.column + 1
            yield event
    except _PARSER_FAILURES as error:
        raise _Fatal(syntax_problem(error, text, last)) from error


def _scalar(event: Any) -> Scalar:
    text = str(event.value)
    if event.style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def _position(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _at(event: Any, path: Path, message: str, hint: str = "") -> Problem:
    return Problem(*_position(event), path, message, hint)
