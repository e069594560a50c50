"""What cannot be undone wants the machine's name: typed, or given with ``--confirm``."""

from __future__ import annotations

import os
from collections.abc import Collection

import click

from stages.errors import UsageError


def confirmed(
    operation: str,
    machine: str,
    given: str | None,
    *,
    hint: str,
    also: Collection[str] = (),
    nothing: str = "nothing is done",
) -> str:
    """The name that was typed or ``given``: the machine's, or one of ``also``. Raises
    ``UsageError``, with ``hint`` and ``nothing`` (what did not happen)."""
    if given is None:
        if not os.isatty(0):
            raise UsageError(
                "has to be confirmed, and there is no terminal to ask on",
                operation=operation,
                subject=machine,
                hint=hint,
            )
        given = str(
            click.prompt(f"Type the machine's name ({machine}) to go on", default="", err=True)
        )
    if given != machine and given not in also:
        raise UsageError(
            f"not confirmed: {nothing}", operation=operation, subject=machine, hint=hint
        )
    return given
