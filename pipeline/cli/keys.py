"""``keygen`` and ``key drill``."""

from __future__ import annotations

import os

import click

from pipeline.cli.access import vault_option
from pipeline.cli.console import PLACE, emit, json_option, run_async, say
from pipeline.cli.keyio import (
    PASSPHRASE_VARIABLE,
    ask,
    read_private,
    trust_pins,
    write_private,
    write_public,
)
from stages.errors import BackstayError, UsageError


@click.command()
@click.option(
    "--out", type=PLACE, required=True, help="Path without ending: OUT.key and OUT.pub are made."
)
@click.option("--name", default="operator", show_default=True, help="Whose key this is.")
@click.option("--no-passphrase", is_flag=True, help="Leave the private key open: for drills only.")
@json_option
def keygen(out: str, name: str, no_passphrase: bool, as_json: bool) -> None:
    """Make an operator's key pair.

    OUT.key, sealed with a passphrase, is the only thing that can read a vault: keep copies of it
    in at least two places away from the protected machines. OUT.pub may be handed out.
    """
    from stages.system import this_machine
    from stages.vault.keyfile import generate

    ports = this_machine()
    private, public = f"{out}.key", f"{out}.pub"
    for path in (private, public):
        if ports.files.stat(path) is not None:
            raise UsageError(
                "exists already", operation="keygen", subject=path, hint="choose another --out"
            )
    passphrase = None
    if not no_passphrase:
        passphrase = os.environ.get(PASSPHRASE_VARIABLE) or ask("New passphrase", confirm=True)
    key = generate(name, ports.entropy)
    try:
        write_private(ports, private, key, passphrase)
        write_public(ports, public, key.public)
    except BackstayError:
        ports.files.unlink(private)
        raise
    if no_passphrase:
        say(f"warning: {private} is not sealed: whoever has it reads every vault made for it")
    emit(
        as_json,
        {"private": private, "public": public, "recipient": key.box.public.hex()},
        f"{private}  private key: keep it away from the protected machines, twice\n"
        f"{public}  public key and, after 'backstay init', the trust file of configurations",
    )


@click.group()
def key() -> None:
    """Work with keys."""


@key.command()
@vault_option
@click.option("--key", "key_path", required=True, help="Private key file.")
@click.option("--trust", "trust_path", help="Trust file, if the key does not know the vault.")
@click.option(
    "--state", "state_path", type=PLACE, help="State folder to note the drill in, for 'status'."
)
@json_option
def drill(
    url: str, key_path: str, trust_path: str | None, state_path: str | None, as_json: bool
) -> None:
    """Prove that this key and passphrase open the vault: read some of every machine's newest point.

    Do it on a schedule: a key that was never tried is a hope, not a key.
    """
    from pipeline.drilling import drill_vault
    from pipeline.state import StateFolder
    from stages.system import this_machine

    ports = this_machine()
    private, _ = read_private(ports, key_path)
    pins = trust_pins(ports, trust_path)
    found = run_async(drill_vault, ports, url, private, pins)
    if state_path:
        folder = StateFolder.open(ports, state_path, lock=False)
        folder.note("drill", {"at": ports.clock.wall_us(), "machines": list(found.points)})
    lines = [f"{name}: point #{seq} opens" for name, seq in found.points.items()]
    lines = lines or ["the key opens the vault; nothing was shipped to it yet"]
    lines += [f"note: {note}" for note in found.notes]
    emit(as_json, {"drilled": found.points, "notes": list(found.notes)}, "\n".join(lines))
