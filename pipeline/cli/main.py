"""``backstay``: the root command. Command modules are imported only when they are called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from pipeline.cli.console import (
    ending_is_interruption,
    fail,
    first_failure,
    interrupted,
    refused_by_system,
    unheard,
)
from pipeline.cli.streams import steady
from pipeline.daemon.collecting import begin_lean
from stages.errors import EXIT_CODES, BackstayError, UsageError

_COMMANDS = {
    "demo": ("demo", "Protect, destroy and recover a real disk image, start to end."),
    "keygen": ("keys", "Make an operator's key pair."),
    "key": ("keys", "Work with keys: drill."),
    "init": ("vault", "Make a vault."),
    "vault": ("vault", "Check a vault, admit a writer or a keeper."),
    "run": ("run", "Protect the machines of a configuration."),
    "mark": ("live", "Make a recovery point of a machine that is captured live, now."),
    "status": ("status", "Show what is protected and how fresh it is."),
    "machines": ("status", "List the machines that the daemon protects."),
    "events": ("jobs", "Show what happened, and what happens."),
    "job": ("jobs", "Work with jobs: list, show, cancel, restart, resume."),
    "records": ("records", "Look after the control database: verify, rebuild."),
    "protect": ("operate", "Begin to protect a machine."),
    "unprotect": ("operate", "Protect a machine no longer."),
    "suspend": ("operate", "Stop shipping a machine."),
    "resume": ("operate", "Ship a suspended machine again."),
    "resync": ("operate", "Compare a machine with its vault, now."),
    "retry": ("operate", "Try again now to ship a machine."),
    "reprotect": ("operate", "Protect what runs at the other side after a failover."),
    "failback": ("operate", "Bring a machine back after a failover."),
    "migrate": ("operate", "Fail a machine over for good."),
    "points": ("recover", "List a machine's recovery points."),
    "verify": ("recover", "Prove that a point can be restored."),
    "restore": ("restore", "Bring a machine's disks back."),
    "export": ("export", "Serve a point's disks over NBD at once."),
    "keeper": ("keep", "Let old points go: run, plan."),
    "hold": ("holds", "Keep a point whatever its age."),
    "release": ("holds", "Give a held point to retention again."),
    "holds": ("holds", "List held points."),
    "failover": ("failover", "Fail a machine over, test it, commit, cancel, serve the replica."),
    "rescue": ("recover", "Show what a vault holds and the next command to give."),
    "site": ("site", "Keep vaults of other machines: a second site, over HTTPS."),
    "bench": ("bench", "Measure beside other programs on this machine."),
}


class _Lazy(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"pipeline.cli.{_COMMANDS[cmd_name][0]}")
        command = getattr(module, cmd_name)
        return command if isinstance(command, click.Command) else None

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the command line; ``--help`` prints here."""
        with _unheard_is_interruption():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Carry it out."""
        with _unheard_is_interruption():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in EXIT_CODES.items()])


@contextmanager
def _unheard_is_interruption() -> Iterator[None]:
    """That nobody reads the output any more is no defect: click would make it exit code 1."""
    try:
        yield
    except BrokenPipeError:
        sys.exit(unheard())


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="backstay", prog_name="backstay")
def backstay() -> None:
    """Open disaster recovery: every disk in an encrypted vault, any point of it back."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    steady()
    begin_lean()  # before the command's imports, which leave nothing to collect
    argv = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in argv
    with ending_is_interruption():
        try:
            code = backstay.main(argv, prog_name="backstay", standalone_mode=False)
            sys.stdout.flush()
        except click.ClickException as error:
            sys.exit(_misunderstood(error, as_json))
        except (click.Abort, KeyboardInterrupt):
            sys.exit(interrupted(as_json))
        except BrokenPipeError:
            sys.exit(unheard())
        except (BackstayError, BaseExceptionGroup, OSError) as raised:
            if (known := _failed(raised, as_json)) is None:
                raise
            sys.exit(known)
    sys.exit(code if isinstance(code, int) else 0)


def _misunderstood(error: click.ClickException, as_json: bool) -> int:
    """Report a command line that click refuses."""
    if as_json:
        hint = "'backstay COMMAND --help' shows what is"
        return fail(UsageError(error.format_message(), hint=hint), as_json)
    error.show()
    return UsageError.exit_code


def _failed(raised: BaseException, as_json: bool) -> int | None:
    """Report what ended a command. None: it is not ours but a defect, and keeps its traceback."""
    failure = first_failure(raised)
    if isinstance(failure, KeyboardInterrupt):
        return interrupted(as_json)
    if isinstance(failure, BrokenPipeError):
        return unheard()
    if isinstance(failure, OSError):
        return fail(refused_by_system(failure), as_json)
    return fail(failure, as_json) if isinstance(failure, BackstayError) else None


if __name__ == "__main__":
    main()
