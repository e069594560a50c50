"""Every row of the table happens as it says."""

from __future__ import annotations

import re

import pytest

from stages.errors import EXIT_CODES
from tests.faults import mounts, table
from tests.faults.row import Row, matches
from tests.faults.world import World

# A defect cannot be arranged, and nothing of this version is refused for its state.
_NOT_ARRANGED = {1, 11}


@pytest.mark.parametrize("row", table.ROWS, ids=lambda row: re.sub(r"\W+", "-", row.fault))
def test_row(row: Row, world: World) -> None:
    if row.needs and not mounts.available():
        pytest.skip(f"needs {row.needs}")
    argv = row.arrange(world)
    before = world.digest(*row.kept)
    said = row.act(world, argv)
    assert "Traceback" not in said.out + said.err
    assert said.code == row.code, said
    assert matches(row.error, said.err, world.names), f"{row.error}\n!=\n{said.err}"
    if row.prints is not None:
        assert matches(row.prints, said.out, world.names), f"{row.prints}\n!=\n{said.out}"
    assert world.digest(*row.kept) == before
    row.check(world)
    world.mend()
    if row.heals and row.kept != (".",):
        assert world.run().code == 0
        assert world.restore("healed").code == 0
        assert world.is_as_protected("healed")


def test_the_table_has_every_exit_code() -> None:
    assert {row.code for row in table.ROWS if row.code >= 0} == set(EXIT_CODES) - _NOT_ARRANGED


def test_every_refusal_has_a_hint() -> None:
    """But those of the option parser and interruptions; a configuration's is in its lines."""
    plain = {2, 3, 130}
    without = [row for row in table.ROWS if row.code > 0 and row.code not in plain and not row.hint]
    assert [row.fault for row in without if "hint" not in row.sees and row.prints is None] == []


def test_it_is_rendered() -> None:
    text = table.render()
    for row in table.ROWS:
        assert f"| {row.fault} | " in text
    assert len({row.fault for row in table.ROWS}) == len(table.ROWS)
    assert "{" not in re.sub(r"`[^`]*`", "", text)
