"""What all sections of a configuration share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


def elsewhere(**keys: str) -> Mapping[str, str]:
    """Keys that somebody may look for here, with where it is that this is said."""
    return MappingProxyType(keys)


class Section(BaseModel):
    """A mapping with fixed keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    not_here: ClassVar[Mapping[str, str]] = elsewhere()
