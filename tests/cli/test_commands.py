"""What all commands have in common: help, one JSON document, errors as JSON, exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipeline.cli import main as root
from stages.errors import EXIT_CODES
from tests.cli.support import DISKS, KEYS, Place, Shipped, same


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and group, as it is typed."""
    yield ()
    yield from _below(root.backstay, ())


def _below(group: click.Group, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield (*above, name)
        if isinstance(found, click.Group):
            yield from _below(found, (*above, name))


@pytest.mark.parametrize("words", [*commands()], ids=lambda words: " ".join(words) or "backstay")
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(tmp_path: Path, words: tuple[str, ...], flag: str) -> None:
    said = Place(tmp_path).backstay(*words, flag)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"Usage: backstay {' '.join(words)}".rstrip())


@pytest.mark.parametrize("words", [each for each in commands() if each], ids=" ".join)
def test_every_option_is_explained(words: tuple[str, ...]) -> None:
    command: click.Command = root.backstay
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    assert command.help
    unexplained = [
        option.opts[0]
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert set(unexplained) <= {"--name", "--cipher"}  # which explain themselves
    if not isinstance(command, click.Group):
        assert any("--json" in option.opts for option in command.params)


def test_the_first_help_lists_commands_and_exit_codes(tmp_path: Path) -> None:
    out = Place(tmp_path).backstay("--help").out
    for name in ("demo", "init", "run", "restore", "rescue"):
        assert re.search(rf"^  {name} ", out, re.MULTILINE)
    for code in EXIT_CODES:
        assert re.search(rf"^  {code} ", out, re.MULTILINE)


def test_a_result_is_one_document_and_the_rest_is_silence(shipped: Shipped) -> None:
    """Every command that only reads, on one vault."""
    for words in (
        ("status", "c.yaml"),
        ("points", "web1", *KEYS),
        ("points", "web1", *KEYS, "--all", "--count", "1"),
        ("verify", "web1", *KEYS),
        ("rescue", *KEYS),
        ("restore", "web1", *KEYS, "--to", "never", "--dry-run"),
        ("vault", "check", "file:./vault", "--key", "op.key"),
        ("vault", "check", "file:./vault", "--trust", "op.pub"),
        ("key", "drill", *KEYS),
    ):
        said = shipped.backstay(*words, "--json")
        assert (said.code, said.err) == (0, ""), words
        assert said.fields, words
    assert not (shipped / "never").exists()


def test_what_the_documents_say(shipped: Shipped) -> None:
    first, second = shipped.points
    points = shipped.json("points", "web1", *KEYS)
    assert [point["seq"] for point in points["points"]] == [second, first]
    assert points["newest"] == second
    assert all(point["consistent"] and point["class"] == "quiet" for point in points["points"])
    (machine,) = shipped.json("rescue", *KEYS)["machines"]
    assert (machine["machine"], set(machine["disks"])) == ("web1", set(DISKS))
    verified = shipped.json("verify", "web1", *KEYS, "--at", f"#{first}")
    assert (verified["whole"], verified["point"]["seq"]) == (True, first)
    planned = shipped.json("restore", "web1", *KEYS, "--to", "never", "--dry-run")
    assert planned["dry_run"]
    assert [disk["path"] for disk in planned["disks"]] == [f"never/web1-{d}.img" for d in DISKS]
    drilled = shipped.json("key", "drill", *KEYS)
    assert drilled["drilled"] == {"web1": second}


def test_restore_by_number_and_by_time(shipped: Shipped, tmp_path: Path) -> None:
    times = {
        point["seq"]: point["time"] for point in shipped.json("points", "web1", *KEYS)["points"]
    }
    first, second = shipped.points
    for name, at in (("n", f"#{first}"), ("t", times[first]), ("s", times[second])):
        restored = shipped.json("restore", "web1", *KEYS, "--to", f"{tmp_path}/{name}", "--at", at)
        point = "second" if name == "s" else "first"
        assert not restored["damage"]
        assert bool(restored["notes"]) == (name != "n")
        for disk in restored["disks"]:
            assert same(Path(disk["path"]), shipped / f"{point}-{disk['disk']}.img")


def test_texts_name_the_point_in_both_times(shipped: Shipped, tmp_path: Path) -> None:
    said = shipped.backstay("restore", "web1", *KEYS, "--to", str(tmp_path / "x"))
    assert said.code == 0
    assert re.search(rf"point #{shipped.points[1]} of web1, .* UTC \(.*\), quiet", said.err)
    assert "of content" in said.out
    said = shipped.backstay("verify", "web1", *KEYS)
    assert "whole: it can be restored" in said.out
    said = shipped.backstay("points", "web1", *KEYS)
    assert said.out.count(" UTC (") == 2


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (("restore", "web1", *KEYS), 2, "UsageError"),
        (("restore", "web1", *KEYS, "--to", "x", "--at", "noon"), 2, "UsageError"),
        (("restore", "web1", *KEYS, "--to", "x", "--expect", "1"), 2, "UsageError"),
        (("restore", "web1", *KEYS, "--device", "root"), 2, "UsageError"),
        (("restore", "web1", *KEYS, "--to", "x", "--unknown"), 2, "UsageError"),
        (("points", "web1", *KEYS, "--count", "0"), 2, "UsageError"),
        (("nonsense",), 2, "UsageError"),
        (("run", "c.yaml"), 2, "UsageError"),
        (("run", "none.yaml", "--once"), 3, "ConfigError"),
        (("rescue", "--vault", "file:./vault", "--key", "none"), 4, "KeyFailure"),
        (("rescue", "--vault", "file:./vault", "--key", "stranger.key"), 4, "KeyFailure"),
        (("rescue", "--vault", "file:./state", "--key", "op.key"), 5, "NotAVault"),
        (("restore", "web1", *KEYS, "--to", "x", "--expect", f"1#{'00' * 8}"), 6, "DamagedObject"),
        (("rescue", "--vault", "file:./none", "--key", "op.key"), 8, "StoreUnreachable"),
        (("restore", "web1", *KEYS, "--device", "root=./root.img"), 12, "TargetError"),
        (("restore", "web2", *KEYS, "--to", "x"), 13, "NotFound"),
        (("restore", "web1", *KEYS, "--to", "x", "--at", "1999-01-01T00:00Z"), 13, "NotFound"),
        (("restore", "web1", *KEYS, "--device", "swap=/dev/null"), 13, "NotFound"),
    ],
)
def test_errors(
    monkeypatch: pytest.MonkeyPatch,
    shipped: Shipped,
    words: tuple[str, ...],
    code: int,
    kind: str,
) -> None:
    monkeypatch.setattr("pipeline.recovery._OPENING", 0.0)  # nobody waits here
    if not (shipped / "stranger.key").exists():
        shipped.json("keygen", "--out", "stranger", "--no-passphrase")
    said = shipped.backstay(*words, "--json")
    assert (said.code, said.out) == (code, "")
    assert said.error["error"] == kind
    assert said.error["exit_code"] == code
    assert said.error["message"]
    plain = shipped.backstay(*words)
    assert (plain.code, plain.out) == (code, "")
    assert said.error["message"].splitlines()[0] in plain.err
    assert not (shipped / "x").exists()


def test_a_time_without_a_zone_says_which_it_took(shipped: Shipped) -> None:
    words = ("restore", "web1", *KEYS, "--to", "never", "--dry-run", "--at", "2100-01-01 12:00")
    said = shipped.backstay(*words)
    assert "no zone: taken as local time" in said.err
    notes = shipped.json(*words)["notes"]
    assert any("no zone" in note for note in notes)
    assert any("it is the last" in note for note in notes)


def test_the_other_recipient_can_do_it_alone(shipped: Shipped, tmp_path: Path) -> None:
    keys = ("--vault", "file:./vault", "--key", "second.key", "--trust", "op.pub")
    (machine,) = shipped.json("rescue", *keys)["machines"]
    assert "--trust op.pub" in machine["next"]
    shipped.json("restore", "web1", *keys, "--to", str(tmp_path / "x"))
    assert same(tmp_path / "x" / "web1-root.img", shipped / "second-root.img")


def test_an_older_group_of_the_same_name_goes_by_its_id(shipped: Shipped, tmp_path: Path) -> None:
    with shipped.copied(tmp_path / "w") as place:
        machines = place / "state" / "machines"
        machines.rename(place / "lost")  # the next run begins a new base beside the old points
        (place / "root.img").write_bytes(b"new base".ljust(1 << 20, b"\0"))
        place.json("run", "c.yaml", "--once")
        entries = place.json("rescue", *KEYS)["machines"]
        assert [entry["machine"] for entry in entries] == ["web1", "web1"]
        assert f"restore {entries[1]['group']} " in entries[1]["next"]
        for entry in entries:
            words = entry["next"].split()
            place.json(*words[1:])
        old = place / f"restored-{entries[1]['group']}"
        assert same(old / "web1-root.img", place / "second-root.img")
        assert (place / "restored-web1" / "web1-root.img").read_bytes().startswith(b"new base")


def test_commands_are_printed_so_that_a_shell_takes_them(shipped: Shipped, tmp_path: Path) -> None:
    with shipped.copied(tmp_path / "a folder; with $(odd) 'names'") as place:
        vault = f"file:{place.root}/vault"
        said = place.backstay("rescue", "--vault", vault, "--key", f"{place.root}/op.key")
        (command,) = [line.split("next: ")[1] for line in said.out.splitlines() if "next:" in line]
        printed = place.call("sh", "-c", f'for word in {command}; do echo "$word"; done')
        assert vault in printed.splitlines()


def test_interrupted_as_json(monkeypatch: pytest.MonkeyPatch, shipped: Shipped) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.cli.recover.run_async", interrupt)
    said = shipped.backstay("points", "web1", *KEYS, "--json")
    assert (said.code, said.out) == (130, "")
    assert said.error["error"] == "Interrupted"
    assert shipped.backstay("points", "web1", *KEYS).err.strip() == "interrupted"


def test_the_life_of_a_vault_in_documents(tmp_path: Path) -> None:
    place = Place(tmp_path)
    made = place.json("keygen", "--out", "op", "--no-passphrase")
    assert made["private"] == "op.key"
    vault = place.json("init", "file:./v", "--key", "op.key", "--single-recipient")
    assert vault["trust"] == "op.pub"
    admitted = place.json(
        "vault", "admit", "file:./v", "--key", "op.key", "--writer", "ab" * 32, "--name", "other"
    )
    assert admitted["generation"] == 2
    checked = place.json("vault", "check", "file:./v", "--key", "op.key")
    assert [writer["name"] for writer in checked["writers"]] == ["daemon", "other"]
    assert place.json("rescue", "--vault", "file:./v", "--key", "op.key") == {
        "machines": [],
        "problems": [],
    }
