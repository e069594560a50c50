"""What someone is told who may not do it, or who names something that is no file."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest.mock import patch

import pytest

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
