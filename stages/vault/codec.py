"""msgpack at the edge of trust: sizes bounded before anything is allocated, every field checked."""

from __future__ import annotations

from typing import Any, TypeVar

import msgpack
import numpy as np
import numpy.typing as npt

from stages.errors import DamagedObject

T = TypeVar("T")
_Scalar = TypeVar("_Scalar", bound=np.generic)


def pack(fields: dict[str, Any]) -> bytes:
    """Encode a map of plain values; the bytes are what is signed, so order is the caller's."""
    return bytes(msgpack.packb(fields, use_bin_type=True))


class Fields:
    """A decoded map whose fields are taken by type; anything off is damage of ``subject``."""

    def __init__(self, fields: dict[str, Any], subject: str):
        self._fields = fields
        self.subject = subject

    @staticmethod
    def decode(data: bytes, subject: str) -> Fields:
        """Decode; ``unpackb`` lets no container claim more entries than its bytes could hold.

        Raises ``DamagedObject``, here as in all methods.
        """
        try:
            fields = msgpack.unpackb(data, raw=False, strict_map_key=True, use_list=True)
        except (ValueError, RecursionError, msgpack.UnpackException) as error:
            raise DamagedObject(f"not decodable: {error}", subject=subject) from None
        if not isinstance(fields, dict):
            raise DamagedObject("not a map", subject=subject)
        return Fields(fields, subject)

    def _take(self, name: str, kind: type[T]) -> T:
        value = self._fields.get(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise DamagedObject(f"field {name!r} is missing or malformed", subject=self.subject)
        return value

    def number(self, name: str, most: int = (1 << 63) - 1) -> int:
        """An integer from 0 to ``most``."""
        value = self._take(name, int)
        if not 0 <= value <= most:
            raise DamagedObject(f"field {name!r} is out of range", subject=self.subject)
        return value

    def flag(self, name: str) -> bool:
        """A boolean."""
        return self._take(name, bool)

    def text(self, name: str, most: int = 4096) -> str:
        """A string of at most ``most`` characters."""
        value = self._take(name, str)
        if len(value) > most:
            raise DamagedObject(f"field {name!r} is too long", subject=self.subject)
        return value

    def raw(self, name: str, size: int | None = None) -> bytes:
        """Bytes, of ``size`` if it is given."""
        value = self._take(name, bytes)
        if size is not None and len(value) != size:
            raise DamagedObject(f"field {name!r} has another length", subject=self.subject)
        return value

    def array(self, name: str, dtype: npt.DTypeLike, columns: int = 0) -> npt.NDArray[Any]:
        """A little-endian array over the bytes of a field, (n,) or (n, columns)."""
        value = self._take(name, bytes)
        width = np.dtype(dtype).itemsize * max(1, columns)
        if len(value) % width:
            raise DamagedObject(f"field {name!r} has another length", subject=self.subject)
        array = np.frombuffer(value, dtype)
        return array.reshape(-1, columns) if columns else array

    def maps(self, name: str, most: int) -> list[Fields]:
        """A list of at most ``most`` maps."""
        values = self._take(name, list)
        if len(values) > most or not all(isinstance(value, dict) for value in values):
            raise DamagedObject(f"field {name!r} is malformed", subject=self.subject)
        return [Fields(value, self.subject) for value in values]

    def optional_map(self, name: str) -> Fields | None:
        """A map, or None where the field is nil."""
        value = self._fields.get(name)
        if value is None:
            return None
        return Fields(self._take(name, dict), self.subject)
