"""Where and why a text is not YAML, in words for people who do not write parsers."""

from __future__ import annotations

from typing import Any

from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from pipeline.config.problems import MAX_SHOWN, Problem, quote

_NOT_YAML = "not valid YAML"
_MISFIT = "this does not fit what is above"
_LOOK_AT = "check the indentation, quotes and brackets"

# A part of the parser's words → ours, and a hint.
_WORDS = (
    ("found character '\\t'", "a tab cannot indent", "use spaces"),
    ("mapping values are not allowed", 'a ":" is not allowed here', "quote the text, or indent it"),
    ("could not find expected ':'", 'this line has no ":" after its key', ""),
    ("unknown escape", "this is no escape that YAML knows", "use single quotes around the text"),
    ("but found '<stream end>'", "the file ends in the middle", "close what is open"),
    ("expected <block end>", _MISFIT, _LOOK_AT),
    ("expected '<document start>'", _MISFIT, _LOOK_AT),
)


def syntax_problem(error: BaseException, text: str, last: tuple[int, int]) -> Problem:
    """The problem behind a parser's error; ``last`` is the end of what was understood."""
    if isinstance(error, ReaderError):
        line, column = position_at(text, error.position)
        return Problem(line, column, (), f"character {quote(chr(error.character))} is not allowed")
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return Problem(*last, (), "what follows is not valid YAML")
    line, column = _place(error.problem_mark)
    said = str(error.problem)
    for part, message, hint in _WORDS:
        if part in said:
            return Problem(line, column, (), message, hint)
    if "cannot start any token" in said:
        first = quote(_character(text, error.problem_mark))
        return Problem(line, column, (), f"a value cannot start with {first}", "put it in quotes")
    if error.context_mark is not None:
        return _inside(error, said, line, column)
    return Problem(line, column, (), f"{_NOT_YAML}: {_short(said)}")


def position_at(text: str, index: int) -> tuple[int, int]:
    """Line and column (from 1) of the character at ``index``."""
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1


def _inside(error: MarkedYAMLError, said: str, line: int, column: int) -> Problem:
    """Errors inside something that was opened earlier."""
    opened = _place(error.context_mark)
    if "end of stream" in said and "quoted" in str(error.context):
        return Problem(*opened, (), "the quote that opens here is never closed")
    if said.startswith("expected ',' or "):
        if "stream end" in said:
            return Problem(*opened, (), "the bracket that opens here is never closed")
        closing = said[len("expected ',' or '")]
        where = f"the bracket opens at line {opened[0]}, column {opened[1]}"
        return Problem(line, column, (), f'"," or "{closing}" is missing here', where)
    return Problem(line, column, (), f"{_NOT_YAML}: {_short(said)}")


def _place(mark: Any) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _character(text: str, mark: Any) -> str:
    return text[mark.index : mark.index + 1]


def _short(said: str) -> str:
    """The parser's own words, on one line, printable and cut."""
    cut = " ".join(said.split())[: 2 * MAX_SHOWN]
    return "".join(char if char.isprintable() else "?" for char in cut)
