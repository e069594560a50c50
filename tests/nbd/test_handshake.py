from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import ProtocolError
from stages.nbd import wire
from stages.nbd.device import DeviceInfo
from stages.nbd.handshake import Aborted, Handshake, Selected, transmission_flags
from tests.nbd.memory import info
from tests.nbd.spoken import NEWSTYLE, OptionReply, go, meta, option, option_replies

DISK, OTHER = info("disk", 12345), info("other", 1 << 20, read_only=True)
EXPORTS = {"disk": DISK, "other": OTHER}


def talk(
    *said: bytes, default: str | None = None, exports: dict[str, DeviceInfo] | None = None
) -> tuple[Handshake, bytes]:
    handshake = Handshake(exports or EXPORTS, default)
    answered = b""
    for data in said:
        handshake.feed(data)
        answered += b"".join(handshake.replies())
    return handshake, answered


def ask(*said: bytes) -> list[OptionReply]:
    return option_replies(talk(NEWSTYLE, *said)[1])


def kinds(*said: bytes) -> list[int]:
    return [reply.kind for reply in ask(*said)]


def test_the_greeting_is_fixed_newstyle() -> None:
    assert Handshake.greeting() == b"NBDMAGICIHAVEOPT\x00\x03"


def test_export_name_with_and_without_zeroes() -> None:
    handshake, answer = talk(NEWSTYLE, option(wire.OPT_EXPORT_NAME, b"disk"))
    assert handshake.outcome == Selected(DISK, structured=False, allocation=False)
    assert answer == struct.pack(">QH", 12345, transmission_flags(DISK, structured=False))
    old = wire.CLIENT_FLAGS.pack(0)
    handshake, padded = talk(old, option(wire.OPT_EXPORT_NAME, b"disk"))
    assert padded == answer + bytes(124)


def test_transmission_flags_of_read_only_and_writable() -> None:
    writable = transmission_flags(DISK, structured=True)
    assert writable == 0b1_1110_1101
    assert transmission_flags(OTHER, structured=False) == 0b1_0000_0111


def test_go_sends_what_was_asked_and_the_block_sizes() -> None:
    wanted = (wire.INFO_NAME, wire.INFO_DESCRIPTION, wire.INFO_BLOCK_SIZE)
    replies = ask(go("disk", *wanted))
    assert [reply.kind for reply in replies] == [wire.REP_INFO] * 4 + [wire.REP_ACK]
    flags = transmission_flags(DISK, structured=False)
    assert replies[0].data == struct.pack(">HQH", 0, 12345, flags)
    assert replies[1].data == b"\0\1disk"
    assert replies[2].data == b"\0\2memory of disk"
    assert replies[3].data == struct.pack(">HIII", 3, 1, 4096, 32 << 20)


def test_info_does_not_end_the_negotiation() -> None:
    handshake, answer = talk(NEWSTYLE, go("other", number=wire.OPT_INFO))
    assert handshake.outcome is None
    assert option_replies(answer)[-1].kind == wire.REP_ACK


def test_the_empty_name_is_the_default_export() -> None:
    handshake, _ = talk(NEWSTYLE, go(""), default="other")
    assert handshake.outcome == Selected(OTHER, structured=False, allocation=False)
    assert kinds(go("")) == [wire.REP_ERR_UNKNOWN]
    named, unnamed = info("named"), info("")
    handshake, _ = talk(NEWSTYLE, go(""), default="named", exports={"named": named, "": unnamed})
    assert isinstance(handshake.outcome, Selected)
    assert handshake.outcome.info is unnamed


def test_an_unknown_export_can_be_followed_by_a_known_one() -> None:
    handshake, answer = talk(NEWSTYLE, go("nowhere"), go("disk"))
    assert option_replies(answer)[0].kind == wire.REP_ERR_UNKNOWN
    assert isinstance(handshake.outcome, Selected)


def test_list_names_all_exports() -> None:
    replies = ask(option(wire.OPT_LIST))
    assert [reply.kind for reply in replies] == [wire.REP_SERVER] * 2 + [wire.REP_ACK]
    assert replies[0].data == b"\0\0\0\4diskmemory of disk"


def test_abort_is_acknowledged() -> None:
    handshake, answer = talk(NEWSTYLE, option(wire.OPT_ABORT))
    assert handshake.outcome == Aborted()
    assert option_replies(answer) == [OptionReply(wire.OPT_ABORT, wire.REP_ACK, b"")]


@pytest.mark.parametrize("number", [4, wire.OPT_STARTTLS, 11, 99, 1 << 31])
def test_what_is_not_supported_says_so(number: int) -> None:
    assert kinds(option(number), option(wire.OPT_ABORT)) == [wire.REP_ERR_UNSUP, wire.REP_ACK]


@pytest.mark.parametrize(
    "bad",
    [
        option(wire.OPT_LIST, b"x"),
        option(wire.OPT_STARTTLS, b"x"),
        option(wire.OPT_STRUCTURED_REPLY, b"x"),
        option(wire.OPT_GO, b""),
        option(wire.OPT_GO, struct.pack(">I", 99) + b"disk\0\0"),
        option(wire.OPT_GO, struct.pack(">I", 4) + b"disk\0\1"),
        option(wire.OPT_GO, struct.pack(">I", 4) + b"disk\0\0x"),
        option(wire.OPT_INFO, struct.pack(">I", 2) + b"\xff\xff\0\0"),
        option(wire.OPT_GO, struct.pack(">I", 5000) + b"x" * 5000 + b"\0\0"),
        go("a\0b"),
        meta(wire.OPT_SET_META_CONTEXT, "disk", wire.BASE_ALLOCATION),  # before structured
        meta(wire.OPT_LIST_META_CONTEXT, "disk"),
    ],
)
def test_malformed_options_are_answered(bad: bytes) -> None:
    assert kinds(bad, go("disk"))[0] == wire.REP_ERR_INVALID


def test_meta_contexts_list_and_set() -> None:
    structured = option(wire.OPT_STRUCTURED_REPLY)
    context = b"\0\0\0\1base:allocation"
    for queries in ((), ("base:",), ("base:allocation",), ("x:y", "base:")):
        found = ask(structured, meta(wire.OPT_LIST_META_CONTEXT, "disk", *queries))[1:]
        assert [reply.kind for reply in found] == [wire.REP_META_CONTEXT, wire.REP_ACK]
        assert found[0].data == b"\0\0\0\0base:allocation"
    found = ask(structured, meta(wire.OPT_SET_META_CONTEXT, "disk", "x:y", "base:allocation"))
    assert found[1].data == context
    for queries in ((), ("base:",), ("x:y",)):
        found = ask(structured, meta(wire.OPT_SET_META_CONTEXT, "disk", *queries))[1:]
        assert [reply.kind for reply in found] == [wire.REP_ACK]
    lost = meta(wire.OPT_SET_META_CONTEXT, "nowhere", "base:allocation")
    assert ask(structured, lost)[1].kind == wire.REP_ERR_UNKNOWN


def test_contexts_hold_for_the_export_they_were_set_for() -> None:
    structured = option(wire.OPT_STRUCTURED_REPLY)
    chosen = meta(wire.OPT_SET_META_CONTEXT, "disk", "base:allocation")
    same = talk(NEWSTYLE, structured, chosen, go("disk"))[0].outcome
    other = talk(NEWSTYLE, structured, chosen, go("other"))[0].outcome
    again = meta(wire.OPT_SET_META_CONTEXT, "disk")
    none = talk(NEWSTYLE, structured, chosen, again, go("disk"))[0].outcome
    assert same == Selected(DISK, structured=True, allocation=True)
    assert other == Selected(OTHER, structured=True, allocation=False)
    assert none == Selected(DISK, structured=True, allocation=False)


def test_too_many_queries() -> None:
    many = meta(wire.OPT_LIST_META_CONTEXT, "disk", *["base:"] * 65)
    assert kinds(option(wire.OPT_STRUCTURED_REPLY), many)[1] == wire.REP_ERR_INVALID


def test_a_large_option_is_skipped_without_being_kept() -> None:
    handshake = Handshake(EXPORTS)
    handshake.feed(NEWSTYLE + wire.OPTION.pack(wire.OPTION_MAGIC, wire.OPT_GO, 1 << 20))
    assert option_replies(b"".join(handshake.replies()))[0].kind == wire.REP_ERR_TOO_BIG
    for _ in range(64):
        handshake.feed(bytes(16 << 10))
        assert list(handshake.replies()) == []
        assert handshake.unread == b""
    handshake.feed(go("disk"))
    assert len(list(handshake.replies())) == 1
    assert isinstance(handshake.outcome, Selected)


def test_what_follows_the_choice_is_left_alone() -> None:
    handshake, _ = talk(NEWSTYLE + go("disk") + b"requests")
    assert handshake.unread == b"requests"


@pytest.mark.parametrize(
    "said",
    [
        wire.CLIENT_FLAGS.pack(4),
        NEWSTYLE + b"x" * 16,
        NEWSTYLE + option(wire.OPT_EXPORT_NAME, b"nowhere"),
        NEWSTYLE + option(wire.OPT_EXPORT_NAME, b"\xff"),
        NEWSTYLE + wire.OPTION.pack(wire.OPTION_MAGIC, wire.OPT_EXPORT_NAME, 4097),
        NEWSTYLE + wire.OPTION.pack(wire.OPTION_MAGIC, wire.OPT_LIST, (1 << 20) + 1),
        wire.CLIENT_FLAGS.pack(0) + go("disk"),
    ],
)
def test_nonsense_ends_the_connection(said: bytes) -> None:
    with pytest.raises(ProtocolError):
        talk(said)


def test_options_are_bounded() -> None:
    handshake = Handshake(EXPORTS)
    handshake.feed(NEWSTYLE)
    with pytest.raises(ProtocolError):
        for _ in range(wire.MAX_OPTIONS + 1):
            handshake.feed(option(99))
            list(handshake.replies())


SESSIONS = [
    NEWSTYLE + option(wire.OPT_LIST) + go("disk", 1, 2, 3) + b"rest",
    NEWSTYLE
    + option(wire.OPT_STRUCTURED_REPLY)
    + meta(wire.OPT_SET_META_CONTEXT, "disk", "base:allocation")
    + option(77, b"x" * 70000)
    + go("nowhere")
    + go("disk"),
    NEWSTYLE + option(wire.OPT_STARTTLS) + option(wire.OPT_ABORT),
    NEWSTYLE + option(wire.OPT_EXPORT_NAME, b"other") + b"tail",
]


@given(st.sampled_from(SESSIONS), st.lists(st.integers(1, 5000), max_size=40))
def test_any_split_says_the_same(session: bytes, cuts: list[int]) -> None:
    whole, answer = talk(session)
    pieces, rest = [], session
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    handshake, pieced = talk(*pieces, rest)
    assert (handshake.outcome, pieced) == (whole.outcome, answer)
    assert handshake.unread == whole.unread


OPTIONS = st.builds(
    option, st.sampled_from([1, 2, 3, 5, 6, 7, 8, 9, 10, 11]), st.binary(max_size=60)
)
WELL_MEANT = st.one_of(
    OPTIONS,
    st.binary(max_size=60),
    st.builds(go, st.sampled_from(["", "disk", "x"]), st.integers(0, 9)),
    st.builds(
        meta,
        st.sampled_from([9, 10]),
        st.sampled_from(["disk", "x"]),
        st.sampled_from(["base:", "base:allocation", ""]),
    ),
    st.just(option(wire.OPT_STRUCTURED_REPLY)),
)


@settings(max_examples=300)
@given(st.sampled_from([NEWSTYLE, b"\0\0\0\0", b""]), st.lists(WELL_MEANT, max_size=8))
def test_garbage_gives_replies_or_a_protocol_error(flags: bytes, said: list[bytes]) -> None:
    handshake = Handshake(EXPORTS, "disk")
    answered = b""
    try:
        for data in [flags, *said]:
            handshake.feed(data)
            answered += b"".join(handshake.replies())
    except ProtocolError:
        return
    if not (said and said[-1][8:12] == b"\0\0\0\1") and not isinstance(handshake.outcome, Selected):
        option_replies(answered)
    assert len(handshake.unread) <= sum(map(len, said)) + 4
