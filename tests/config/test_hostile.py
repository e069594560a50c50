"""Whatever a file holds, it loads or raises ``ConfigError``, and never takes long."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.config.tree import MAX_VALUES, parse
from stages.errors import ConfigError
from tests.config.support import GOOD, HEAD, TAIL, lines_of, read

WORDS = (
    "daemon state vaults url trust policies default pipelines capture workers batch cache"
    " seal_bytes compress level frame encrypt cipher ship in_flight inline machines web1 policy"
    " pipeline vault disks root path snapshot pre post timeout listen rpo"
)
KEYS = WORDS.split()
VALUES = ["auto", "16MiB", "60s", "file:./vault", "scan", "nbd", "./x", "standby", "~", "5", "1.5"]
MARKS = [
    ":", ": ", "\n", "\n  ", "\n    ", "- ", "? ", "{", "}", "[", "]", ", ", "#", "&a ", "*a",
    "!!str ", "!x ", "|\n", ">-\n", "'", '"', "\\", "\\u12", "\\UFFFFFFFF", "---\n", "...\n",
    "%YAML 1.1\n", "%TAG ! x\n", "<<", "\t", "\r", "\x85", "\u2028", "\ufeff", "\0", "\x07", "@",
    "`", "%", "=", "~", "null", "true", "0o17", "0x", ".inf", "é", "\U0001f600",
]  # fmt: skip
PIECES = st.sampled_from([*MARKS, *MARKS, *KEYS, *VALUES])
TUNED = next(path for path in GOOD if path.name == "tuned.yaml").read_text()


def _survives(text: str | bytes) -> None:
    try:
        assert isinstance(read(text), Config)
    except ConfigError as error:
        lines = error.message.split("\n")
        assert 1 <= len(lines) <= 21
        assert all(line.startswith("c.yaml:") and line.isprintable() for line in lines), lines


@settings(deadline=None, max_examples=150)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_pieces_of_yaml(text: str) -> None:
    _survives(text)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_noise(text: str | bytes) -> None:
    if isinstance(text, str):
        text = text.encode(errors="surrogatepass")
    _survives(text)


LEAVES = st.sampled_from(VALUES) | st.none() | st.booleans() | st.integers() | st.text(max_size=5)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=25,
)


@settings(deadline=None, max_examples=150)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "daemon": TREES,
            "vaults": st.dictionaries(st.sampled_from(["standby", "Bad"]), TREES, max_size=2),
            "policies": TREES,
            "pipelines": st.dictionaries(st.sampled_from(["default", "a"]), TREES, max_size=2),
            "machines": st.dictionaries(st.sampled_from(["web1", ""]), TREES, max_size=2),
        },
    )
)
def test_trees_of_the_wrong_shape(tree: object) -> None:
    _survives(json.dumps(tree))


@settings(deadline=None, max_examples=100)
@given(st.integers(0, len(TUNED)), st.integers(0, 60), st.lists(PIECES, max_size=4).map("".join))
def test_damaged_samples(start: int, length: int, piece: str) -> None:
    _survives(TUNED[:start] + piece + TUNED[start + length :])


def test_a_valid_tree_as_json_is_a_configuration() -> None:
    root, problems = parse(HEAD + TAIL)
    assert root is not None
    assert not problems
    assert not lines_of(json.dumps(root.plain()))


@pytest.mark.parametrize("text", ['"\\U00110000"', '"\\UFFFFFFFF"', "%YAML 1.5\n---\na"])
def test_what_makes_the_parser_stumble(text: str) -> None:
    (told,) = lines_of(text)
    assert told == "c.yaml:1:1: what follows is not valid YAML"


def test_aliases_cannot_multiply() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)
    )
    (told,) = lines_of(bomb)
    assert told.endswith(f"more than {MAX_VALUES} values, counting what aliases repeat")


def test_values_are_limited() -> None:
    (told,) = lines_of("a: [" + "1," * MAX_VALUES + "]")
    assert "more than 100000 values" in told


def test_depth_is_limited_in_every_style() -> None:
    for text in ("[" * 5000, "{a: " * 5000, "- " * 5000, "? " * 5000, "[{a: " * 5000):
        (told,) = lines_of(text)
        assert told.endswith("nested deeper than 32 levels"), text[:10]


def test_a_large_scalar_is_cut_in_the_message() -> None:
    (told,) = lines_of("x" * 100_000)
    assert len(told) < 200
    (told,) = lines_of(HEAD + TAIL.replace("standby", "v" * 100_000))
    assert len(told) < 200
    (told,) = lines_of(HEAD + "pipelines: {a: {compress: {level: " + "9" * 100_000 + "}}}\n" + TAIL)
    assert len(told) < 200
