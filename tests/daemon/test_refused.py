"""What ``backstay run`` refuses to begin with: code, words, hint; and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pipeline.daemon.link_client import IntakeGone
from tests.cli.support import MIB, ROOT, Place
from tests.daemon.disks import call, ext4, small
from tests.daemon.running import CONFIG, PATIENCE, ask, prepare, qemu_io, running

DISK = '{path: ./root.img, capture: nbd, listen: "unix:./root.sock"}'


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Rows change their own files only."""
    with TemporaryDirectory(prefix="bs-") as folder:
        yield prepare(Path(folder))


@dataclass(frozen=True)
class Refused:
    """``arrange`` may make a situation, and puts what ends it on the stack. ``disk`` is the disk of
    the config, ``disks`` more of them; ``{root}`` in ``says`` stands for the folder."""

    name: str
    code: int
    says: str
    hint: str
    disk: str = DISK
    more: str = ""
    arrange: Callable[[Place, ExitStack], None] = lambda _place, _stack: None
    state: str = "./state-x"


def _listening(place: Place, stack: ExitStack) -> None:
    server = stack.enter_context(socket.socket(socket.AF_UNIX))
    server.bind(str(place / "mine.sock"))
    server.listen()
    stack.callback((place / "mine.sock").unlink)


def _folder(place: Place, stack: ExitStack) -> None:
    (place / "folder").mkdir()
    stack.callback((place / "folder").rmdir)


def _read_only(place: Place, stack: ExitStack) -> None:
    stack.enter_context(small(place / "fixed", "2m"))
    (place / "fixed/root.img").write_bytes(bytes(MIB))
    call("mount", "-o", "remount,ro", str(place / "fixed"))


def _mounted(place: Place, stack: ExitStack) -> None:
    disk = stack.enter_context(ext4(place / "disk.img", place / "mnt", 4 * MIB))
    _link(place, "device", disk.device, stack)


def _held(place: Place, stack: ExitStack) -> None:
    """As RAID and LVM hold their disks."""
    (place / "held.img").write_bytes(bytes(MIB))
    device = call("losetup", "-f", "--show", str(place / "held.img"))
    stack.callback(call, "losetup", "-d", device)
    stack.callback(os.close, os.open(device, os.O_RDWR | os.O_EXCL))
    _link(place, "device", device, stack)


def _link(place: Place, name: str, target: str, stack: ExitStack) -> None:
    (place / name).symlink_to(target)
    stack.callback((place / name).unlink)


def _hard_link(place: Place, stack: ExitStack) -> None:
    os.link(place / "root.img", place / "same.img")
    stack.callback((place / "same.img").unlink)


def _symbolic_link(place: Place, stack: ExitStack) -> None:
    _link(place, "same.img", "root.img", stack)


def _of(path: str, listen: str = "unix:./x.sock") -> str:
    return f'{{path: {path}, capture: nbd, listen: "{listen}"}}'


_FAR = (
    '"{}" is not this machine\'s loopback address, and NBD has no TLS here; write unix:PATH, or '
    "127.0.0.1:PORT and forward it with ssh"
)
_ONCE = "find it with `fuser -v` on the file; a disk can be protected only once"
_FREE = "the disk of a live capture is used through its NBD socket only: unmount it"
_OTHER = "choose another path"
ROWS = (
    Refused(
        "a server listens on the socket", 2,
        "listen for NBD: {root}/mine.sock: a server is listening here",
        "stop it or choose another path", _of("./root.img", "unix:./mine.sock"), arrange=_listening,
    ),
    Refused(
        "the socket is a folder", 2,
        "listen for NBD: {root}/folder: exists and is not a socket",
        _OTHER, _of("./root.img", "unix:./folder"), arrange=_folder,
    ),
    Refused(
        "the socket's folder is missing", 2,
        "listen for NBD: {root}/none/x.sock: No such file or directory",
        _OTHER, _of("./root.img", "unix:./none/x.sock"),
    ),
    Refused(
        "the socket's folder cannot be written", 2,
        "listen for NBD: {root}/fixed/x.sock: Read-only file system",
        _OTHER, _of("./root.img", "unix:./fixed/x.sock"), arrange=_read_only,
    ),
    Refused(
        "the second of two sockets cannot be had", 2,
        "listen for NBD: {root}/folder: exists and is not a socket",
        _OTHER, _of("./root.img"), _of("./other.img", "unix:./folder"), arrange=_folder,
    ),
    Refused(
        "the disk is on something read-only", 7,
        "open disk: {root}/fixed/root.img: Read-only file system",
        "run as a user that may write it", _of("./fixed/root.img"), arrange=_read_only,
    ),
    Refused(
        "the disk is empty", 7,
        "open disk: {root}/empty.img: is empty",
        "check the disk's `path` in the config", _of("./empty.img"),
    ),
    Refused(
        "the disk is a folder", 7,
        "open disk: {root}/folder: is neither a file nor a block device",
        "check the disk's `path` in the config", _of("./folder"), arrange=_folder,
    ),
    Refused(
        "the disk is mounted", 7, "open disk: {root}/device: is mounted on {root}/mnt",
        _FREE, _of("./device"), arrange=_mounted,
    ),
    Refused(
        "the disk is part of something", 7,
        "open disk: {root}/device: is in use (mounted, or part of RAID or LVM)",
        _FREE, _of("./device"), arrange=_held,
    ),
    Refused(
        "one file twice through a hard link", 7,
        "open disk: {root}/same.img: is already protected by another process, or by another entry "
        "of this configuration",
        _ONCE, _of("./root.img"), _of("./same.img", "unix:./y.sock"), arrange=_hard_link,
    ),
)  # fmt: skip


def config(place: Place, disk: str, more: str = "", *, state: str = "./state-x") -> None:
    text = CONFIG.format(state=state, more="").replace(DISK, disk)
    (place / "x.yaml").write_text(text + (f"      data: {more}\n" if more else ""))


def intake_refuses(place: Place, row: Refused) -> None:
    """The process that opens disks and sockets, as the parent hears it."""
    process = subprocess.run(
        [sys.executable, "-m", "pipeline.daemon.intake_main", "x.yaml"],
        cwd=place.root, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert process.returncode == row.code, process
    assert not process.stderr
    said = json.loads(process.stdout)
    assert ": ".join([*said["where"], said["message"]]) == row.says.replace(
        "{root}", str(place.root)
    )
    assert said["hint"] == row.hint


def refused(place: Place, code: int, says: str, hint: str) -> None:
    process = place.start("run", "x.yaml")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    assert err == f"backstay: {says.replace('{root}', str(place.root))}\n  hint: {hint}\n"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_it_is_refused(row: Refused, place: Place) -> None:
    (place / "empty.img").write_bytes(b"")
    (place / "other.img").write_bytes(bytes(MIB))
    with ExitStack() as stack:
        row.arrange(place, stack)
        config(place, row.disk, row.more)
        disk = (place / "root.img").read_bytes()
        intake_refuses(place, row)
        assert (place / "root.img").read_bytes() == disk
        assert not (place / "x.sock").exists()
        with pytest.raises(IntakeGone):
            ask(place / "state-x", "status")


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("0.0.0.0:10809", _FAR.format("0.0.0.0")),
        ("[::]:10809", _FAR.format("[::]")),
        ("192.0.2.1:10809", _FAR.format("192.0.2.1")),
        ("db.example:10809", _FAR.format("db.example")),
        ("127.0.0.1:99999", "a port is a number from 1 to 65535, not 99999"),
        (f"unix:./{'x' * 108}", "a socket's path has at most 107 bytes; use a shorter one"),
        ("root.sock", '"root.sock" is not an address; write unix:PATH or 127.0.0.1:PORT'),
    ],
)
def test_addresses_that_a_config_may_not_have(listen: str, says: str, place: Place) -> None:
    config(place, _of("./root.img", listen))
    said = place.backstay("run", "x.yaml")
    assert said.code == 3
    where = "x.yaml:10:54: machines.web1.disks.root.listen: "
    assert said.err == f"backstay: {where}{says}\n"


def test_others_do_not_get_what_is_in_use(place: Place) -> None:
    """By whatever name: the disk, the state folder, the socket. Whoever has them notices nothing.

    The one that serves began beside the socket of a dead one, and listens on TCP too.
    """
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(place / "root.sock"))
    stale.close()
    (place / "tcp.img").write_bytes(bytes(MIB))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served = f"{DISK}\n      tcp: {_of('./tcp.img', f'127.0.0.1:{port}')}"
    (place / "c.yaml").write_text(CONFIG.format(state="./state", more="").replace(DISK, served))
    with running(place, ready=None) as daemon:
        tcp = daemon.heard("web1/tcp: nbd://127.0.0.1:").split(": ")[1].strip()
        daemon.heard("intake: serving")
        place.call("qemu-io", "-f", "raw", "-c", "write -P 3 0 64k", "-c", "flush", tcp)
        assert (place / "tcp.img").read_bytes()[: 64 << 10] == b"\3" * (64 << 10)
        taken = "is already protected by another process, or by another entry of this configuration"
        for arrange in (_hard_link, _symbolic_link):
            with ExitStack() as stack:
                arrange(place, stack)
                config(place, _of("./same.img"))
                refused(place, 7, f"open disk: {{root}}/same.img: {taken}", _ONCE)
        config(place, _of("./other.img"), state="./state")
        refused(
            place, 14, "open state: {root}/state: another Backstay process is using it",
            "wait for that run to end, or give this config a state folder of its own",
        )  # fmt: skip
        qemu_io(place, "write -P 5 0 64k", "flush", "read -P 5 0 64k")
        daemon.end(signal.SIGTERM)
