"""Snapshot hooks that fail: rows."""

from __future__ import annotations

from tests.faults import tamper
from tests.faults.row import RUN, SHIPPED, Row
from tests.faults.world import World


def _hooked(world: World, pre: str, post: str) -> None:
    for name, script in (("pre", pre), ("post", post)):
        path = world.path(name)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    old = "{path: ./data.img, capture: scan}"
    new = "{path: ./data.img, capture: scan, snapshot: {pre: ./pre, post: ./post}}"
    tamper.change(world, "c.yaml", world.path("c.yaml").read_text().replace(old, new).encode())


def _pre_fails(world: World) -> tuple[str, ...]:
    _hooked(world, "echo cannot freeze; exit 3", "touch thawed")
    return RUN


def _post_fails(world: World) -> tuple[str, ...]:
    _hooked(world, "true", "echo cannot thaw; exit 4")
    return RUN


def _pre_missing(world: World) -> tuple[str, ...]:
    _hooked(world, "true", "touch thawed")
    tamper.remove(world, "pre")
    return RUN


def _scan_fails_in_hook(world: World) -> tuple[str, ...]:
    _hooked(world, "rm data.img", "touch thawed")
    old = world.path("data.img").read_bytes()
    world.undo.append(lambda: tamper.write(world.path("data.img"), old))
    return RUN


def _thawed(world: World) -> None:
    assert world.path("thawed").exists()


ROWS = (
    Row(
        "freeze hook fails",
        _pre_fails,
        7,
        sees=(
            "backstay: snapshot: web1/data: {root}/pre: the snapshot hook failed with exit "
            "code 3: cannot freeze"
        ),
        hint="nothing was read; try the command by hand, as the user that runs Backstay",
        kept=SHIPPED,
        check=_thawed,
    ),
    Row(
        "freeze hook missing",
        _pre_missing,
        7,
        sees=(
            "backstay: snapshot: web1/data: {root}/pre: the snapshot hook cannot be run: No "
            "such file or directory"
        ),
        hint="nothing was read; try the command by hand, as the user that runs Backstay",
        kept=SHIPPED,
        check=_thawed,
    ),
    Row(
        "thaw hook fails",
        _post_fails,
        7,
        sees=(
            "backstay: snapshot: web1/data: {root}/post: the snapshot hook failed with exit "
            "code 4: cannot thaw"
        ),
        hint="the disk may still be held: free it by hand before anything else",
        kept=SHIPPED,
    ),
    Row(
        "disk vanishes after the freeze hook",
        _scan_fails_in_hook,
        7,
        sees="backstay: protect: web1/data: {root}/data.img: does not exist",
        hint="is it mounted or attached? Paths in the config count from the config's folder",
        kept=SHIPPED,
        check=_thawed,
    ),
)
