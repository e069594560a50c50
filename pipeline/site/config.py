"""The configuration of a site: which folders are served where, and which clients may do what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo

from pipeline.config import Log, Section
from pipeline.config.addresses import api_address
from pipeline.config.fields import (
    AS_DICT,
    PRESENT,
    READ_ONLY,
    FilePath,
    Name,
    Place,
    choice,
    duration,
    optional,
    size,
    text,
    whole,
)
from pipeline.config.loader import load_as
from pipeline.config.problems import Problem, base_name, quote
from pipeline.config.tree import Node
from pipeline.config.units import MIB, Wrong
from stages.errors import ConfigError

ROLES = ("reader", "replication", "operator")  # each may do what those before it may
MAX_VAULTS = 256
MAX_CLIENTS = 4096
MAX_REPLICAS = 256

_HEX = re.compile(r"[0-9a-f]{64}")


def _listen(value: object, info: ValidationInfo) -> str:
    place = info.context
    found = api_address(value, place.folder if isinstance(place, Place) else ".")
    if found.startswith("unix:"):
        raise Wrong("a site is for other machines", "write 0.0.0.0:8443")
    return found


def _fingerprint(value: object, _: ValidationInfo) -> str:
    given = text(value)
    found = given.lower().removeprefix("sha256:").replace(":", "")
    if _HEX.fullmatch(found) is None:
        raise Wrong(
            f"{quote(given)} is not the SHA-256 of a certificate",
            "64 hex digits, as 'openssl x509 -noout -fingerprint -sha256 -in FILE' says them",
        )
    return found


def _common_name(value: object, _: ValidationInfo) -> str:
    return text(value)


class SiteTls(Section):
    """PEM files. ``client_ca``: who signs the certificates of clients; none is let in without."""

    cert: FilePath = Field(examples=["/etc/backstay/site.crt"])
    key: FilePath = Field(examples=["/etc/backstay/site.key"])
    client_ca: FilePath = Field(examples=["/etc/backstay/ca.crt"])


class Server(Section):
    """Where it listens, and what it bears. ``max_object`` bounds one object, ``memory`` what of
    objects is held while they arrive."""

    listen: Annotated[str, PlainValidator(_listen)] = Field(examples=["0.0.0.0:8443"])
    tls: SiteTls = Field(examples=["{cert: ./site.crt, key: ./site.key, client_ca: ./ca.crt}"])
    log: Log = Log()
    connections: Annotated[int, whole(1, 10_000)] = 256
    max_object: Annotated[int, size(MIB, 1 << 30)] = 128 * MIB
    memory: Annotated[int, size(MIB, 1 << 40)] = 256 * MIB

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def _room(server: Server) -> Server:
    if server.memory < server.max_object:
        raise Wrong('"memory" must have room for one object of "max_object"')
    return server


class SiteVault(Section):
    """A folder with a vault in it."""

    path: FilePath = Field(examples=["/srv/backstay/standby"])


class Replica(Section):
    """Disk files here that follow a machine of a vault, opened with a key of their own.

    ``path``: the folder of the files. ``key``: a private key without passphrase, of one of the
    vault's recipients; never the operator's. ``trust``: which vault is the right one. ``every``:
    seconds between two looks. ``limit``: bytes of all its disks together, at most.
    """

    vault: Annotated[str, PlainValidator(text)] = Field(examples=["standby"])
    path: FilePath = Field(examples=["/srv/backstay/replicas/web1"])
    key: FilePath = Field(examples=["/etc/backstay/replica.key"])
    trust: FilePath = Field(examples=["/etc/backstay/backstay.pub"])
    every: Annotated[float, duration(0.1, 86_400)] = 5.0
    limit: Annotated[int | None, size(MIB, 1 << 60), PRESENT] = None


def _places(replicas: Mapping[str, Replica]) -> Mapping[str, Replica]:
    """Each has a folder of its own."""
    for name, one in replicas.items():
        for other, two in replicas.items():
            if name < other and _within(one.path, two.path):
                raise Wrong(f"{quote(name)} and {quote(other)} have the same folder")
    return replicas


def _within(one: str, two: str) -> bool:
    return f"{one}/".startswith(f"{two}/") or f"{two}/".startswith(f"{one}/")


class Client(Section):
    """Who shows a certificate with this common name, or exactly this certificate."""

    name: Annotated[str | None, optional(_common_name)] = None
    fingerprint: Annotated[str | None, optional(_fingerprint)] = None
    role: Annotated[Literal["reader", "replication", "operator"], choice(*ROLES)] = Field(
        examples=["replication"]
    )
    vaults: Annotated[
        tuple[Annotated[str, PlainValidator(text)], ...], Field(min_length=1, max_length=MAX_VAULTS)
    ] = Field(examples=["[standby]"])


def _known(client: Client) -> Client:
    if client.name is None and client.fingerprint is None:
        raise Wrong("how it is known is not said", 'add "name" (the common name) or "fingerprint"')
    return client


def _apart(clients: Mapping[str, Client]) -> Mapping[str, Client]:
    """Each certificate is one client."""
    first: dict[tuple[str | None, str | None], str] = {}
    for name, client in clients.items():
        other = first.setdefault((client.name, client.fingerprint), name)
        if other != name:
            raise Wrong(f"{quote(other)} and {quote(name)} are known by the same certificate")
    return clients


class SiteConfig(Section):
    """A whole configuration of a site."""

    site: Annotated[Server, AfterValidator(_room)]
    vaults: Annotated[
        Mapping[Name, SiteVault], Field(min_length=1, max_length=MAX_VAULTS), READ_ONLY, AS_DICT
    ]
    clients: Annotated[
        Mapping[Name, Annotated[Client, AfterValidator(_known)]],
        Field(min_length=1, max_length=MAX_CLIENTS),
        AfterValidator(_apart),
        READ_ONLY,
        AS_DICT,
    ]
    replicas: Annotated[
        Mapping[Name, Replica],
        Field(default_factory=dict, max_length=MAX_REPLICAS, validate_default=True),
        AfterValidator(_places),
        READ_ONLY,
        AS_DICT,
    ]


def _vault_problems(root: Node) -> Iterator[Problem]:
    """Clients and replicas of vaults that are not there, replicas inside of vaults."""
    sections = root.entries()
    vaults = sections["vaults"].value.entries() if "vaults" in sections else {}
    known = frozenset(vaults)
    replicas = sections["replicas"].value.entries() if "replicas" in sections else {}
    for name, replica in replicas.items():
        entry = replica.value.entries().get("vault")
        word = entry.value.content if entry is not None else None
        if entry is not None and known and isinstance(word, str) and word and word not in known:
            message, at = f"there is no vault {quote(word)}", entry.value
            of = ("replicas", name, "vault")
            yield Problem(at.line, at.column, of, message, word=word, known=known)
    clients = sections["clients"].value.entries() if "clients" in sections else {}
    for name, client in clients.items():
        entry = client.value.entries().get("vaults")
        named = entry.value.content if entry is not None else None
        for number, item in enumerate(named if isinstance(named, tuple) else ()):
            word = item.content
            if known and isinstance(word, str) and word and word not in known:
                path = ("clients", name, "vaults", number)
                message = f"there is no vault {quote(word)}"
                yield Problem(item.line, item.column, path, message, word=word, known=known)


def load_site(path: str) -> SiteConfig:
    """Read and check the configuration of a site. ``ConfigError`` as ``pipeline.config.load``."""
    needs = "a configuration needs site, vaults and clients"
    config = load_as(path, SiteConfig, needs, _vault_problems)
    for name, replica in config.replicas.items():
        for other, vault in config.vaults.items():
            if _within(replica.path, vault.path):
                raise ConfigError(
                    f"{base_name(path)}: replicas.{name}.path: shares the folder of vault {other}",
                    operation="config",
                    subject=path,
                    hint="give the replica a folder beside it",
                )
    return config
