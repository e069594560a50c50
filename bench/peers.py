"""Other programs that keep copies of disk images: restic, borg, zstd with age, qemu-img."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from bench.measure import Command, checked
from bench.subjects import PASSWORD, Copy, Subject, python_command

PATH = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"


class Restic(Subject):
    """Content-defined chunks, deduplicated, compressed (mode auto) and encrypted."""

    name = "restic"
    needs = ("restic",)

    def open(self, folder: Path, image: Path) -> Copy:
        """A repository of the version that compresses."""
        copy = ResticCopy(folder, image)
        checked(copy.command("init", "--repository-version", "2"), folder)
        return copy


class ResticCopy(Copy):
    """A local repository; its cache lies in the same temporary folder."""

    def command(self, *arguments: str) -> Command:
        """``restic`` with arguments."""
        env = {
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_CACHE_DIR": str(self.folder / "cache"),
        }
        return Command(("restic", "--quiet", *arguments), env)

    def backup(self) -> Command:
        """``--force``: read the file even if its time stamp has not changed."""
        how = ("--force", "--compression", "auto", "--host", "bench")
        return self.command("backup", *how, str(self.image))

    def restore(self, target: Path) -> Command:
        """The newest snapshot."""
        return self.command("restore", "latest", "--target", str(target))

    def restored(self, target: Path) -> Path:
        """Below its absolute path."""
        return target / self.image.relative_to("/")


class Borg(Subject):
    """Content-defined chunks, deduplicated, zstd level 1, authenticated encryption."""

    name = "borg"
    needs = ("borg",)

    def open(self, folder: Path, image: Path) -> Copy:
        """A repository with the key inside."""
        copy = BorgCopy(folder, image)
        checked(copy.command("init", "--encryption", "repokey-blake2"), folder)
        return copy


class BorgCopy(Copy):
    """A local repository; key, cache and configuration lie in the same temporary folder."""

    _archives = 0

    def command(self, *arguments: str, cwd: Path | None = None) -> Command:
        """``borg`` with arguments."""
        env = {
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_REPO": str(self.repository),
            "BORG_BASE_DIR": str(self.folder / "base"),
        }
        return Command(("borg", *arguments), env, cwd)

    def backup(self) -> Command:
        """``disabled``: read the file even if its time stamp has not changed."""
        self._archives += 1
        how = ("--compression", "zstd,1", "--files-cache", "disabled")
        return self.command("create", *how, f"::{self._archives}", str(self.image))

    def restore(self, target: Path) -> Command:
        """The newest archive."""
        return self.command("extract", "--sparse", f"::{self._archives}", cwd=target)

    def restored(self, target: Path) -> Path:
        """Below its absolute path."""
        return target / self.image.relative_to("/")


class ZstdAge(Subject):
    """A stream: zstd level 1 on two threads into age."""

    name = "zstd -1 -T2 | age"
    needs = ("zstd", "age", "age-keygen", "bash")

    def open(self, folder: Path, image: Path) -> Copy:
        """A key pair."""
        copy = ZstdAgeCopy(folder, image)
        checked(Command(("age-keygen", "-o", str(copy.key))), folder)
        made = checked(Command(("age-keygen", "-y", str(copy.key))), folder)
        copy.recipient = made.output.strip()
        return copy


class ZstdAgeCopy(Copy):
    """One encrypted file."""

    recipient = ""

    def __init__(self, folder: Path, image: Path):
        super().__init__(folder, image)
        self.key = folder / "age.key"

    def backup(self) -> Command:
        """Everything, each time."""
        script = 'zstd -q -1 -T2 -c -- "$1" | age -r "$2" -o "$3"'
        return _shell(script, str(self.image), self.recipient, str(self.repository))

    def restore(self, target: Path) -> Command:
        """Back through both."""
        script = 'age -d -i "$1" "$2" | zstd -q -d --sparse -o "$3"'
        return _shell(script, str(self.key), str(self.repository), str(self.restored(target)))

    def restored(self, target: Path) -> Path:
        """One file."""
        return target / "image"


class QemuImg(Subject):
    """A compressed qcow2 image, neither encrypted nor deduplicated."""

    name = "qemu-img convert -c (zstd)"
    needs = ("qemu-img",)

    def open(self, folder: Path, image: Path) -> Copy:
        """Nothing to prepare."""
        return QemuImgCopy(folder, image)


class QemuImgCopy(Copy):
    """One qcow2 file."""

    def backup(self) -> Command:
        """Everything, each time."""
        how = ("-c", "-o", "compression_type=zstd")
        source = ("-f", "raw", str(self.image))
        return Command(("qemu-img", "convert", *source, "-O", "qcow2", *how, str(self.repository)))

    def restore(self, target: Path) -> Command:
        """To a raw file."""
        source = ("-f", "qcow2", str(self.repository))
        return Command(("qemu-img", "convert", *source, "-O", "raw", str(self.restored(target))))

    def restored(self, target: Path) -> Path:
        """One file."""
        return target / "image"


class Naive(Subject):
    """The copy one would write first (``bench.naive``)."""

    name = "naive asyncio copy (aiofiles)"

    def missing(self) -> str:
        """The one package that only this needs."""
        return "" if find_spec("aiofiles") else "aiofiles"

    def open(self, folder: Path, image: Path) -> Copy:
        """A key."""
        from bench.naive import new_key

        copy = NaiveCopy(folder, image)
        new_key(copy.key)
        return copy


class NaiveCopy(Copy):
    """One file of sealed frames."""

    def __init__(self, folder: Path, image: Path):
        super().__init__(folder, image)
        self.key = folder / "naive.key"

    def backup(self) -> Command:
        """Everything, each time."""
        paths = (str(self.image), str(self.repository), str(self.key))
        return python_command("bench.naive", "copy", *paths)

    def restore(self, target: Path) -> Command:
        """To a sparse file."""
        paths = (str(self.repository), str(self.restored(target)), str(self.key))
        return python_command("bench.naive", "back", *paths)

    def restored(self, target: Path) -> Path:
        """One file."""
        return target / "image"


PEERS: tuple[type[Subject], ...] = (Restic, Borg, ZstdAge, QemuImg, Naive)


def _shell(script: str, *arguments: str) -> Command:
    return Command(("bash", "-o", "pipefail", "-c", script, "bash", *arguments), {"PATH": PATH})
