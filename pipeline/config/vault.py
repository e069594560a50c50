"""The section ``vaults``: where to ship to, which vault it must be, and how it is reached."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PlainValidator, ValidationInfo

from pipeline.config.addresses import VaultUrl
from pipeline.config.fields import PRESENT, FilePath, Place, folder_of, resolve, text
from pipeline.config.limit import Limit
from pipeline.config.problems import show
from pipeline.config.section import Section
from pipeline.config.units import Wrong, format_duration, parse_duration
from stages.store.address import BadAddress, check_option, check_plain, compose, scheme_of

_PATHS = frozenset({"ca", "cert", "key", "credentials"})


def _option(name: str) -> PlainValidator:
    """An option of a store, as it stands in an address; None where no file is read."""

    def check(value: object, info: ValidationInfo) -> str | None:
        if value is None and not isinstance(info.context, Place):
            return None
        given = _as_text(name, value, info)
        url = info.data.get("url")
        if url is None:
            return given  # what is wrong with it is told already
        try:
            check_option(scheme_of(url), name, given)
            if name == "endpoint":
                check_plain(given, info.data.get("plain_http") == "true")
        except BadAddress as error:
            raise Wrong(error.message, error.hint) from None
        return given

    return PlainValidator(check)


def _as_text(name: str, value: object, info: ValidationInfo) -> str:
    if name in _PATHS:
        return resolve(value, folder_of(info))
    if name == "timeout":
        return format_duration(parse_duration(value))
    if name == "plain_http":
        if isinstance(value, bool) or value in ("true", "false"):
            return str(value).lower()
        raise Wrong(f"must be true or false, not {show(value)}")
    return text(value)


class Vault(Section):
    """A place to ship to, and the pin that says which vault it must be (R15).

    The rest is for vaults behind a network. Paths are absolute, ``timeout`` and ``plain_http`` as
    they are written.
    """

    url: VaultUrl = Field(examples=["file:./vault"])  # "file:" and an absolute path
    trust: FilePath = Field(examples=["./backstay.pub"])
    limit: Annotated[Limit | None, PRESENT] = None
    plain_http: Annotated[str | None, _option("plain_http")] = None  # before "endpoint"
    endpoint: Annotated[str | None, _option("endpoint")] = None
    region: Annotated[str | None, _option("region")] = None
    account: Annotated[str | None, _option("account")] = None
    ca: Annotated[str | None, _option("ca")] = None
    proxy: Annotated[str | None, _option("proxy")] = None
    credentials: Annotated[str | None, _option("credentials")] = None
    cert: Annotated[str | None, _option("cert")] = None
    key: Annotated[str | None, _option("key")] = None
    timeout: Annotated[str | None, _option("timeout")] = None

    @property
    def address(self) -> str:
        """The URL with all that is needed to reach it: what commands take as ``--vault``."""
        said = {name: getattr(self, name) for name in type(self).model_fields}
        apart = ("url", "trust", "limit")
        return compose(
            self.url, {name: value for name, value in said.items() if value and name not in apart}
        )

    @property
    def path(self) -> str:
        """The folder of a file vault."""
        return self.url.removeprefix("file:")
