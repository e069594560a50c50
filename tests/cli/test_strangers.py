"""What someone is told who may not do it, or who names something that is no file."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest.mock import patch

import pytest

from stages.errors import StoreDenied
from tests.cli.support import KEYS, Place, Shipped

OWNER = "as that user, or as root"
DAEMON = "as the user that runs the daemon, or as root"
INTAKE = "as the user that runs Backstay, or as root"


def _denied(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize(
    ("refused", "command", "code", "hint"),
    [
        ("stages.system.SystemFiles.read", ("rescue", *KEYS), 4, OWNER),
        ("pipeline.cli.client._UnixConnection.connect", ("machines",), 8, DAEMON),
        ("pipeline.daemon.link_client.connect", ("mark", "c.yaml", "web1"), 8, INTAKE),
    ],
)
def test_who_may_not_is_told_who_may(
    shipped: Shipped, refused: str, command: tuple[str, ...], code: int, hint: str
) -> None:
    with patch(refused, _denied):
        said = shipped.backstay(*command)
    assert (said.code, said.out) == (code, "")
    assert "Permission denied" in said.err
    assert "hint: " in said.err and said.err.rstrip().endswith(hint)


def test_a_pipe_for_a_configuration_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.yaml")
    said = Place(tmp_path).backstay("status", "c.yaml")
    assert (said.code, "is not a file" in said.err) == (3, True)


@pytest.mark.parametrize(
    "command",
    [
        ("restore", "web1", *KEYS, "--to", ""),
        ("export", "web1", *KEYS, "--listen", "unix:./e.sock", "--writable", ""),
        ("failover", "serve", "web1", *KEYS, "--listen", "unix:./e.sock", "--folder", ""),
        ("failover", "reprotect", "web1", *KEYS, "--state", ""),
        ("site", "replica", "promote", "site.yaml", "web1", "--to", ""),
        ("key", "drill", *KEYS, "--state", ""),
        ("init", "file:./new", "--key", "op.key", "--state", ""),
        ("keygen", "--out", ""),
    ],
    ids=" ".join,
)
def test_an_empty_path_is_none(shipped: Shipped, command: tuple[str, ...]) -> None:
    """It would be the root folder, where a variable was not set."""
    said = shipped.backstay(*command)
    assert (said.code, "is a variable not set?" in said.err) == (2, True), said


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (("restore", "web1", *KEYS, "--onto", "root=second-root.img"), "has to be confirmed"),
        (("failover", "unplanned", "web1", *KEYS, "--confirm", "no"), "state: not failed over"),
    ],
)
def test_what_a_program_is_refused_is_one_document(
    shipped: Shipped, command: tuple[str, ...], word: str
) -> None:
    said = shipped.backstay(*command, "--json")
    assert (said.code, said.out) == (2, "")
    assert word in said.error["message"]
    assert said.error["hint"]


def test_a_token_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff")
    said = Place(tmp_path).backstay("machines", "--token-file", "token")
    assert (said.code, "--token-file: token: the token cannot be read" in said.err) == (3, True)
    assert "hint: " in said.err


def test_a_failover_that_cannot_be_recorded_says_what_works_without(shipped: Shipped) -> None:
    denied = StoreDenied("Read-only file system", operation="put", hint="check the mount")
    with patch("stages.store.file.FileStore.put", side_effect=denied):
        said = shipped.backstay("failover", "unplanned", "web1", *KEYS, "--confirm", "web1")
    assert said.code == 4
    assert "hint: check the mount; meanwhile 'backstay export' and 'backstay restore'" in said.err
    assert shipped.json("failover", "status", "web1", *KEYS)["state"] == "not failed over"


def test_a_state_folder_that_is_something_else(shipped: Shipped) -> None:
    said = shipped.backstay("key", "drill", *KEYS, "--state", "first-root.img")
    assert (said.code, "Not a directory" in said.err) == (14, True)
    assert "something else is there" in said.err
