"""Credentials from a file, in the form that each cloud's own tools use.

S3: an AWS credentials file, of which ``[default]`` counts (or the profile of ``AWS_PROFILE``).
Azure: lines ``NAME=VALUE`` with the names of the environment (``AZURE_STORAGE_ACCOUNT_KEY``,
``AZURE_STORAGE_SAS_TOKEN``, ``AZURE_CLIENT_ID`` …), or one connection string. Google: the JSON of a
service account. No value of a file ever gets into a message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from stages.errors import StoreDenied
from stages.ports import Files

MAX_FILE = 64 << 10
MAX_LINES = 1000

S3_KEYS: Mapping[str, str] = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "token",
}
AZURE_KEYS: Mapping[str, str] = {
    "azure_storage_account_name": "account_name",
    "azure_storage_account_key": "account_key",
    "azure_storage_access_key": "account_key",
    "azure_storage_sas_token": "sas_token",
    "azure_storage_sas_key": "sas_token",
    "azure_client_id": "client_id",
    "azure_client_secret": "client_secret",
    "azure_tenant_id": "tenant_id",
    "azure_federated_token_file": "federated_token_file",
    "accountname": "account_name",  # of a connection string
    "accountkey": "account_key",
    "sharedaccesssignature": "sas_token",
}


def read_s3(files: Files, path: str, profile: str) -> dict[str, str]:
    """``access_key_id``, ``secret_access_key`` and perhaps ``token``. Raises ``StoreDenied``."""
    found = _pairs(_read(files, path), S3_KEYS, profile)
    if not {"access_key_id", "secret_access_key"} <= set(found):
        raise _refused(
            path,
            f"has no key of profile {profile[:40]}",
            "it needs [default] and, below it, aws_access_key_id and aws_secret_access_key",
        )
    return found


def read_azure(files: Files, path: str) -> dict[str, str]:
    """Some of the values of ``AZURE_KEYS``. Raises ``StoreDenied``."""
    text = _read(files, path)
    if "accountname=" in text.lower().partition("\n")[0] and ";" in text.partition("\n")[0]:
        text = text.replace(";", "\n")
    found = _pairs(text, AZURE_KEYS, "")
    if not {"account_key", "sas_token", "client_id"} & set(found):
        raise _refused(
            path,
            "has no credential",
            "lines NAME=VALUE with AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, or "
            "AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID; or a connection string",
        )
    return found


def check_google(files: Files, path: str) -> str:
    """The path, if there is a service account's or user's JSON. Raises ``StoreDenied``."""
    try:
        fields = json.loads(_read(files, path))
        kind = fields.get("type") if isinstance(fields, dict) else None
    except ValueError:
        kind = None
    if kind not in ("service_account", "authorized_user"):
        raise _refused(path, "is not the JSON of a service account", "create a key of one")
    return path


def _pairs(text: str, known: Mapping[str, str], section: str) -> dict[str, str]:
    """Values by what they are to the store; of a file with sections, those of ``section``."""
    found: dict[str, str] = {}
    within = True
    for line in text.splitlines()[:MAX_LINES]:
        bare = line.strip().removeprefix("export ")
        if bare.startswith("["):
            name = bare.strip("[] ").removeprefix("profile ")
            within = not section or name == section
            continue
        name, given, value = bare.partition("=")
        if within and given and (key := known.get(name.strip().lower())):
            found[key] = value.strip().strip("\"'")
    return found


def _read(files: Files, path: str) -> str:
    try:
        return files.read(path, MAX_FILE).decode()
    except UnicodeDecodeError:
        raise _refused(path, "is not text", "") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise _refused(
            path, f"cannot be read: {reason}", "the user that runs this must be able to read it"
        ) from None


def _refused(path: str, reason: str, hint: str) -> StoreDenied:
    return StoreDenied(reason, operation="credentials", subject=path, hint=hint)
