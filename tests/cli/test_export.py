"""Real NBD clients read, overlay and hydrate points."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.exporter import PATIENCE, exporting, served
from tests.cli.support import (
    DATA_SIZE,
    KEYS,
    MIB,
    PATTERN,
    PATTERN_AT,
    PATTERN_LENGTH,
    ROOT_SIZE,
    Place,
    Shipped,
    put,
    same,
    tool,
)
from tests.waiting import heard


def compare(place: Place, image: str, uri: str) -> None:
    """Fails unless qemu finds them identical."""
    place.call("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)


def test_qemu_img_sees_the_point(shipped: Shipped, short: Path) -> None:
    with served(shipped, short) as exporter:
        uri = exporter.uri()
        info = json.loads(shipped.call("qemu-img", "info", "--output=json", "-f", "raw", uri))
        assert info["virtual-size"] == ROOT_SIZE
        compare(shipped, "second-root.img", uri)
        maps = [
            json.loads(shipped.call("qemu-img", "map", "--output=json", "-f", "raw", name))
            for name in (uri, "second-root.img")
        ]
        held = [sum(part["length"] for part in each if not part["zero"]) for each in maps]
        # The file's holes are whole blocks too, but some of its written blocks may be zero.
        assert 0 < held[0] <= held[1]
        target = short / "converted.qcow2"
        shipped.call("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, str(target))
        shipped.call(
            "qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(target), "second-root.img"
        )


def test_an_older_point_by_number(shipped: Shipped, short: Path) -> None:
    with served(shipped, short, "--at", f"#{shipped.points[0]}", "--disk", "root") as exporter:
        assert exporter.fields["seq"] == shipped.points[0]
        assert list(exporter.fields["exports"]) == ["root"]
        compare(shipped, "first-root.img", exporter.uri())


def test_what_is_served_is_held_meanwhile(shipped: Shipped, short: Path) -> None:
    with served(shipped, short, "--at", f"#{shipped.points[0]}") as exporter:
        assert not exporter.fields["notes"]
        (lease,) = shipped.json("holds", "web1", *KEYS)["leases"]
        assert lease["point"] == shipped.points[0]
        assert lease["by"].startswith("export by ")
        assert "is being read" in shipped.backstay("holds", "web1", *KEYS).out
    assert shipped.json("holds", "web1", *KEYS)["leases"] == []


def test_two_disks_are_two_exports_of_one_socket(shipped: Shipped, short: Path) -> None:
    with served(shipped, short) as exporter:
        listed = json.loads(
            shipped.call("nbdinfo", "--list", "--json", f"nbd+unix:///?socket={exporter.socket}")
        )
        sizes = {each["export-name"]: each["export-size"] for each in listed["exports"]}
        assert sizes == {"root": ROOT_SIZE, "data": DATA_SIZE}
        assert all(each["is_read_only"] for each in listed["exports"])
        assert all(each["can_multi_conn"] for each in listed["exports"])
        for disk in ("root", "data"):
            copy = short / f"{disk}.img"
            shipped.call("nbdcopy", "--connections=4", exporter.uri(disk), str(copy))
            assert same(copy, shipped / f"second-{disk}.img")
        assert (short / "root.img").stat().st_blocks * 512 < ROOT_SIZE
        # What came out is a file system that its own tools find clean.
        shipped.call(tool("e2fsck"), "-fn", str(short / "root.img"))
        names = shipped.call(tool("debugfs"), "-R", "ls -p /", str(short / "root.img"))
        assert {"later", "fresh", "json"} <= set(names.split("/"))


def test_nbdinfo_maps_holes(shipped: Shipped, short: Path) -> None:
    with served(shipped, short) as exporter:
        extents = json.loads(shipped.call("nbdinfo", "--map", "--json", exporter.uri("data")))
        image = (shipped / "second-data.img").read_bytes()
        at = 0
        for extent in extents:
            assert extent["offset"] == at
            at += extent["length"]
            if extent["type"]:
                assert not any(image[extent["offset"] : at])
        assert at == DATA_SIZE
        assert {extent["type"] for extent in extents} == {0, 3}


def test_qemu_io_reads_at_odd_offsets(shipped: Shipped, short: Path) -> None:
    ranges = ((0, PATTERN_LENGTH), (1, 1), (4095, 4098), (511, 513), (69_999, 2), (12_288, 16_384))
    with served(shipped, short, "--disk", "data") as exporter:
        uri = exporter.uri("data")
        reads = [f"{PATTERN_AT + offset} {length}" for offset, length in ranges]
        out = looked(shipped, uri, *(f"read -P {PATTERN} {each}" for each in reads))
        assert out.count(" bytes at offset ") == len(ranges)
        assert "verification failed" not in out
        wrong = looked(shipped, uri, *(f"read -P 1 {each}" for each in reads))
        assert wrong.count("verification failed") == len(ranges)


def io(place: Place, uri: str, *commands: str) -> None:
    """Let qemu-io do something that has to succeed."""
    place.call("qemu-io", "-f", "raw", *(word for each in commands for word in ("-c", each)), uri)


def looked(place: Place, uri: str, *commands: str) -> str:
    """What qemu-io prints about reads, whatever comes out."""
    words = ["qemu-io", "-r", "-f", "raw", *(word for each in commands for word in ("-c", each))]
    return said_by(place, *words, uri)


def said_by(place: Place, *words: str) -> str:
    """All that a program prints, however it ends."""
    done = subprocess.run(
        words,
        cwd=place.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout


def test_over_tcp_on_the_loopback_interface(shipped: Shipped, short: Path) -> None:
    with exporting(shipped, short, "--listen", "127.0.0.1:0") as exporter:
        assert exporter.uri().startswith("nbd://127.0.0.1:")
        compare(shipped, "second-root.img", exporter.uri())
        exporter.end()


def test_writes_to_a_read_only_point_fail(shipped: Shipped, short: Path) -> None:
    with served(shipped, short) as exporter:
        words = ("qemu-io", "-f", "raw", "-c", "write 0 4k", exporter.uri())
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        compare(shipped, "second-root.img", exporter.uri())


def test_flushed_writes_outlive_a_kill_and_the_vault_is_unchanged(
    shipped: Shipped, short: Path
) -> None:
    before = shipped.digest("vault")
    overlay = ("--writable", str(short / "overlay"))
    expected = short / "expected.img"
    shutil.copyfile(shipped / "second-root.img", expected)
    with exporting(shipped, short, *overlay) as exporter:
        assert exporter.fields["writable"]
        io(
            shipped,
            exporter.uri(),
            "write -P 0x11 4095 10000",
            "write -P 0x22 20M 64k",
            "write -z 0 512",
            "discard 1M 1M",
            "flush",
        )
        exporter.kill()
    assert exporter.socket.exists()  # left behind, and no obstacle
    put(expected, 4095, b"\x11" * 10_000)
    put(expected, 20 * MIB, b"\x22" * (64 << 10))
    put(expected, 0, bytes(512))
    put(expected, MIB, bytes(MIB))
    with served(shipped, short, *overlay) as exporter:
        assert exporter.fields["seq"] == shipped.points[1]
        compare(shipped, str(expected), exporter.uri())
    # But for the lease of the one that was killed: it ends by itself, and a keeper forgets it.
    (lease,) = (shipped / "vault").glob("groups/*/leases/*")
    shutil.rmtree(lease.parent)
    assert shipped.digest("vault") == before
    with served(shipped, short) as exporter:
        compare(shipped, "second-root.img", exporter.uri())


def test_the_same_command_goes_on_although_newer_points_came(shipped: Shipped, short: Path) -> None:
    with shipped.copied(short / "w") as place:
        overlay = ("--writable", "overlay", "--disk", "root")
        with served(place, short, *overlay) as exporter:
            io(place, exporter.uri(), "write -P 0x33 5M 4k", "flush")
        (run,) = place.json("run", "c.yaml", "--once")["machines"]
        with served(place, short, *overlay) as exporter:
            assert exporter.fields["seq"] == place.points[1] < run["seq"]
            out = looked(place, exporter.uri(), "read -P 0x33 5M 4k")
            assert "read 4096/4096" in out
            assert "verification failed" not in out
        said = place.backstay(
            "export", "web1", *KEYS, "--listen", f"unix:{short}/s2", *overlay,
            "--at", f"#{run['seq']}", "--json",
        )  # fmt: skip
        assert (said.code, said.error["error"]) == (12, "TargetError")


def test_a_qcow2_overlay_of_qemus_own(shipped: Shipped, short: Path) -> None:
    with served(shipped, short) as exporter:
        overlay = str(short / "ov.qcow2")
        shipped.call(
            "qemu-img", "create", "-q", "-f", "qcow2", "-b", exporter.uri(), "-F", "raw", overlay
        )
        shipped.call("qemu-io", "-f", "qcow2", "-c", "write -P 0x44 3M 1M", overlay)
        shipped.call("qemu-img", "convert", "-O", "raw", overlay, str(short / "raw"))
        expected = short / "expected.img"
        shutil.copyfile(shipped / "second-root.img", expected)
        put(expected, 3 * MIB, b"\x44" * MIB)
        assert same(short / "raw", expected)


def test_once_hydrated_the_vault_may_go(shipped: Shipped, short: Path) -> None:
    with shipped.copied(short / "w") as place:
        arguments = ("--writable", "overlay", "--hydrate", "--disk", "root")
        with served(place, short, *arguments) as exporter:
            exporter.heard("root: hydrated")
            (place / "vault").rename(short / "away")
            io(place, exporter.uri(), "write -P 0x55 7M 4k")
            place.call("nbdcopy", exporter.uri(), str(short / "copy.img"))
            expected = short / "expected.img"
            shutil.copyfile(place / "second-root.img", expected)
            put(expected, 7 * MIB, b"\x55" * 4096)
            assert same(short / "copy.img", expected)


def test_damage_stops_hydration_but_not_the_guest(shipped: Shipped, short: Path) -> None:
    with shipped.copied(short / "w") as place:
        for path in (place / "vault").glob("groups/*/data/00000001/*"):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.chmod(0o600)
            path.write_bytes(data)
        arguments = ("--writable", "overlay", "--hydrate", "--disk", "root")
        with served(place, short, *arguments) as exporter:
            assert "still needed" in exporter.heard("hydration has stopped")
            io(place, exporter.uri(), "write -P 0x66 5M 1M", "flush")
            out = looked(place, exporter.uri(), "read -P 0x66 5M 1M")
            assert "verification failed" not in out
            assert "rror" in said_by(place, "qemu-img", "convert", "-O", "raw", exporter.uri(), "x")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_with_clients_connected(
    shipped: Shipped, short: Path, how: signal.Signals
) -> None:
    with exporting(shipped, short, "--writable", str(short / "overlay")) as exporter:
        client = subprocess.Popen(
            ["qemu-io", "-f", "raw", exporter.uri()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write("write -P 0x77 0 4k\n")
        client.stdin.flush()
        heard(client.stdout, "wrote 4096/4096")
        exporter.end(how)
        client.kill()
        client.communicate()
    with served(shipped, short, "--writable", str(short / "overlay")) as exporter:
        # Not flushed by the client: the exporter's own end made it durable.
        out = looked(shipped, exporter.uri(), "read -P 0x77 0 4k")
        assert "verification failed" not in out


def test_what_cannot_be_served(shipped: Shipped, short: Path) -> None:
    listen = ("--listen", f"unix:{short}/s")

    def code(*arguments: str) -> int:
        said = shipped.backstay("export", "web1", *KEYS, *arguments, "--json")
        assert said.out == ""
        assert said.error["exit_code"] == said.code
        return said.code

    assert code(*listen, "--disk", "swap") == 13
    assert code(*listen, "--hydrate") == 2
    assert code(*listen, "--at", "#999") == 13
    assert code("--listen", "0.0.0.0:10809") == 2
    (short / "file").touch()
    assert code("--listen", f"unix:{short}/file") == 2
    assert code(*listen, "--writable", str(short / "file")) == 12
    with served(shipped, short) as exporter:
        assert code("--listen", f"unix:{exporter.socket}") == 2
