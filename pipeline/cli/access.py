"""``--vault``, ``--key``, ``--trust``: what every recovery command takes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.recovery import Access

_MOST_WORKERS = 8  # more would wait for the interpreter, not for cores
SITE_VARIABLE = "BACKSTAY_SITE_"  # and CA, CERT, KEY, TIMEOUT
_BESIDE = 4  # threads for what waits on disks and networks


def reached(_: click.Context, __: click.Parameter, url: str) -> str:
    """A vault's URL; what a site's leaves out is taken from the environment, if it is there."""
    if not url.startswith("site://"):
        return url
    from stages.store.address import OPTIONS, with_options

    names = {name: f"{SITE_VARIABLE}{name.upper()}" for name in OPTIONS["site"]}
    return with_options(url, {name: os.environ.get(each, "") for name, each in names.items()})


vault_option = click.option(
    "--vault", "url", required=True, callback=reached, help="URL of the vault."
)


def access_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the three options; the command gets them as ``url``, ``key``, ``trust``."""
    for option in (
        click.option("--trust", help="Trust file, if the key does not know the vault."),
        click.option("--key", required=True, help="Private key file."),
        vault_option,
    ):
        command = option(command)
    return command


def make_access(url: str, key: str, trust: str | None) -> Access:
    """Open the key and say how to reach the vault. Raises ``KeyFailure``."""
    from pipeline.cli.keyio import read_private, trust_pins
    from pipeline.recovery import Access
    from stages.system import this_machine

    workers = max(2, min(_MOST_WORKERS, os.cpu_count() or 1))
    ports = this_machine(workers + _BESIDE)
    private, _ = read_private(ports, key)
    return Access(ports, url, private, trust_pins(ports, trust), workers)
