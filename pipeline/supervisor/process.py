"""The supervisor's process: the supervisor itself, and once it is ready the API in front of it."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config.model import Config
from pipeline.daemon.child import Tell
from pipeline.state import StateFolder
from pipeline.supervisor.face import serve_face
from pipeline.supervisor.notify import Notifier
from pipeline.supervisor.service import Service
from pipeline.supervisor.supervisor import Supervisor
from stages.ports import Machine
from stages.stage import crew


async def run_daemon(
    ports: Machine,
    config: Config,
    state: StateFolder,
    tell: Tell,
    *,
    drain: float,
    vouched: Sequence[str] = (),
    notifier: Notifier | None = None,
) -> None:
    """See ``Supervisor``; with its API."""
    supervisor = Supervisor(ports, config, state, tell, drain, vouched, notifier=notifier)
    control = Service(supervisor)

    async def face() -> None:
        await supervisor.until_ready()
        await serve_face(control, lambda: supervisor.config, supervisor.audited, tell, ports.clock)

    async with crew() as nursery:
        nursery.start_soon(face)
        await supervisor.run()
        nursery.cancel_scope.cancel()
