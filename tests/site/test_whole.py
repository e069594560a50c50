"""From a disk to a second site and back: by the commands that people give."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from pipeline.config import load
from pipeline.site.config import Replica, load_site
from stages.errors import ConfigError
from tests.config.support import SITE
from tests.site.serving import Served, command, served

_CONFIG = """daemon: {{state: ./state}}
vaults:
  standby: {{url: "{url}", trust: ./op.pub, ca: ./ca.crt, cert: ./web1.crt, key: ./web1.key}}
machines:
  web1:
    vault: standby
    disks:
      root: {{path: ./disk.img, capture: scan}}
"""


def _give(
    place: Path, *words: str, code: int = 0, also: Mapping[str, str] = MappingProxyType({})
) -> Any:
    done = subprocess.run(
        [*command(*words), "--json"],
        cwd=place, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), **also},
    )  # fmt: skip
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return json.loads(done.stderr if code else done.stdout)


def test_there_and_back(tmp_path: Path, site_process: Served) -> None:
    there, here, bare = (tmp_path / name for name in ("site", "source", "bare"))
    for folder in (there, here, bare):
        folder.mkdir()
    shutil.copytree(site_process.place / "certs", there / "certs")
    for name in ("ca.crt", "web1.crt", "web1.key"):
        shutil.copy(there / "certs" / name, here)
    disk = bytearray(random.Random(1).randbytes(6 << 20))
    (here / "disk.img").write_bytes(disk)
    variables = {"BACKSTAY_SITE_CA": "ca.crt", "BACKSTAY_SITE_CERT": "web1.crt",
                 "BACKSTAY_SITE_KEY": "web1.key"}  # fmt: skip
    with served(there) as site:
        url = f"site://localhost:{site.port}/standby"
        _give(here, "keygen", "--out", "op", "--no-passphrase")
        init = ("init", url, "--key", "op.key", "--single-recipient")
        assert _give(here, *init, code=4)["error"] == "StoreDenied"  # nobody said who it is
        _give(here, *init, also=variables)
        (here / "c.yaml").write_text(_CONFIG.format(url=url))
        _give(here, "run", "c.yaml", "--once")
        site.kill()
        disk[1 << 20 : 2 << 20] = bytes(1 << 20)
        (here / "disk.img").write_bytes(disk)
        failed = _give_away(here)
        assert failed["recoverable"], failed
        site.start()
        (second,) = _give(here, "run", "c.yaml", "--once")["machines"]
        assert second["consistent"]
        _give(here, "vault", "check", url, "--key", "op.key", also=variables)
        for name in (*variables.values(), "op.key"):
            shutil.copy(here / name, bare)
        shutil.rmtree(here)  # the primary is gone
        where = ("--vault", url, "--key", "op.key")
        assert _give(bare, "rescue", *where, also=variables)["machines"][0]["machine"] == "web1"
        _give(bare, "restore", "web1", *where, "--to", "out", also=variables)
        assert (bare / "out/web1-root.img").read_bytes() == disk
    # At the site itself the vault is a folder, and nothing needs to run.
    _give(bare, "restore", "web1", "--vault", f"file:{site.vault}", "--key", "op.key", "--to", "in")
    assert (bare / "in/web1-root.img").read_bytes() == disk


def _give_away(place: Path) -> Any:
    """``run --once`` while the site is away."""
    done = subprocess.run(
        [*command("run", "c.yaml", "--once"), "--json"],
        cwd=place, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 8, (done.stdout, done.stderr)
    return json.loads(done.stdout)["machines"][0]


def test_the_samples() -> None:
    config = load_site(str(SITE))
    assert {name: each.role for name, each in config.clients.items()} == {
        "web1": "replication", "keeper": "operator",
    }  # fmt: skip
    assert config.site.address == ("0.0.0.0", 8443)
    assert set(config.replicas) == {"web1"}
    assert config.replicas["web1"].model_fields_set == set(Replica.model_fields)
    assert (config.replicas["web1"].every, config.replicas["web1"].limit) == (5.0, 2 << 40)
    vault = load(str(SITE.parent / "second-site.yaml")).vaults["standby"]
    assert vault.address == (
        "site://site.example.com:8443/standby"
        "?ca=/etc/backstay/ca.crt&cert=/etc/backstay/web1.crt&key=/etc/backstay/web1.key&timeout=30s"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[standby]", "[standbi]", 'there is no vault "standbi"; did you mean "standby"?'),
        ("role: operator", "role: king", "clients.keeper.role: must be "),
        ("name: web1, ", "", "clients.web1: how it is known is not said"),
        ("0.0.0.0:8443", "unix:./x", "site.listen: a site is for other machines"),
        ("max_object: 128MiB", "max_object: 512MiB", '"memory" must have room'),
        ("5A:1C", "5A", "is not the SHA-256 of a certificate"),
        ("connections:", "conections:", 'did you mean "connections"?'),
        ("vault: standby", "vault: standbi", 'replicas.web1.vault: there is no vault "standbi"'),
        (
            "/replicas/web1",
            "/standby/web1",
            "replicas.web1.path: shares the folder of vault standby",
        ),
        ("key: /etc/backstay/replica.key", "kee: x", 'did you mean "key"?'),
        ("limit: 2TiB", "limit: 1KiB", "replicas.web1.limit: must be "),
    ],
)
def test_wrong_configurations(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = SITE.read_text()
    assert old in text
    (tmp_path / "site.yaml").write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_site(str(tmp_path / "site.yaml"))
    assert said in caught.value.message
    assert caught.value.message.startswith("site.yaml:")


def test_two_replicas_in_one_folder(tmp_path: Path) -> None:
    text = SITE.read_text()
    one = text[text.index("replicas:\n") + len("replicas:\n") :]
    (tmp_path / "site.yaml").write_text(text + one.replace("web1:", "web2:", 1))
    with pytest.raises(ConfigError, match='"web1" and "web2" have the same folder'):
        load_site(str(tmp_path / "site.yaml"))
