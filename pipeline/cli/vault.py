"""``init`` and ``vault check|admit``."""

from __future__ import annotations

import os
from functools import partial

import click

from pipeline.cli.access import reached
from pipeline.cli.confirming import typed
from pipeline.cli.console import PLACE, emit, json_option, run_async, say
from pipeline.cli.keyio import read_private, read_public, trust_pins, write_private, write_public
from stages.errors import NotFound, UsageError
from stages.vault.charter import Charter, Pin


@click.command()
@click.argument("url", metavar="VAULT", callback=reached)
@click.option("--key", "key_path", required=True, help="The operator's private key file.")
@click.option("--recipient", "recipients", multiple=True, help="Another person's .pub file.")
@click.option("--single-recipient", is_flag=True, help="Do without a second recipient.")
@click.option(
    "--state",
    "state_path",
    type=PLACE,
    default="./state",
    show_default=True,
    help="State folder of the daemon that will write; its key is admitted.",
)
@click.option(
    "--cipher",
    type=click.Choice(["aegis256", "xchacha20poly1305"]),
    default="aegis256",
    show_default=True,
)
@json_option
def init(
    url: str,
    key_path: str,
    recipients: tuple[str, ...],
    single_recipient: bool,
    state_path: str,
    cipher: str,
    as_json: bool,
) -> None:
    """Make a vault that only the holders of private keys can read.

    Two recipients are asked for, because a lost key is a lost vault. The vault is pinned in the
    key file and in the .pub file beside it; the latter is the 'trust' of configurations.
    """
    from pipeline.founding import found_vault, second_recipients
    from pipeline.placing import check_place
    from pipeline.state import StateFolder
    from stages.system import this_machine

    ports = this_machine()
    if not recipients and not single_recipient:
        recipients = (_second_recipient(url),)
    run_async(check_place, ports, url)  # before anybody types a passphrase
    private, passphrase = read_private(ports, key_path)
    others = second_recipients([read_public(ports, path) for path in recipients], private)
    public = key_path.removesuffix(".key") + ".pub"

    def remember(pin: Pin) -> None:
        pinned = private.pinned(pin)
        write_private(ports, key_path, pinned, passphrase)
        write_public(ports, public, pinned.public)

    state = StateFolder.open(ports, state_path)
    try:
        work = partial(
            found_vault, ports, url, private, others, state, cipher=cipher, remember=remember
        )
        charter = run_async(work)
    finally:
        state.close()
    _emit_made(as_json, url, charter, public)
    say("note: the state folder grows by about 6 GiB for each TiB of disk that is written to")
    if single_recipient:
        say("warning: one recipient: if this key is lost, so is everything in the vault")


def _second_recipient(url: str) -> str:
    """The path of a public key file, from whoever sits at the terminal."""
    if not os.isatty(0):
        raise UsageError(
            "a second recipient is needed",
            operation="init",
            subject=url,
            hint="--recipient OTHER.pub, or --single-recipient if one key is really enough",
        )
    return typed("Public key file of a second recipient")


def _emit_made(as_json: bool, url: str, charter: Charter, trust: str) -> None:
    emit(
        as_json,
        {
            "vault": charter.vault.hex(),
            "url": url,
            "recipients": [member.key.hex() for member in charter.recipients],
            "writer": charter.writers[0].key.hex(),
            "trust": trust,
        },
        f"vault {charter.vault.hex()} made at {url}\n"
        f"trust file for configurations: {trust}\n"
        "next: backstay run CONFIG, or with --once where disks are scanned",
    )


@click.group()
def vault() -> None:
    """Look after a vault."""


@vault.command()
@click.argument("url", metavar="VAULT", callback=reached)
@click.option("--key", "key_path", help="Private key file: checks pins and what can be opened.")
@click.option("--trust", "trust_path", help="Trust file (.pub) to check the vault against.")
@click.option("--config", "config_path", help="Configuration in which VAULT is a vault's name.")
@click.option("--read-only", is_flag=True, help="Do not try what the credential may do.")
@json_option
def check(
    url: str,
    key_path: str | None,
    trust_path: str | None,
    config_path: str | None,
    read_only: bool,
    as_json: bool,
) -> None:
    """Show a vault's charter and check it against a key or trust file.

    With a private key every group's log is looked at too. An object called "canary" is made,
    overwritten and deleted, to warn of a credential that may do more than a daemon needs: with
    --config that is the daemon's own.
    """
    from pipeline.founding import check_vault
    from stages.system import this_machine

    ports = this_machine()
    if config_path:
        url, trust_path = _configured(config_path, url, trust_path)
    if not key_path and not trust_path:
        raise UsageError(
            "nothing to check the vault against",
            operation="vault check",
            subject=url,
            hint="give --trust NAME.pub or --key NAME.key: a vault's own word proves nothing",
        )
    private = read_private(ports, key_path)[0] if key_path else None
    work = partial(
        check_vault, ports, url, private, trust_pins(ports, trust_path), read_only=read_only
    )
    report = run_async(work)
    emit(as_json, report.fields(), report.text())


@vault.command()
@click.argument("url", metavar="VAULT", callback=reached)
@click.option("--key", "key_path", required=True, help="The operator's private key file.")
@click.option("--writer", required=True, help="The daemon's public signing key, 64 hex digits.")
@click.option("--name", default="daemon", show_default=True)
@json_option
def admit(url: str, key_path: str, writer: str, name: str, as_json: bool) -> None:
    """Admit one more daemon's signing key to the vault."""
    from pipeline.founding import admit_writer
    from stages.system import this_machine

    ports = this_machine()
    try:
        public_key = bytes.fromhex(writer)
    except ValueError:
        public_key = b""
    if len(public_key) != 32:
        raise UsageError(
            "not a signing key: 64 hex digits are needed",
            operation="admit",
            subject=writer,
            hint="the run that was refused says which key it needs",
        )
    private, passphrase = read_private(ports, key_path)
    charter = run_async(admit_writer, ports, url, private, public_key, name)
    pinned = private.pinned(charter.pin())
    write_private(ports, key_path, pinned, passphrase)
    write_public(ports, key_path.removesuffix(".key") + ".pub", pinned.public)
    emit(
        as_json,
        {"vault": charter.vault.hex(), "generation": charter.generation, "writer": writer},
        f"admitted {name} ({writer[:16]}…); charter generation {charter.generation}",
    )


@vault.command("admit-keeper")
@click.argument("url", metavar="VAULT")
@click.option("--key", "key_path", required=True, help="The operator's private key file.")
@click.option("--keeper", "keeper_path", required=True, help="The keeper's .pub file.")
@json_option
def admit_keeper(url: str, key_path: str, keeper_path: str, as_json: bool) -> None:
    """Let another key run retention: it opens indexes, never content, and signs what stays.

    Give it again when a daemon that was running has begun a new term before it was restarted.
    """
    from pipeline.keeping import admit_keeper as admit
    from stages.system import this_machine

    ports = this_machine()
    keeper = read_public(ports, keeper_path)
    private, passphrase = read_private(ports, key_path)
    done = run_async(admit, ports, url, private, keeper)
    pinned = private.pinned(done.charter.pin())
    write_private(ports, key_path, pinned, passphrase)
    write_public(ports, key_path.removesuffix(".key") + ".pub", pinned.public)
    emit(
        as_json,
        {
            "vault": done.charter.vault.hex(),
            "generation": done.charter.generation,
            "keeper": keeper.recipient.hex(),
            "wrapped": done.wrapped,
            "problems": list(done.problems),
        },
        "\n".join(
            [
                (
                    f"keeper {keeper.name} admitted; charter generation {done.charter.generation}, "
                    f"{done.wrapped} keys wrapped for it"
                ),
                "restart the daemons that write to this vault: new terms are for the keeper too",
                *(f"problem: {problem}" for problem in done.problems),
            ]
        ),
    )


def _configured(config_path: str, name: str, trust: str | None) -> tuple[str, str]:
    """Address and trust file of a vault of a configuration. Raises ``NotFound``."""
    from pipeline.config import load
    from pipeline.config.problems import quote, suggest

    config = load(config_path)
    if name not in config.vaults:
        raise NotFound(
            f"no vault is called {quote(name)}",
            operation="vault check",
            subject=config_path,
            hint=suggest(name, config.vaults),
        )
    return config.vaults[name].address, trust or config.vaults[name].trust
