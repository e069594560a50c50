"""Bars are for terminals only."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.progress import progress_bar
from tests.cli.support import KEYS, ROOT, Shipped


def test_no_terminal_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as watch:
        watch("work", 10)(5)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal_and_the_document_beside_it(shipped: Shipped, tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pipeline.cli.main", "restore", "web1", *KEYS, "--json"),
            *("--to", str(tmp_path / "x")),
        ],
        cwd=shipped.root,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"},
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    seen = b""
    while chunk := _read(screen):
        seen += chunk
    os.close(screen)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out.startswith(b"{")
    assert f"restore web1 #{shipped.points[1]}".encode() in seen
    assert b"MiB" in seen


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so when the other side of a terminal is closed
        return b""
