"""From a URL to a store."""

from __future__ import annotations

from stages.errors import UsageError
from stages.ports import Machine
from stages.store.address import CLOUDS, MAX_URL, OPTIONS, BadAddress
from stages.store.file import FileStore
from stages.store.memory import MemoryStore
from stages.store.port import ObjectStore

FORMS = (
    "file:/absolute/dir, file:./relative/dir, file:///absolute/dir, s3://bucket/prefix, "
    "az://container/prefix, gs://bucket/prefix, site://host:port/vault, memory:"
)


def open_store(url: str, machine: Machine, base: str = ".") -> ObjectStore:
    """Return the store of ``url``; nothing is read, made or connected yet.

    Relative paths are taken from ``base``: the directory of the config file, or the working
    directory. Paths are literal, ``%`` escapes nothing. Each ``memory:`` is a store of its own.
    Stores behind a network take options, ``?endpoint=https://host&ca=./ca.pem``: see
    ``stages.store.address``. ``UsageError`` for anything else.
    """
    if url == "memory:":
        return MemoryStore(url, clock=machine.clock)
    scheme, _, path = url.partition(":")
    if scheme == "file":
        return FileStore(_directory(url, path, base), machine)
    if scheme in OPTIONS and path.startswith("//"):
        return _behind_network(url, scheme, machine, base)
    raise _refused(url, "not a store")


def is_priced(url: str) -> bool:
    """True where every put costs money."""
    return url.partition(":")[0] in CLOUDS


async def create_store(url: str, machine: Machine, base: str = ".") -> ObjectStore:
    """Like ``open_store``, and make the store's directory if it has one and it is missing.

    Buckets and containers are made by people, with the rules and rights that they need.
    """
    store = open_store(url, machine, base)
    if isinstance(store, FileStore):
        await store.create_root()
    return store


def _behind_network(url: str, scheme: str, machine: Machine, base: str) -> ObjectStore:
    """Libraries that other stores do not need are imported here."""
    try:
        if scheme == "site":
            from stages.store.site.address import parse_site
            from stages.store.site.store import SiteStore

            return SiteStore(parse_site(url, base), machine)
        from stages.store.cloud.settings import Settings

        settings = Settings.of(url, base)
    except BadAddress as error:
        about = f"{error.option}: " if error.option else ""
        raise UsageError(
            f"{about}{error.message}",
            operation="open the store",
            subject=url.partition("?")[0].rpartition("@")[2][:MAX_URL],  # no secret is repeated
            hint=error.hint or f"accepted: {FORMS}",
        ) from None
    from stages.store.cloud.store import CloudStore

    return CloudStore(url, settings, machine)


def _directory(url: str, path: str, base: str) -> str:
    if not path.isprintable():
        raise _refused(url, "a path with control characters")
    if path.startswith("///"):
        path = path[2:]
    elif path.startswith("//"):
        raise _refused(url, "a file store is on this machine: no host can be given")
    if path.startswith(("./", "../")):
        path = f"{base.rstrip('/')}/{path.removeprefix('./')}"
    elif path and not path.startswith("/"):
        raise _refused(url, f"write file:./{path} if it is relative")
    if not path.strip("/"):
        raise _refused(url, "a store has a directory of its own")
    return path.rstrip("/")


def _refused(url: str, reason: str) -> UsageError:
    return UsageError(reason, operation="open the store", subject=url, hint=f"accepted: {FORMS}")
