"""The configuration of a simulated machine: everything small."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.config.model import (
    Cache,
    Capture,
    Config,
    Daemon,
    Disk,
    Machine,
    Pipeline,
    Ship,
    Vault,
)
from tests.simulation.knobs import Knobs
from tests.whole.world import NAME, STATE


def configuration(knobs: Knobs, disks: Iterable[str]) -> Config:
    """One machine with these disks, captured live."""
    small = Pipeline.model_construct(
        capture=Capture.model_construct(workers=0),
        cache=Cache.model_construct(seal_bytes=128 << 10, seal_after=knobs.seal_after),
        ship=Ship.model_construct(in_flight=2, inline=16 << 10),
    )
    live = {
        name: Disk(path=f"/disks/{name}", listen=f"unix:/{name}", capture="nbd") for name in disks
    }
    config = Config(
        daemon=Daemon(state=STATE),
        vaults={"v": Vault(url="file:/vault", trust="/trust.pub")},
        machines={NAME: Machine(vault="v", disks=live)},
    )
    return config.model_copy(update={"pipelines": {"default": small}})
