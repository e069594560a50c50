"""What all sections of a configuration share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from pipeline.config.fields import NOT_YET


def later_keys(*keys: str) -> Mapping[str, str]:
    """Keys of the documented schema that this version refuses."""
    return MappingProxyType(dict.fromkeys(keys, NOT_YET))


class Section(BaseModel):
    """A mapping with fixed keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    later: ClassVar[Mapping[str, str]] = later_keys()
