"""``site``: serve vaults of other machines; make the certificates for that."""

from __future__ import annotations

from functools import partial

import click

from pipeline.cli.console import emit, json_option, say
from pipeline.cli.replica import replica


class _Served(click.Group):
    """``backstay site CONFIG`` is ``backstay site serve CONFIG``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What is no command is the configuration."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Both forms."""
        formatter.write_usage(
            ctx.command_path, "CONFIG [OPTIONS]  |  certificates DIR [OPTIONS]  |  replica COMMAND"
        )


@click.group(cls=_Served)
def site() -> None:
    """Keep vaults of other machines: a second site, served over HTTPS.

    Clients are known by their certificates; those with the role "replication" can add objects and
    read them, and can neither overwrite nor delete any.
    """


@site.command()
@click.argument("config", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.option("--create", is_flag=True, help="Make the folders of vaults that are missing.")
@click.option(
    "--drain",
    default=30.0,
    type=click.FloatRange(min=0),
    help="Seconds for answers under way when it is stopped.",
    show_default=True,
)
@json_option
def serve(config: str, create: bool, drain: float, as_json: bool) -> None:
    """Serve the vaults of CONFIG until SIGTERM. SIGHUP reads it, and its certificates, again.

    With --json the address is printed once it listens.
    """
    import trio

    from pipeline.site.server import serve_site
    from pipeline.supervisor.notify import this_process
    from stages.system import this_machine

    # It has its own meaning for every signal, so not with run_async.
    def ready(address: str) -> None:
        if as_json:
            emit(True, {"address": address}, "")

    work = partial(serve_site, create=create, drain=drain, ready=ready)
    trio.run(work, config, this_machine(_WORKERS), this_process())


_WORKERS = 16  # threads that write and read objects


@site.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--host", "hosts", multiple=True, help="Name or address of the site (repeatable).")
@click.option(
    "--client", "clients", multiple=True, metavar="NAME", help="A client's name (repeatable)."
)
@click.option(
    "--days",
    default=825,
    type=click.IntRange(1, 3650),
    show_default=True,
    help="How long the certificates are good.",
)
@click.option("--renew", is_flag=True, help="Make those again that are there; never the CA.")
@json_option
def certificates(
    folder: str, hosts: tuple[str, ...], clients: tuple[str, ...], days: int, renew: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Make a CA in DIR, and certificates signed by it: site.crt for --host, NAME.crt for --client.

    ca.key signs all others: keep DIR where nobody else can read it. A client gets ca.crt, NAME.crt
    and NAME.key. What is there already is left alone.
    """
    from pipeline.site.certificates import make
    from stages.system import this_machine

    made = make(this_machine(), folder, hosts, clients, days, renew=renew)
    lines = [f"{'made' if each.made else 'kept'}  {each.path}  {each.what}" for each in made]
    emit(
        as_json,
        {
            "certificates": [
                {"path": each.path, "made": each.made, "fingerprint": each.fingerprint}
                for each in made
            ]
        },
        "\n".join(lines),
    )
    if not as_json:
        say(f"keep {folder}/ca.key secret: whoever has it can be any client")


site.add_command(replica)
