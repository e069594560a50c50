"""Secrets, from where the configuration says they are. They are never shown.

They are read anew at every use, so that one can be replaced without a restart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from pipeline.config.service import Secret
from stages.errors import ConfigError
from stages.ports import Files

MAX_SECRET = 16 << 10  # bytes


def read_secret(secret: Secret, files: Files, environment: Mapping[str, str] = os.environ) -> str:
    """The secret, without white space around it. Blocks. Raises ``ConfigError``, which names the
    place and never the content."""
    if secret.environment is not None:
        found = environment.get(secret.environment, "").strip()
        place = f"environment variable {secret.environment}"
        if not found:
            raise _unusable("is not set", place)
    else:
        place = secret.file or ""
        try:
            found = files.read(place, MAX_SECRET).decode("ascii").strip()
        except OSError as error:
            raise _unusable(f"cannot be read: {error.strerror or error}", place) from None
        except ValueError:
            raise _unusable("is not ASCII text", place) from None
        if not found:
            raise _unusable("is empty", place)
    if not found.isascii() or not found.isprintable():
        raise _unusable("has characters that no secret has", place)
    return found


def _unusable(why: str, place: str) -> ConfigError:
    return ConfigError(
        f"the secret {why}",
        operation="read secret",
        subject=place,
        hint="put the secret there, one line, readable for the user that runs the daemon",
    )
