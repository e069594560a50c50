"""The names of a vault's objects sort alike key by key and folder by folder."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.store import canary
from stages.store.port import check_key
from stages.vault import layout

ids = st.binary(min_size=16, max_size=16)
recipients = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, 99_999_999)
names = st.one_of(
    st.sampled_from([layout.VAULT, canary.KEY]),
    st.builds(layout.charter, numbers),
    *(
        st.builds(of, ids, numbers)
        for of in (
            *(layout.machine, layout.term, layout.commit, layout.rollup),
            *(layout.manifest, layout.failover),
        )
    ),
    st.builds(layout.group_record, ids),
    st.builds(layout.digest_key, ids, recipients),
    st.builds(layout.wrapped_key, ids, numbers, recipients, st.sampled_from(["data", "index"])),
    st.builds(layout.data, ids, numbers, numbers),
    st.builds(layout.checkpoint_part, ids, numbers, st.integers(0, 1 << 40)),
)


@given(st.lists(names, max_size=20))
def test_some_stores_list_folder_by_folder(keys: list[str]) -> None:
    assert sorted(keys) == sorted(keys, key=lambda key: check_key(key).split("/"))
