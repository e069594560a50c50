"""What an address of a cloud store says: ``s3://bucket/prefix``, ``az://container/prefix``,
``gs://bucket/prefix``, and options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from stages.store.address import BadAddress, parse, resolved, seconds

TIMEOUT = 30.0  # seconds without progress that are taken for an answer that never comes
MAX_PREFIX = 400  # bytes: with the longest key and a slash still below what all clouds allow

_SEGMENT = re.compile(r"[A-Za-z0-9._=-]{1,255}")
_BUCKETS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "s3": (re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"), "bucket"),
    "az": (re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]|\$root"), "container"),
    "gs": (re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"), "bucket"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """``prefix`` has no slash at its ends; paths are as written or from ``base``; ``timeout`` in
    seconds. What is "" was not said."""

    scheme: str
    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    account: str = ""
    ca: str = ""
    proxy: str = ""
    credentials: str = ""
    timeout: float = TIMEOUT

    @property
    def holder(self) -> str:
        """What this cloud calls a bucket."""
        return _BUCKETS[self.scheme][1]

    @property
    def plain(self) -> bool:
        """Without TLS."""
        return self.endpoint.startswith("http:")

    @staticmethod
    def of(url: str, base: str = ".") -> Settings:
        """From a URL; relative paths start from ``base``. Raises ``BadAddress``."""
        address = parse(url)
        bucket, prefix = split_place(address.scheme, address.place)
        said = address.options
        return Settings(
            scheme=address.scheme,
            bucket=bucket,
            prefix=prefix,
            endpoint=said.get("endpoint", "").rstrip("/"),
            region=said.get("region", ""),
            account=said.get("account", ""),
            ca=resolved(said.get("ca", ""), base),
            proxy=said.get("proxy", ""),
            credentials=resolved(said.get("credentials", ""), base),
            timeout=seconds(said["timeout"]) if "timeout" in said else TIMEOUT,
        )


def split_place(scheme: str, place: str) -> tuple[str, str]:
    """Bucket and prefix of what stands behind ``SCHEME://``. Raises ``BadAddress``."""
    bucket, _, prefix = place.partition("/")
    rule, holder = _BUCKETS[scheme]
    if "@" in bucket:
        raise BadAddress(
            "credentials do not stand in a URL", "give credentials: FILE, or the environment"
        )
    if rule.fullmatch(bucket) is None:
        raise BadAddress(
            f'"{bucket[:80]}" is not the name of a {holder}' if bucket else f"names no {holder}",
            f"write {scheme}://{holder.upper()}/PREFIX",
        )
    prefix = prefix.removesuffix("/")
    segments = prefix.split("/") if prefix else []
    good = all(_SEGMENT.fullmatch(part) and part not in (".", "..") for part in segments)
    if not good or len(prefix) > MAX_PREFIX:
        raise BadAddress(
            f'"{prefix[:80]}" cannot be the prefix of a vault',
            f'words of A-Z, a-z, 0-9, ".", "_", "=" and "-", joined by "/"; {MAX_PREFIX} at most',
        )
    return bucket, prefix
