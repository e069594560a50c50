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
    Daemon,
    Disk,
    Encrypt,
    Machine,
    Pipeline,
    Policy,
    Section,
    Ship,
    Snapshot,
    Vault,
)
from pipeline.config.units import (
    Wrong,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

__all__ = [
    "Cache",
    "Capture",
    "Compress",
    "Config",
    "Daemon",
    "Disk",
    "Encrypt",
    "Machine",
    "Pipeline",
    "Policy",
    "Section",
    "Ship",
    "Snapshot",
    "Vault",
    "Wrong",
    "format_duration",
    "format_size",
    "load",
    "parse_duration",
    "parse_size",
]
