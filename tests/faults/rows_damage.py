"""Objects of the vault that are damaged or gone: rows. ``test_every_object`` tries all of them."""

from __future__ import annotations

import json

from tests.faults import tamper
from tests.faults.row import Row
from tests.faults.world import ACCESS, World

_VERIFY = ("verify", "web1", *ACCESS)
_RESTORE = ("restore", "web1", *ACCESS, "--to", "out")
_READ = ("vault", "state", "root.img", "data.img", "op.key")
_PARTIAL = "no file has its name; the .partial files are finished by --salvage, or later"


def _first_data(world: World) -> None:
    """A byte in the middle of a frame of the first point that the newest point still needs."""
    key = world.data()[0]
    world.names["object"] = key.removeprefix("vault/")
    tamper.flip(world, key, 100)


def _damaged_verify(world: World) -> tuple[str, ...]:
    _first_data(world)
    return _VERIFY


def _damaged_restore(world: World) -> tuple[str, ...]:
    _first_data(world)
    return _RESTORE


def _damaged_salvage(world: World) -> tuple[str, ...]:
    _first_data(world)
    return (*_RESTORE, "--salvage")


def _no_names(world: World) -> None:
    assert not list(world.path("out").glob("*.img"))


def _all_but_one_frame(world: World) -> None:
    source = world.path("root.img").read_bytes()
    restored = world.path("out/web1-root.img").read_bytes()
    wrong = [at for at in range(0, len(source), 4096) if _differs(source, restored, at)]
    assert 0 < len(wrong) <= 64


def _differs(one: bytes, other: bytes, at: int) -> bool:
    return one[at : at + 4096] != other[at : at + 4096]


def _newest_data_gone(world: World) -> None:
    key = world.data()[-1]
    world.names["object"] = key.removeprefix("vault/")
    tamper.remove(world, key)


def _newest_gone_restore(world: World) -> tuple[str, ...]:
    _newest_data_gone(world)
    return _RESTORE


def _newest_gone_by_number(world: World) -> tuple[str, ...]:
    _newest_data_gone(world)
    return (*_RESTORE, "--at", f"#{world.tail}")


def _second_restored(world: World) -> None:
    assert world.is_as_protected("out", like="second-")


def _commit(world: World, seq: int) -> None:
    world.names["object"] = world.commit(seq).removeprefix("vault/")


def _hole(world: World) -> None:
    seq = int(world.names["second"])
    _commit(world, seq)
    tamper.remove(world, world.commit(seq))


def _hole_restore(world: World) -> tuple[str, ...]:
    _hole(world)
    return _RESTORE


def _hole_before(world: World) -> tuple[str, ...]:
    _hole(world)
    return (*_RESTORE, "--at", f"#{world.names['first']}")


def _hole_salvage(world: World) -> tuple[str, ...]:
    _hole(world)
    return (*_RESTORE, "--salvage")


def _older_where_listed(world: World) -> None:
    """Of the lost commit, 300 KiB of one disk and 40 KiB of the other are as before it."""
    source = world.path("root.img").read_bytes()
    restored = world.path("out/web1-root.img").read_bytes()
    wrong = [at for at in range(0, len(source), 4096) if _differs(source, restored, at)]
    before = world.path("first-root.img").read_bytes()
    assert 0 < len(wrong) <= 80
    assert not [at for at in wrong if _differs(before, restored, at)]


def _hole_points(world: World) -> tuple[str, ...]:
    _hole(world)
    return ("points", "web1", *ACCESS)


def _first_restored(world: World) -> None:
    assert world.is_as_protected("out", like="first-")


def _tail_damaged(world: World) -> tuple[str, ...]:
    _commit(world, world.tail)
    tamper.flip(world, world.commit(world.tail), 200)
    return _RESTORE


def _tail_gone(world: World) -> tuple[str, ...]:
    tamper.remove(world, world.commit(world.tail))
    return (*_RESTORE, "--expect", f"{world.tail}#{world.names['digest']}")


def _group_record(world: World) -> tuple[str, ...]:
    tamper.remove(world, world.object("group"))
    return _RESTORE


def _term(world: World) -> tuple[str, ...]:
    tamper.remove(world, world.object("epochs/00000001/term"))
    return _RESTORE


def _own_key(world: World, epoch: int, use: str) -> None:
    recipient = tamper.private(world, tamper.OPERATOR).box.public.hex()
    world.names["recipient"] = recipient
    tamper.remove(world, world.object(f"epochs/{epoch:08d}/for/{recipient}/{use}"))


def _data_key(world: World) -> tuple[str, ...]:
    _own_key(world, 3, "data")
    return _RESTORE


def _data_key_of_one(world: World) -> tuple[str, ...]:
    """The other recipient has lost nothing."""
    _own_key(world, 3, "data")
    pin = ("--trust", "op.pub")
    return ("restore", "web1", *ACCESS[:2], "--key", "second.key", *pin, "--to", "out")


def _machine_record(world: World) -> tuple[str, ...]:
    tamper.remove(world, world.object("machine/00000001"))
    return ("points", "web1", *ACCESS)


def _machine_record_rescue(world: World) -> tuple[str, ...]:
    tamper.remove(world, world.object("machine/00000001"))
    return ("rescue", *ACCESS)


def _machine_record_other(world: World) -> tuple[str, ...]:
    tamper.remove(world, world.object("machine/00000001"))
    return ("restore", "db1", *ACCESS, "--to", "out")


def _newest_restored(world: World) -> None:
    assert world.is_as_protected("out")


def _drill(world: World) -> tuple[str, ...]:
    for key in world.data():
        size = world.path(key).stat().st_size
        for offset in range(100, size, 4096):
            data = bytearray(world.path(key).read_bytes())
            data[offset] ^= 1
            world.path(key).write_bytes(bytes(data))
    world.undo.clear()
    return ("key", "drill", *ACCESS, "--state", "state")


def _not_noted(world: World) -> None:
    assert json.loads(world.fine("status", "c.yaml", "--json"))["key_drilled"].startswith("never")


ROWS = (
    Row("a frame damaged, verify", _damaged_verify, 6),
    Row("a frame damaged, restore", _damaged_restore, 6, kept=_READ, state=_PARTIAL, check=_no_names),
    Row("a frame damaged, restore --salvage", _damaged_salvage, 6, kept=_READ, check=_all_but_one_frame),
    Row("data of the newest point missing, restore", _newest_gone_restore, 0, kept=_READ, check=_second_restored),
    Row("data of the newest point missing, restore by number", _newest_gone_by_number, 6, kept=_READ, state=_PARTIAL, check=_no_names),
    Row("a commit missing, restore", _hole_restore, 6),
    Row("a commit missing, a point before it", _hole_before, 0, kept=_READ, check=_first_restored),
    Row("a commit missing, restore --salvage", _hole_salvage, 6, kept=_READ, check=_older_where_listed),
    Row("a commit missing, points", _hole_points, 0),
    Row("the newest commit damaged, restore", _tail_damaged, 6),
    Row("the newest commit gone, restore --expect", _tail_gone, 6),
    Row("the group's record missing, restore", _group_record, 0, kept=_READ, check=_newest_restored),
    Row("a term missing, restore", _term, 0, kept=_READ, check=_newest_restored),
    Row("a recipient's data key missing, restore", _data_key, 6, kept=_READ, state=_PARTIAL, check=_no_names),
    Row("a recipient's data key missing, restore by the other", _data_key_of_one, 0, kept=_READ, check=_newest_restored),
    Row("the machine record missing, points", _machine_record, 6),
    Row("the machine record missing, rescue", _machine_record_rescue, 0),
    Row("the machine record missing, another machine", _machine_record_other, 0, kept=_READ),
    Row("all frames damaged, drill", _drill, 6, kept=("state",), check=_not_noted),
)
