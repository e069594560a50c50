"""The clients that people use, against a device in memory and an overlay. None may be missing."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from stages.nbd.listening import TcpAddress, UnixAddress
from stages.recover.overlay import Overlay
from stages.system import this_machine
from tests.nbd.disks import Base
from tests.nbd.disks import content as content_of
from tests.nbd.memory import MemoryDevice, info
from tests.nbd.serving import Served, serving, short_directory

ODD = (9 << 20) + 1234
SECTORS = (9 << 20) + 1536  # qemu writes whole sectors, also beyond an odd end
ROOT = Path(__file__).resolve().parents[2]
FOUR = ("--threads=4", "--connections=4")


async def tool(*command: str, fails: bool = False) -> str:
    """Run a client; its output. It must succeed, or fail if ``fails``."""
    assert shutil.which(command[0]), f"{command[0]} is needed for these tests"
    with trio.fail_after(60):
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False
        )
    output = (done.stdout + done.stderr).decode()
    assert (done.returncode != 0) == fails, output
    return done.stdout.decode() if not fails else output


def content(size: int, seed: int = 1) -> bytes:
    """Data with holes: of every 64 KiB the first half, and nothing in the third quarter."""
    data = bytearray(random.Random(seed).randbytes(size))
    for at in range(32768, size - 32768, 65536):
        data[at : at + 32768] = bytes(32768)
    data[size // 2 : size * 3 // 4] = bytes(size * 3 // 4 - size // 2)
    return bytes(data)


@pytest.fixture(params=["memory", "overlay"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def served_disk(kind: str, data: bytes, tmp_path: Path) -> AsyncIterator[Served]:
    """A writable export named "disk" that holds ``data``."""
    base = MemoryDevice(info("disk", len(data), read_only=kind == "overlay"), data)
    if kind == "memory":
        async with serving(base) as served:
            yield served
        return
    await trio.Path(tmp_path).mkdir(exist_ok=True)
    overlay = await Overlay.open(base, this_machine(), str(tmp_path / "ov"), identity="test")
    async with serving(overlay) as served:
        yield served
    await overlay.close()
    assert base.content == data


async def test_nbdinfo(kind: str, tmp_path: Path) -> None:
    data = content(ODD)
    async with served_disk(kind, data, tmp_path) as served:
        found: dict[str, Any] = json.loads(await tool("nbdinfo", "--json", served.uri("disk")))
        export = found["exports"][0]
        assert found["protocol"] == "newstyle-fixed"
        assert export["export-size"] == ODD
        assert export["description"] == "memory of disk"
        assert export["contexts"] == ["base:allocation"]
        sizes = [export[f"block_size_{which}"] for which in ("minimum", "preferred", "maximum")]
        assert sizes == [1, 4096, 32 << 20]
        for can in ("df", "flush", "fua", "multi_conn", "trim", "zero"):
            assert export[f"can_{can}"] is True
        assert export["can_fast_zero"] is False
        listed = json.loads(await tool("nbdinfo", "--json", "--list", served.uri()))
        assert [entry["export-name"] for entry in listed["exports"]] == ["disk"]
        assert await tool("nbdinfo", "--size", served.uri()) == f"{ODD}\n"
        await tool("nbdinfo", served.uri("nowhere"), fails=True)


async def test_nbdinfo_maps_holes(kind: str, tmp_path: Path) -> None:
    data = content(ODD)
    async with served_disk(kind, data, tmp_path) as served:
        extents = json.loads(await tool("nbdinfo", "--json", "--map", served.uri()))
        assert sum(extent["length"] for extent in extents) == ODD
        for extent in extents:
            part = data[extent["offset"] : extent["offset"] + extent["length"]]
            assert any(part) == (extent["type"] == 0)


async def test_nbdcopy_out_and_in(kind: str, tmp_path: Path) -> None:
    data, other = content(ODD), content(ODD, seed=2)
    copy, source = tmp_path / "copy", tmp_path / "source"
    source.write_bytes(other)
    async with served_disk(kind, data, tmp_path) as served:
        uri = served.uri("disk")
        await tool("nbdcopy", *FOUR, uri, str(copy))
        assert copy.read_bytes() == data
        await tool("nbdcopy", *FOUR, "--flush", str(source), uri)
        await tool("nbdcopy", *FOUR, "--requests=16", uri, str(copy))
        assert copy.read_bytes() == other
        assert served.server.statistics().accepted >= 12


async def test_qemu_img(kind: str, tmp_path: Path) -> None:
    size = ODD if kind == "memory" else SECTORS
    data, other = content(size), content(SECTORS, seed=3)
    source, copy = tmp_path / "source", tmp_path / "copy.qcow2"
    source.write_bytes(other)
    async with served_disk(kind, data, tmp_path) as served:
        uri = served.uri("disk")
        about = json.loads(await tool("qemu-img", "info", "--output=json", "-f", "raw", uri))
        assert about["virtual-size"] == -(-size // 512) * 512
        extents = json.loads(await tool("qemu-img", "map", "--output=json", "-f", "raw", uri))
        for extent in extents:
            part = data[extent["start"] : extent["start"] + extent["length"]]
            assert any(part) <= (not extent["zero"])
        await tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, str(copy))
        await tool("qemu-img", "compare", "-f", "raw", "-F", "qcow2", uri, str(copy))
    async with served_disk(kind, bytes(SECTORS), tmp_path / "in") as served:
        uri = served.uri("disk")
        await tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(source), uri)
        await tool("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, str(source))


async def test_qemu_io(kind: str, tmp_path: Path) -> None:
    async with served_disk(kind, content(ODD), tmp_path) as served:
        commands = [
            "write -P 0x11 0 64k",
            "write -P 0x22 1000 3000",
            "write -f -P 0x33 100k 4k",
            "aio_write -P 0x44 1M 2M",
            "aio_write -P 0x55 4M 100k",
            "aio_flush",
            "flush",
            "write -z 1M 1M",
            "write -z -u 3000k 123k",
            "discard 4M 40k",
            "read -P 0x11 0 1000",
            "read -P 0x22 1000 3000",
            "read -P 0x11 4000 61536",
            "read -P 0x33 100k 4k",
            "read -P 0 1M 1M",
            "read -P 0x44 2M 952k",
            "read -P 0 4M 40k",
            "read -P 0x55 4136k 60k",
        ]
        arguments = [part for command in commands for part in ("-c", command)]
        output = await tool("qemu-io", "-f", "raw", *arguments, served.uri("disk"))
        assert "error" not in output.lower()
        assert "fail" not in output.lower()


async def test_fio_verifies_what_it_wrote(kind: str, tmp_path: Path) -> None:
    async with served_disk(kind, bytes(8 << 20), tmp_path) as served:
        output = await tool(
            "fio",
            "--name=verify",
            "--ioengine=nbd",
            f"--uri={served.uri('disk')}",
            "--rw=randwrite",
            "--bsrange=512-64k",
            "--bs_unaligned",
            "--size=8m",
            "--io_size=4m",
            "--iodepth=16",
            "--verify=crc32c",
            "--verify_state_save=0",
            "--randseed=7",
            "--output-format=json",
        )
        job = json.loads(output[output.index("{") :])["jobs"][0]
        assert job["error"] == 0
        assert job["write"]["io_bytes"] >= 4 << 20
        assert job["read"]["io_bytes"] == job["write"]["io_bytes"]


async def test_a_read_only_export_over_tcp(tmp_path: Path) -> None:
    data = content(ODD)
    device = MemoryDevice(info("disk", ODD, read_only=True), data)
    async with serving(device, address=TcpAddress("127.0.0.1", 0)) as served:
        uri = served.uri("disk")
        found = json.loads(await tool("nbdinfo", "--json", uri))["exports"][0]
        assert found["is_read_only"] is True
        copy = tmp_path / "copy"
        await tool("nbdcopy", *FOUR, uri, str(copy))
        assert copy.read_bytes() == data
        refused = await tool("qemu-io", "-f", "raw", "-c", "write 0 4k", uri, fails=True)
        assert "read-only" in refused.lower() or "permission" in refused.lower()


async def test_an_empty_disk() -> None:
    async with serving(MemoryDevice(info("empty", 0))) as served:
        assert await tool("nbdinfo", "--size", served.uri("empty")) == "0\n"
        copied = await tool("nbdcopy", served.uri("empty"), "-")
        assert copied == ""


async def test_clients_at_once_on_one_overlay(tmp_path: Path) -> None:
    base = MemoryDevice(info("disk", ODD, read_only=True), content(ODD))
    overlay = await Overlay.open(base, this_machine(), str(tmp_path / "ov"), identity="test")
    files = []
    for number in range(3):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(os.urandom(1 << 20))
    async with serving(overlay) as served:
        uri = served.uri("disk")

        async def put(number: int) -> None:
            start = f"write -s {files[number]} {number * 3}M 1M"
            await tool("qemu-io", "-f", "raw", "-c", start, "-c", "flush", uri)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(overlay.hydrate)
            for number in range(3):
                nursery.start_soon(put, number)
        assert overlay.hydrated
        copy = tmp_path / "copy"
        await tool("nbdcopy", uri, str(copy))
        expected = bytearray(base.content)
        for number, file in enumerate(files):
            expected[number * 3 << 20 : (number * 3 << 20) + (1 << 20)] = file.read_bytes()
        assert copy.read_bytes() == expected
    await overlay.close()


async def test_what_was_flushed_outlives_a_killed_server(tmp_path: Path) -> None:
    base, path = Base(1 << 20), str(tmp_path / "ov")
    with short_directory() as directory:
        socket = f"{directory}/s"
        command = [sys.executable, "-m", "tests.nbd.overlay_server", path, socket]
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process, command, stdout=subprocess.PIPE, check=False, cwd=ROOT
            )
            server: trio.Process = await nursery.start(start)
            assert server.stdout is not None
            assert await server.stdout.receive_some() == b"serving\n"
            steps = ("write -P 1 1k 64k", "write -z 200k 9k", "flush", "write -P 2 500k 64k")
            arguments = [part for step in steps for part in ("-c", step)]
            await tool("qemu-io", "-f", "raw", *arguments, UnixAddress(socket).uri("disk"))
            server.kill()
    overlay = await Overlay.open(base, this_machine(), path, identity="killed")
    found = await content_of(overlay)
    await overlay.close()
    expected = bytearray(base.content)
    expected[1 << 10 : 65 << 10] = b"\1" * (64 << 10)
    expected[200 << 10 : 209 << 10] = bytes(9 << 10)
    assert found[: 500 << 10] == expected[: 500 << 10]
    assert found[564 << 10 :] == expected[564 << 10 :]
