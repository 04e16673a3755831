"""Descriptions and records of sessions go round; what breaks their form is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.base.problem import Problem
from banger.guest.command import ExecRequest, ExitStatus
from banger.guest.frames import MalformedFrame, decode_fields, encode_fields
from banger.guest.session_records import (
    RecordKind,
    RecordParser,
    SessionInfo,
    SessionRecord,
    SessionState,
    StartSession,
    encode_gap,
    encode_record,
    encode_session,
    parse_session,
)
from banger.guest.sessions import plan_start

NUMBERS = st.integers(0, 2**64 - 1)
EXITS = (
    st.none()
    | st.builds(ExitStatus, st.integers(0, 255), st.none())
    | st.builds(ExitStatus, st.none(), st.integers(1, 64))
)
WORDS = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="="), min_size=1, max_size=20
)
INFOS = st.builds(
    SessionInfo,
    id=st.text("aZ0._-", min_size=1, max_size=64),
    state=st.sampled_from(["running", "stopping", "exited", "stopped", "removed"]),
    pid=NUMBERS,
    exit_status=EXITS,
    begin=NUMBERS,
    end=NUMBERS,
    started_ns=NUMBERS,
    ended_ns=st.none() | NUMBERS,
    pty=st.booleans(),
    rows=NUMBERS,
    columns=NUMBERS,
    has_writer=st.booleans(),
    readers=NUMBERS,
    takes_input=st.booleans(),
    tags=st.lists(st.tuples(WORDS, WORDS), max_size=4).map(tuple),
).map(lambda info: info if info.is_over else info._replace(exit_status=None))
RECORDS = st.one_of(
    st.builds(
        SessionRecord,
        st.sampled_from([RecordKind.STDOUT, RecordKind.STDERR, RecordKind.RESTORE]),
        NUMBERS,
        st.binary(max_size=50),
        st.none(),
    ),
    st.builds(SessionRecord, st.just(RecordKind.STATE), NUMBERS, st.just(b""), INFOS),
)
INFO = SessionInfo("s", "running", 1, None, 0, 5, 1, None, False, 0, 0, False, 0)


@given(INFOS)
def test_a_description_goes_round(info: SessionInfo) -> None:
    assert parse_session(decode_fields(encode_session(info))) == info


@given(st.lists(RECORDS, max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_records_come_whole_however_they_are_cut(records: list[SessionRecord], cuts: list[int]) -> None:
    stream = b"".join(
        encode_record(r.kind, r.sequence, encode_session(r.info) if r.info else r.data) for r in records
    )
    parser, got = RecordParser(), []
    while stream:
        size = cuts[len(got) % len(cuts)]
        got += parser.feed(stream[:size])
        stream = stream[size:]
    assert got == records
    assert parser.is_whole


@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_malformed(data: bytes) -> None:
    with suppress(MalformedFrame):
        RecordParser().feed(data)


def test_a_gap_says_where_the_log_goes_on() -> None:
    (gap,) = RecordParser().feed(encode_gap(5, 900))
    assert (gap.kind, gap.sequence, gap.end) == (RecordKind.GAP, 5, 900)
    assert SessionRecord(RecordKind.STDOUT, 7, b"abc").end == 10
    assert SessionRecord(RecordKind.RESTORE, 7, b"abc").end == 7


def test_a_kind_of_a_newer_agent_is_passed_over() -> None:
    stream = encode_record(RecordKind.STDOUT, 0, b"a")
    newer = b"\x09" + stream[1:]
    assert RecordParser().feed(newer + stream) == [SessionRecord(RecordKind.STDOUT, 0, b"a")]


@pytest.mark.parametrize(
    "stream",
    [
        b"\0" * 13,
        encode_gap(9, 9),
        encode_record(RecordKind.GAP, 0, b"123"),
        encode_record(RecordKind.STDOUT, 0, b"")[:9] + (65537).to_bytes(4, "little"),
        encode_record(RecordKind.STATE, 0, b"\1\2"),
        encode_record(RecordKind.STATE, 0, encode_session(INFO._replace(id="../x"))),
        encode_record(RecordKind.STATE, 0, encode_session(INFO)[:-1]),
        encode_record(RecordKind.STATE, 0, encode_session(INFO) + encode_fields([(4, 1), (5, 1)])),
        encode_record(
            RecordKind.STATE, 0, encode_session(INFO).replace(b"\2\x08\0\0\0\1", b"\2\x08\0\0\0\7")
        ),
    ],
)
def test_what_makes_no_sense_is_malformed(stream: bytes) -> None:
    with pytest.raises(MalformedFrame):
        RecordParser().feed(stream)


def test_a_request_carries_the_command_and_what_is_the_sessions() -> None:
    request = ExecRequest(argv=("make", "test"), cwd="/root/repo", stdin=True)
    fields = plan_start(StartSession("s-1", request, required=("make",), tags=(("a", "b=c"),)))
    assert fields == [
        (1, "make"),
        (1, "test"),
        (3, "/root/repo"),
        (5, 2),
        (8, "s-1"),
        (9, "make"),
        (10, "a=b=c"),
        (11, 1048576),
    ]


@pytest.mark.parametrize("session_id", ["", "a b", "a/b", "x" * 65, "ä", "a\n"])
def test_an_id_is_a_plain_word(session_id: str) -> None:
    with pytest.raises(Problem):
        plan_start(StartSession(session_id, ExecRequest(argv=("true",))))


@pytest.mark.parametrize("state", ["running", "stopping"])
def test_a_session_that_runs_has_no_exit_status(state: SessionState) -> None:
    """Else a guest could have its row written anew for ever."""
    info = SessionInfo("a", state, 1, ExitStatus(1, None), 0, 0, 0, None, False, 0, 0, False, 0)
    with pytest.raises(MalformedFrame, match="has ended"):
        parse_session(decode_fields(encode_session(info)))
