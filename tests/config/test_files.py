"""The file itself: missing, a folder, unreadable, too large, empty."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pipeline.config import load
from pipeline.config.loader import MAX_BYTES
from stages.errors import ConfigError
from tests.config.support import HEAD, TAIL, OneFile, lines_of


def _told(path: str, files: OneFile | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, files=files)
    assert caught.value.subject == path
    assert caught.value.operation == "config"
    assert caught.value.exit_code == 3
    return caught.value.message


def test_missing(tmp_path: Path) -> None:
    assert _told(str(tmp_path / "c.yaml")) == "c.yaml: no such file"
    assert _told(str(tmp_path / "no" / "c.yaml")) == "c.yaml: no such file"
    assert _told("c\0.yaml") == '"c\\x00.yaml": no such file'
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nowhere")
    assert _told(str(tmp_path / "dangling.yaml")) == "dangling.yaml: no such file"


def test_not_a_file(tmp_path: Path) -> None:
    assert _told(str(tmp_path)) == f"{tmp_path.name}: is a folder"
    assert _told("/dev/null") == "null: is not a file"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_unreadable(code: int) -> None:
    error = OSError(code, "Computer says no")
    assert _told("x/c.yaml", OneFile(error=error)) == "c.yaml: cannot be read: Computer says no"


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").symlink_to(tmp_path / "c.yaml")
    assert _told(str(tmp_path / "c.yaml")).startswith("c.yaml: cannot be read: ")


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    assert _told(str(path)) == "c.yaml: larger than 4 MiB"


def test_empty() -> None:
    expected = "c.yaml:1:1: the file is empty; a configuration needs daemon, vaults and machines"
    for text in ("", "\n\n", "# nothing\n", "---\n", "\ufeff", "~\n"):
        assert lines_of(text) == [expected]


def test_line_ends_and_byte_order_mark_do_not_matter() -> None:
    text = HEAD + TAIL
    assert not lines_of(text)
    assert not lines_of(text.replace("\n", "\r\n"))
    assert not lines_of("\ufeff" + text)
    assert not lines_of("%YAML 1.2\n---\n" + text + "...\n")
