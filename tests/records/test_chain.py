"""The audit chain names the first entry that was changed, removed, moved or put in."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from pipeline.records import chain
from pipeline.records.engine import parse_address
from pipeline.records.model import AuditEntry, Change, NewAudit
from tests.records.support import audit, opened

_WORDS = st.text(st.characters(codec="utf-8"), max_size=8)
_ENTRIES = st.lists(
    st.builds(
        NewAudit,
        who=_WORDS,
        role=_WORDS,
        address=_WORDS,
        operation=_WORDS,
        subject=_WORDS,
        outcome=_WORDS,
        detail=st.dictionaries(_WORDS, _WORDS | st.integers() | st.none(), max_size=3),
    ),
    min_size=1,
    max_size=8,
)


def _linked(new: list[NewAudit]) -> list[AuditEntry]:
    last, entries = chain.Anchor(), []
    for number, each in enumerate(new):
        entry = chain.link(last, number, each)
        entries.append(entry)
        last = chain.Anchor(entry.seq, entry.digest)
    return entries


@given(_ENTRIES)
def test_what_is_as_it_was_written_verifies(new: list[NewAudit]) -> None:
    entries = _linked(new)
    found = chain.verify(chain.Anchor(), entries)
    assert (found.broken, found.checked) == (None, len(new))
    assert found.last == chain.Anchor(entries[-1].seq, entries[-1].digest)


@given(_ENTRIES, st.data())
def test_the_first_broken_entry_is_named(new: list[NewAudit], data: st.DataObject) -> None:
    entries = _linked(new)
    at = data.draw(st.integers(0, len(entries) - 1))
    field = data.draw(st.sampled_from(AuditEntry.__slots__))
    old = getattr(entries[at], field)
    entries[at] = replace(entries[at], **{field: old + (1 if isinstance(old, int) else "x")})
    found = chain.verify(chain.Anchor(), entries)
    assert found.broken == at + 1
    assert found.checked == at


@given(_ENTRIES, st.data())
def test_a_hole_is_named(new: list[NewAudit], data: st.DataObject) -> None:
    entries = _linked(new)
    at = data.draw(st.integers(0, len(entries) - 1))
    del entries[at]
    found = chain.verify(chain.Anchor(), entries)
    assert found.broken == (None if at == len(entries) else at + 1)


@given(_ENTRIES, st.data())
def test_an_entry_with_a_right_digest_of_its_own_does_not_follow(
    new: list[NewAudit], data: st.DataObject
) -> None:
    """Whoever changes one entry and its digest would have to change all that follow."""
    entries = _linked([*new, new[0]])
    at = data.draw(st.integers(0, len(entries) - 2))
    forged = replace(entries[at], who=entries[at].who + "x")
    entries[at] = replace(forged, digest=chain.entry_digest(forged))
    assert chain.verify(chain.Anchor(), entries).broken == at + 2


async def test_a_changed_row_is_found(address: str) -> None:
    async with opened(address) as records:
        for number in range(9):
            await records.apply(Change(audit=(audit(number),)))
        assert (await records.verify_audit()).checked == 9
        _sql(address, "UPDATE audit SET outcome = 'refused' WHERE seq = 4")
        found = await records.verify_audit()
        assert (found.broken, found.checked) == (4, 3)
        assert "is not what was written" in found.reason


async def test_the_newest_rows_being_gone_is_found(address: str) -> None:
    async with opened(address) as records:
        for number in range(4):
            await records.apply(Change(audit=(audit(number),)))
        _sql(address, "DELETE FROM audit WHERE seq >= 3")
        found = await records.verify_audit()
        assert (found.broken, found.checked) == (3, 2)
        assert "up to #4" in found.reason


def _sql(address: str, statement: str) -> None:
    engine = create_engine(parse_address(address))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()
