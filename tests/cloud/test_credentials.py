"""Credentials of clouds: wrong ones, of too little or too much power, files that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.servers.cloud import Cloud
from stages.errors import (
    StoreDenied,
)
from stages.store.canary import Powers, powers
from stages.store.open import open_store
from stages.store.port import Put
from tests.cloud.asking import MACHINE, all_five, no_secret_in, opened


@pytest.mark.parametrize("credentials", ["wrong", "stranger"])
async def test_wrong_credentials(s3: Cloud, credentials: str) -> None:
    for name, error in (await all_five(opened(s3, credentials=credentials))).items():
        assert type(error) is StoreDenied, name
        assert not error.recoverable
        assert error.exit_code == 4
        assert "access key" in error.hint
        no_secret_in(error, s3)


async def test_wrong_credentials_of_azure(azure: Cloud) -> None:
    for name, error in (await all_five(opened(azure, credentials="wrong"))).items():
        assert type(error) is StoreDenied, name
        assert "the account's key" in error.hint
        no_secret_in(error, azure)


async def test_a_credential_that_only_reads(s3: Cloud) -> None:
    await opened(s3, prefix="shared-read").put("k", [b"x"])
    reader = opened(s3, prefix="shared-read", credentials="reader")
    assert await reader.get("k") == b"x"
    assert [info.key for info in await reader.page("")] == ["k"]
    # What is there is there, whatever this credential may do.
    assert await reader.put("k", [b"y"]) is Put.EXISTS
    with pytest.raises(StoreDenied, match="AccessDenied"):
        await reader.put("other", [b"y"])
    assert await powers(reader) == Powers(create=False)


async def test_a_credential_that_may_do_too_much(cloud: Cloud) -> None:
    store = opened(cloud)
    assert await powers(store) == Powers(True, True, True)
    assert await store.page("") == []


async def test_credentials_of_the_environment(s3: Cloud, tmp_path: Path) -> None:
    """The default file, a profile of it, and a file that is renewed while the store is open."""
    text = (s3.folder / "writer").read_text()
    home = tmp_path / ".aws" / "credentials"
    home.parent.mkdir()
    home.write_text(text.replace("[default]", "[other]\nregion = x\n[mine]") + "[default]\n")
    url = s3.url(credentials="").replace(f"&credentials={s3.folder}/", "")
    alone = {"HOME": str(tmp_path)}
    mine = replace(MACHINE, environment=alone | {"AWS_PROFILE": "mine"})
    assert await open_store(url, mine).put("k", [b"x"]) is Put.CREATED
    with pytest.raises(StoreDenied, match="has no key of profile default"):
        await open_store(url, replace(MACHINE, environment=alone)).get("k")
    elsewhere = {"AWS_SHARED_CREDENTIALS_FILE": str(s3.folder / "writer")}
    assert await open_store(url, replace(MACHINE, environment=elsewhere)).get("k") == b"x"


@pytest.mark.parametrize("content", [None, b"", b"[default]\naws_access_key_id = x\n", b"\xff\xfe"])
async def test_a_credential_file_that_is_none(
    cloud: Cloud, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    there = replace(cloud, folder=tmp_path)
    for name, error in (await all_five(opened(there, credentials="file"))).items():
        assert type(error) is StoreDenied, name
        assert error.subject == str(path)
