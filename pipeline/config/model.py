"""What a valid configuration is: frozen models, one per section, with defaults and bounds.

Sizes are bytes, durations seconds, paths absolute; nothing is resolved later. A key that is not a
field is an error. ``not_here`` holds keys that somebody may look for in a section, and what to say
about each. ``policies``, ``vaults`` and ``daemon`` are modules of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr

from pipeline.config.addresses import Listen
from pipeline.config.fields import (
    AS_DICT,
    AS_DURATION,
    PRESENT,
    READ_ONLY,
    CaptureKind,
    FilePath,
    Name,
    Place,
    Text,
    choice,
    duration,
    one_size,
    or_auto,
    size,
    whole,
    with_default,
)
from pipeline.config.limit import Limit
from pipeline.config.policy import Policy
from pipeline.config.problems import quote, suggest
from pipeline.config.section import Section, elsewhere
from pipeline.config.service import Daemon
from pipeline.config.units import GIB, KIB, MIB, Wrong
from pipeline.config.vault import Vault
from stages.errors import NotFound

__all__ = [
    "Cache",
    "Capture",
    "Compress",
    "Config",
    "Daemon",
    "Disk",
    "Encrypt",
    "Limit",
    "Machine",
    "Pipeline",
    "Policy",
    "Section",
    "Ship",
    "Snapshot",
    "Vault",
]

MAX_MACHINES = 2000
MAX_DISKS = 64  # of one machine
MAX_NAMED = 256  # vaults, policies, pipelines


class Capture(Section):
    """Reading and hashing disks."""

    # Hashing holds the interpreter lock, so it is done by processes; 0: in the daemon itself.
    workers: Annotated[int | Literal["auto"], whole(0, 16, "auto")] = "auto"
    batch: Annotated[int, size(256 * KIB, 16 * MIB, multiple=64 * KIB)] = 4 * MIB
    dedup: Annotated[int, size(MIB, GIB, zero=True)] = 48 * MIB  # 24 bytes for each 4 KiB block


class Cache(Section):
    """Folding what was captured into segments; each becomes a commit."""

    seal_bytes: Annotated[int, size(MIB, 64 * MIB)] = 16 * MIB
    seal_after: Annotated[int | float | Literal["auto"], or_auto(duration(0.1, 3600))] = "auto"
    # Of what is not shipped yet; "auto" is a share of the state disk.
    journal_limit: Annotated[int | Literal["auto"], or_auto(size(64 * MIB, 1 << 50))] = "auto"
    when_full: Annotated[Literal["track", "throttle"], choice("track", "throttle")] = "track"


class Compress(Section):
    """zstd frames."""

    level: Annotated[int, whole(1, 19)] = 1
    frame: Annotated[int, one_size(256 * KIB)] = 256 * KIB
    workers: Annotated[int, whole(1, 16)] = 2


class Encrypt(Section):
    """Sealing frames."""

    not_here = elsewhere(cipher="is fixed by the vault and cannot be chosen here")

    workers: Annotated[int, whole(1, 16)] = 1


class Ship(Section):
    """Uploading."""

    in_flight: Annotated[int, whole(1, 64)] = 4
    inline: Annotated[int, size(4 * KIB, MIB, zero=True)] = 256 * KIB


class Pipeline(Section):
    """How the stages between disk and vault are tuned."""

    capture: Capture = Capture()
    cache: Cache = Cache()
    compress: Compress = Compress()
    encrypt: Encrypt = Encrypt()
    ship: Ship = Ship()


class Snapshot(Section):
    """Commands that freeze and thaw what is on a disk around a scan; ``timeout`` for each."""

    pre: FilePath = Field(examples=["/etc/backstay/freeze"])
    post: FilePath = Field(examples=["/etc/backstay/thaw"])
    timeout: Annotated[int | float, duration(1, 3600), AS_DURATION] = 60


class Disk(Section):
    """A disk image or block device."""

    path: FilePath = Field(examples=["./disk.img"])
    listen: Listen = None  # before "capture", which is checked against it
    capture: CaptureKind = Field(examples=["scan"])
    snapshot: Annotated[Snapshot | None, PRESENT] = None


def _one_kind(disks: Mapping[str, Disk]) -> Mapping[str, Disk]:
    """Disks that are scanned form a group of their own: a point is one moment of all its disks."""
    if len({disk.capture for disk in disks.values()}) > 1:
        raise Wrong(
            'has both "capture: nbd" and "capture: scan"',
            "make the scanned disks a machine of their own",
        )
    return disks


class Stop(Section):
    """A command that stops the guest for a planned failover. Exit code 0: it does not write any
    more; given again while the guest is down, it succeeds."""

    command: FilePath = Field(examples=["/etc/backstay/stop-web1"])
    timeout: Annotated[int | float, duration(1, 3600), AS_DURATION] = 300


class Machine(Section):
    """What is protected and recovered as one. ``stop``: how a planned failover stops its guest."""

    policy: Text = "default"
    pipeline: Text = "default"
    vault: Text = Field(examples=["standby"])
    stop: Annotated[Stop | None, PRESENT] = None
    disks: Annotated[
        Mapping[Name, Disk],
        Field(min_length=1, max_length=MAX_DISKS),
        AfterValidator(_one_kind),
        READ_ONLY,
        AS_DICT,
    ] = Field(examples=["{root: {path: ./disk.img, capture: scan}}"])

    @property
    def live(self) -> bool:
        """Its disks are written through this program, which captures every write."""
        return any(disk.capture == "nbd" for disk in self.disks.values())


class Config(Section):
    """A whole configuration. The sections are read-only mappings by name."""

    daemon: Daemon
    vaults: Annotated[
        Mapping[Name, Vault], Field(min_length=1, max_length=MAX_NAMED), READ_ONLY, AS_DICT
    ]
    policies: Annotated[
        Mapping[Name, Policy], Field(max_length=MAX_NAMED), with_default(Policy), AS_DICT
    ] = Field(default_factory=lambda: MappingProxyType({"default": Policy()}))
    pipelines: Annotated[
        Mapping[Name, Pipeline], Field(max_length=MAX_NAMED), with_default(Pipeline), AS_DICT
    ] = Field(default_factory=lambda: MappingProxyType({"default": Pipeline()}))
    machines: Annotated[
        Mapping[Name, Machine], Field(min_length=1, max_length=MAX_MACHINES), READ_ONLY, AS_DICT
    ]

    _source: str = PrivateAttr("")

    def model_post_init(self, context: Any) -> None:
        """Remember the file that this was read from."""
        if isinstance(context, Place):
            self._source = context.source

    @property
    def source(self) -> str:
        """Absolute path of the file that this was read from."""
        return self._source

    def machine(self, name: str) -> Machine:
        """The machine called ``name``; raises ``NotFound``."""
        if name not in self.machines:
            raise NotFound(
                f"no machine is called {quote(name)}",
                operation="config",
                subject=self.source,
                hint=suggest(name, self.machines),
            )
        return self.machines[name]

    def policy_of(self, machine: Machine) -> Policy:
        """The policy that ``machine`` names."""
        return self.policies[machine.policy]

    def pipeline_of(self, machine: Machine) -> Pipeline:
        """The pipeline that ``machine`` names."""
        return self.pipelines[machine.pipeline]

    def vault_of(self, machine: Machine) -> Vault:
        """The vault that ``machine`` names."""
        return self.vaults[machine.vault]
