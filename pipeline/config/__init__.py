"""The configuration: YAML to a validated, frozen model; every error with file, line and column.

Paths are relative to the folder of the configuration file. Nothing is expanded: no ``~``, no
``${VARIABLE}``. Sizes are ``256KiB``, ``16MiB``, ``1GiB`` (1024), ``500KB``, ``2MB`` (1000) or
plain bytes; durations ``100ms``, ``60s``, ``15m``, ``24h``, ``7d``. A key that this version does
not know or not implement is an error, never ignored. ``configs/`` has commented examples.
"""

from pipeline.config.loader import load
from pipeline.config.model import (
    Cache,
    Capture,
    Compress,
    Config,
    Disk,
    Encrypt,
    Machine,
    Pipeline,
    Ship,
    Snapshot,
    Vault,
)
from pipeline.config.policy import AppConsistent, Points, Policy, Rpo
from pipeline.config.section import Section
from pipeline.config.service import Alert, Api, Daemon, Log, Secret, Tls
from pipeline.config.units import (
    Wrong,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

__all__ = [
    "Alert",
    "Api",
    "AppConsistent",
    "Cache",
    "Capture",
    "Compress",
    "Config",
    "Daemon",
    "Disk",
    "Encrypt",
    "Log",
    "Machine",
    "Pipeline",
    "Points",
    "Policy",
    "Rpo",
    "Secret",
    "Section",
    "Ship",
    "Snapshot",
    "Tls",
    "Vault",
    "Wrong",
    "format_duration",
    "format_size",
    "load",
    "parse_duration",
    "parse_size",
]
