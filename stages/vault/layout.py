"""The names of all objects in a vault. Numbers are zero-padded: byte order is their order."""

from __future__ import annotations

VAULT = "vault.json"
GROUPS = "groups/"


def charter(generation: int) -> str:
    """Recipients and writers, from the second generation on; the first is ``vault.json``."""
    return f"charters/{generation:08d}"


def group(gid: bytes) -> str:
    """The folder of one group, with its slash."""
    return f"groups/{gid.hex()}/"


def group_record(gid: bytes) -> str:
    """When and as what the group began."""
    return f"{group(gid)}group"


def digest_key(gid: bytes, recipient: bytes) -> str:
    """The group's digest key, wrapped for one recipient."""
    return f"{group(gid)}for/{recipient.hex()}/digest"


def machine(gid: bytes, number: int) -> str:
    """A sealed machine record."""
    return f"{group(gid)}machine/{number:08d}"


def term(gid: bytes, epoch: int) -> str:
    """A writer's term."""
    return f"{group(gid)}epochs/{epoch:08d}/term"


def wrapped_key(gid: bytes, epoch: int, recipient: bytes, use: str) -> str:
    """An epoch's key, ``use`` "data" or "index", wrapped for one recipient."""
    return f"{group(gid)}epochs/{epoch:08d}/for/{recipient.hex()}/{use}"


def data(gid: bytes, epoch: int, number: int) -> str:
    """A data object: frames one after the other."""
    return f"{group(gid)}data/{epoch:08d}/{number:012d}"


def log_prefix(gid: bytes) -> str:
    """All commits."""
    return f"{group(gid)}log/"


def data_prefix(gid: bytes) -> str:
    """All data objects."""
    return f"{group(gid)}data/"


def rollups_prefix(gid: bytes) -> str:
    """All rollups."""
    return f"{group(gid)}rollups/"


def checkpoints_prefix(gid: bytes) -> str:
    """All checkpoints."""
    return f"{group(gid)}checkpoints/"


def commit(gid: bytes, seq: int) -> str:
    """A commit."""
    return f"{log_prefix(gid)}{seq:015d}"


def rollup(gid: bytes, seq: int) -> str:
    """Headers and bodies of the 256 commits that end with ``seq``."""
    return f"{group(gid)}rollups/{seq:015d}"


def checkpoint_part(gid: bytes, seq: int, part: int) -> str:
    """Pages of a checkpoint; ``part`` is epoch << 16 | a running number."""
    return f"{group(gid)}checkpoints/{seq:015d}/{part >> 16:08d}-{part & 0xFFFF:05d}"


def manifest(gid: bytes, seq: int) -> str:
    """A checkpoint's manifest: it exists once all its parts do."""
    return f"{group(gid)}checkpoints/{seq:015d}/manifest"


def deleted(gid: bytes) -> str:
    """All of the group is to go, or has gone. Its name is the first of the group's: who lists
    groups sees it at once."""
    return f"{group(gid)}_deleted"


def floor(gid: bytes, number: int) -> str:
    """A floor: what of the log is offered from then on, and what went."""
    return f"{group(gid)}floors/{number:08d}"


def holds_prefix(gid: bytes) -> str:
    """All holds."""
    return f"{group(gid)}holds/"


def hold(gid: bytes, seq: int) -> str:
    """Keeps the point ``seq`` whatever its age."""
    return f"{holds_prefix(gid)}{seq:015d}"


def leases_prefix(gid: bytes) -> str:
    """All leases."""
    return f"{group(gid)}leases/"


def lease(gid: bytes, seq: int, ident: bytes) -> str:
    """Keeps the point ``seq`` for a while; ``ident`` are 16 random bytes."""
    return f"{leases_prefix(gid)}{seq:015d}-{ident.hex()}"


def packs_prefix(gid: bytes) -> str:
    """All packs."""
    return f"{group(gid)}packs/"


def pack(gid: bytes, number: int) -> str:
    """Frames that were moved together."""
    return f"{packs_prefix(gid)}{number:012d}"


def failover(gid: bytes, number: int) -> str:
    """A failover record: what became of the machine, signed by the operator."""
    return f"{group(gid)}failovers/{number:08d}"
