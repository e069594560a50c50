"""Line and column: each text marks with « where its problem must be told to stand."""

from __future__ import annotations

import pytest

from tests.config.support import HEAD, TAIL, lines_of

DISKS = "    disks:\n      root: {path: ./disk.img, capture: scan}\n"
CASES = {
    "value of a key": HEAD + "machines:\n  web1:\n    vault: «nope\n" + DISKS,
    "quoted value": HEAD + "machines:\n  web1:\n    vault:   «'nope'\n" + DISKS,
    "value on the next line": HEAD + "machines:\n  web1:\n    vault:\n      «nope\n" + DISKS,
    "block text": HEAD + "machines:\n  web1:\n    vault: «|-\n      nope\n" + DISKS,
    "anchored value": HEAD + "machines:\n  web1:\n    vault: «&v nope\n" + DISKS,
    "key in a block": HEAD + "machines:\n  web1:\n    vault: standby\n    «size: 3\n" + DISKS,
    "key in brackets": HEAD.replace("state}", "state, «x: 1}") + TAIL,
    "quoted key": HEAD.replace("state}", "state, «'x': 1}") + TAIL,
    "explicit key": HEAD + TAIL + "? «colour\n: red\n",
    "key of the document": HEAD + "«colour: red\n" + TAIL,
    "missing in a machine": HEAD + "machines:\n  «web1:\n" + DISKS,
    "missing in brackets": HEAD + "machines: {«web1: {vault: standby}}\n",
    "missing deep inside": HEAD + TAIL.replace("root: {path: ./disk.img, ", "«root: {"),
    "missing in an optional section": HEAD + TAIL.replace("scan}", "scan, «snapshot: {pre: ./a}}"),
    "missing section": "# comment\n\n«" + HEAD,
    "missing in an alias": HEAD
    + "machines:\n  a: {disks: {a: &d {path: a, capture: scan}}, vault: standby}\n"
    + "  «b: {disks: {b: {path: b, capture: scan}}}\n",
    "list instead of mapping": HEAD + "machines:\n  web1:\n    «- vault: standby\n",
    "list in brackets": HEAD + "machines:\n  web1: «[vault]\n",
    "list at the key's column": HEAD + "machines:\n«- web1\n",
    "mapping instead of text": HEAD
    + "machines:\n  web1:\n    vault:\n      «url: standby\n"
    + DISKS,
    "mapping in brackets instead of text": HEAD
    + "machines:\n  web1:\n    vault: «{url: standby}\n"
    + DISKS,
    "list instead of text": HEAD + "machines:\n  web1:\n    vault:\n    «- standby\n" + DISKS,
    "text instead of mapping": HEAD + "machines:\n  web1: «standby\n",
    "empty instead of mapping": HEAD + "machines:\n  «web1:\n",
    "empty instead of text": HEAD + "machines:\n  web1:\n    «vault:   # to be filled\n" + DISKS,
    "explicit null": HEAD + "machines:\n  web1:\n    «vault: null\n" + DISKS,
    "empty text": HEAD + 'machines:\n  web1:\n    vault: «""\n' + DISKS,
    "no entries": HEAD + "machines: «{}\n",
    "name": HEAD + "machines:\n  «Web1:\n    vault: standby\n" + DISKS,
    "quoted name": HEAD + 'machines:\n  «"web 1":\n    vault: standby\n' + DISKS,
    "duplicate": HEAD + TAIL + "    «vault: standby\n",
    "duplicate in brackets": HEAD.replace("state}", "state, «state: ./b}") + TAIL,
    "number": HEAD + "pipelines: {default: {compress: {level: «20}}}\n" + TAIL,
    "size": HEAD + "pipelines:\n  default:\n    capture:\n      batch: «1 GiB\n" + TAIL,
    "alias of a wrong kind": HEAD.replace("./backstay.pub", "&p ./backstay.pub")
    + "machines:\n  web1:\n    vault: standby\n    disks: «*p\n",
    "value inside an alias": HEAD
    + "pipelines:\n  default: &p {compress: {level: «0}}\n  other: *p\n"
    + TAIL,
    "disk named twice": HEAD + TAIL + "      data: {capture: scan, path: «disk.img}\n",
    "tag": HEAD + TAIL.replace("vault: ", "vault: «!x "),
    "after wide characters": HEAD
    + 'pipelines: {"größer": {}, ünten: {}}\n'.replace('"g', '«"g', 1)
    + TAIL,
    "windows line ends": (HEAD + "machines:\n  web1:\n    vault: «nope\n" + DISKS).replace(
        "\n", "\r\n"
    ),
    "byte order mark": "\ufeff«colour: red\n" + HEAD + TAIL,
    "byte order mark on the line": "\ufeffdaemon: {state: ./state, «x: 1}\n"
    + HEAD.split("\n", 1)[1]
    + TAIL,
    "control character": HEAD + TAIL.replace("standby", "stand«\x08by"),
    "tab": HEAD + "machines:\n«\tweb1: {}\n",
    "second document": HEAD + TAIL + "«---\n{}\n",
    "depth": "a: " + "[" * 31 + "«" + "[" * 3,
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_problem_stands_at_the_mark(name: str) -> None:
    marked = CASES[name]
    at = marked.index("«")
    before = marked[:at].removeprefix("\ufeff")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    told = lines_of(marked[:at] + marked[at + 1 :])
    assert told, "no problem was told"
    assert told[0].startswith(f"c.yaml:{line}:{column}: "), told


def test_bytes_that_are_not_utf8_are_placed_in_characters() -> None:
    assert lines_of(b"a: \xc3\xa4\nb: \xc3\xa4 \xff")[0].startswith("c.yaml:2:6: byte 0xff ")
    assert lines_of(b"\xef\xbb\xbfa: \xff")[0].startswith("c.yaml:1:4: byte 0xff ")
    assert lines_of("a: b".encode("utf-16"))[0].startswith("c.yaml:1:1: byte 0xff ")


def test_a_misspelt_required_key_is_told_once() -> None:
    told = lines_of(HEAD + TAIL.replace("vault:", "valut:"))
    assert told == [
        'c.yaml:6:5: machines.web1.valut: this key is not known here; did you mean "vault"?'
    ]


def test_paths_of_odd_keys_are_quoted_and_cut() -> None:
    told = lines_of(HEAD + TAIL + '"a\\nb": 1\n' + "k" * 200 + ": 1\n")
    assert told[0].startswith('c.yaml:9:1: "a\\x0ab": this key')
    assert told[1].startswith(f'c.yaml:10:1: "{"k" * 40}…": this key')


def test_problems_beyond_twenty_are_counted() -> None:
    told = lines_of(HEAD + TAIL + "".join(f"x{number}: 1\n" for number in range(23)))
    assert len(told) == 21
    assert told[-1] == "c.yaml: and 3 more"
