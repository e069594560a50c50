"""How a second site is reached: keys of ``vaults`` that go with ``site://`` only."""

from __future__ import annotations

from pydantic import PlainValidator, ValidationInfo

from pipeline.config.fields import Place, folder_of, resolve
from pipeline.config.units import Wrong, format_duration, parse_duration
from stages.store.site.address import BadSite, check_option


def site_option(name: str) -> PlainValidator:
    """An option as it stands in the address of a site; None where no file is read."""

    def check(value: object, info: ValidationInfo) -> str | None:
        if value is None and not isinstance(info.context, Place):
            return None
        is_path = name != "timeout"
        given = (
            resolve(value, folder_of(info)) if is_path else format_duration(parse_duration(value))
        )
        url = info.data.get("url")
        if url is not None and not url.startswith("site:"):
            raise Wrong(f'"{name}" goes with a vault at site:// only', "remove it")
        try:
            check_option(name, given)
        except BadSite as error:
            raise Wrong(error.message, error.hint) from None
        return given

    return PlainValidator(check)
