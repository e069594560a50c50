"""``seal_after: auto``: a second where puts are free, fifteen where each has its price."""

from __future__ import annotations

import pytest

from pipeline.assembly import seal_seconds
from tests.config.support import TAIL, read


@pytest.mark.parametrize(
    ("url", "seconds"),
    [
        ("file:./vault", 1),
        ("site://replica7:8443/standby", 1),
        ("s3://bucket/prefix", 15),
        ("az://container/prefix", 15),
        ("gs://bucket/prefix", 15),
    ],
)
@pytest.mark.parametrize("given", ["", "auto", "4s"])
def test_auto(url: str, seconds: int, given: str) -> None:
    vault = f'vaults: {{standby: {{url: "{url}", trust: ./backstay.pub}}}}\n'
    cache = f"pipelines: {{default: {{cache: {{seal_after: {given}}}}}}}\n" if given else ""
    config = read("daemon: {state: ./state}\n" + vault + cache + TAIL)
    found = seal_seconds(config, config.machines["web1"])
    assert found == (4 if given == "4s" else seconds)
