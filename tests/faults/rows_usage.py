"""Configurations and command lines that are wrong: rows."""

from __future__ import annotations

from unittest.mock import patch

from tests.faults import tamper
from tests.faults.row import Row
from tests.faults.world import ACCESS, Said, World


def _config_missing(world: World) -> tuple[str, ...]:
    return ("run", "none.yaml", "--once")


def _config_wrong(world: World) -> tuple[str, ...]:
    text = world.path("c.yaml").read_text().replace("capture: scan", "captur: scan", 1)
    tamper.change(world, "c.yaml", text.replace("vault: standby", "vault: standbye", 1).encode())
    return ("run", "c.yaml", "--once")


def _config_no_yaml(world: World) -> tuple[str, ...]:
    tamper.change(world, "c.yaml", b"machines: [")
    return ("status", "c.yaml")


def _unknown_machine(world: World) -> tuple[str, ...]:
    return ("run", "c.yaml", "--once", "--machine", "web2")


def _no_once(world: World) -> tuple[str, ...]:
    return ("run", "c.yaml")


def _unknown_command(world: World) -> tuple[str, ...]:
    return ("destroy", "web1")


def _unknown_option(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS, "--to", "out", "--force")


def _no_vault_option(world: World) -> tuple[str, ...]:
    return ("restore", "web1", "--key", "op.key", "--to", "out")


def _no_target(world: World) -> tuple[str, ...]:
    return ("restore", "web1", *ACCESS)


def _json_error(world: World) -> tuple[str, ...]:
    return ("points", "web2", *ACCESS, "--json")


def _no_tools(world: World, argv: tuple[str, ...]) -> Said:
    with patch("shutil.which", return_value=None):
        return world.backstay(*argv)


def _demo(world: World) -> tuple[str, ...]:
    return ("demo",)


ROWS = (
    Row(
        "demonstration without e2fsprogs",
        _demo,
        15,
        sees="backstay: demo: mkfs.ext4: is not installed",
        hint="apt install e2fsprogs",
        act=_no_tools,
    ),
    Row(
        "configuration missing",
        _config_missing,
        3,
        sees="backstay: none.yaml: no such file",
        hint="configs/quickstart.yaml is one to start from",
    ),
    Row(
        "configuration with wrong keys",
        _config_wrong,
        3,
        sees=(
            'backstay: c.yaml:8:12: machines.web1.vault: there is no vault "standbye"; did '
            'you mean "standby"?\n'
            "c.yaml:10:32: machines.web1.disks.root.captur: this key is not known here; did "
            'you mean "capture"?'
        ),
    ),
    Row(
        "configuration is no YAML",
        _config_no_yaml,
        3,
        sees="backstay: c.yaml:1:12: the file ends in the middle; close what is open",
    ),
    Row(
        "machine not in the configuration",
        _unknown_machine,
        13,
        sees='backstay: config: {root}/c.yaml: no machine is called "web2"',
        hint='did you mean "web1"?',
    ),
    Row(
        "run without --once",
        _no_once,
        2,
        sees=(
            "backstay: run: {root}/c.yaml: all its disks are scanned at rest, none is captured live"
        ),
        hint='give --once, and run it on a schedule; or write "capture: nbd"',
    ),
    Row(
        "unknown command",
        _unknown_command,
        2,
        sees=(
            "Usage: backstay [OPTIONS] COMMAND [ARGS]...\n"
            "Try 'backstay --help' for help.\n"
            "\n"
            "Error: No such command 'destroy'."
        ),
    ),
    Row(
        "unknown option",
        _unknown_option,
        2,
        sees=(
            "Usage: backstay restore [OPTIONS] MACHINE\n"
            "Try 'backstay restore --help' for help.\n"
            "\n"
            "Error: No such option '--force'."
        ),
    ),
    Row(
        "option missing",
        _no_vault_option,
        2,
        sees=(
            "Usage: backstay restore [OPTIONS] MACHINE\n"
            "Try 'backstay restore --help' for help.\n"
            "\n"
            "Error: Missing option '--vault'."
        ),
    ),
    Row(
        "restore to nowhere",
        _no_target,
        2,
        sees="backstay: restore: where to?",
        hint="--to FOLDER, --device, or --onto",
    ),
    Row(
        "an error as JSON",
        _json_error,
        13,
        sees=(
            "{\n"
            ' "error": "NotFound",\n'
            ' "message": "no machine of this name in the vault",\n'
            ' "operation": "find machine",\n'
            ' "subject": "web2",\n'
            ' "hint": "machines in this vault: db1, web1",\n'
            ' "recoverable": false,\n'
            ' "exit_code": 13\n'
            "}"
        ),
    ),
)
