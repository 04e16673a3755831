"""The codec against itself, and against whatever bytes a peer may send."""

import struct
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.guest.frames import (
    FLUSH,
    MAGIC,
    MAX_PAYLOAD_BYTES,
    Frame,
    FrameParser,
    FrameType,
    MalformedFrame,
    OpeningSearch,
    decode_fields,
    encode_data,
    encode_fields,
    encode_frame,
)


@st.composite
def frames(draw) -> Frame:
    """Any frame that the format allows."""
    kind = draw(st.sampled_from(FrameType))
    speaks_of_streams = kind in (FrameType.DATA, FrameType.EOF, FrameType.WINDOW)
    shortest, longest = {
        FrameType.HELLO: (32, 300),
        FrameType.WELCOME: (32, 300),
        FrameType.EOF: (0, 0),
        FrameType.CLOSE: (0, 0),
        FrameType.WINDOW: (4, 4),
    }.get(kind, (4, 300))
    return Frame(
        kind,
        draw(st.integers(0, 2)) if speaks_of_streams else 0,
        0 if kind <= FrameType.WELCOME else draw(st.integers(1, 2**32 - 1)),
        draw(st.binary(min_size=shortest, max_size=longest)),
    )


def parse_all(pieces: list[bytes]) -> list[Frame]:
    parser = FrameParser()
    found = []
    for piece in pieces:
        parser.feed(piece)
        while (frame := parser.next_frame()) is not None:
            found.append(frame)
    assert parser.unparsed == b""
    return found


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


@given(st.lists(frames(), max_size=20), st.lists(st.integers(0, 2**20), max_size=30))
def test_any_chunking_of_a_stream_parses_to_the_same_frames(sent: list[Frame], places: list[int]) -> None:
    stream = b"".join(encode_frame(*frame) for frame in sent)
    assert parse_all(cut(stream, places)) == sent


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=50)), max_size=10))
def test_fields_survive_a_round_trip(pairs: list[tuple[int, bytes]]) -> None:
    fields = decode_fields(encode_fields(pairs))
    for tag, _ in pairs:
        assert list(fields.find_all(tag)) == [value for other, value in pairs if other == tag]


@given(st.binary(max_size=200))
def test_arbitrary_bytes_decode_or_are_called_malformed(noise: bytes) -> None:
    parser = FrameParser(noise)
    try:
        while parser.next_frame() is not None:
            pass
    except MalformedFrame:
        assert parser.unparsed
    with suppress(MalformedFrame):
        decode_fields(noise)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<BBHII", 0, 0, 0, 0, 0),
        struct.pack("<BBHII", 11, 0, 0, 0, 0),
        struct.pack("<BBHII", 5, 3, 0, 1, 0),
        struct.pack("<BBHII", 5, 1, 1, 1, 0),
        struct.pack("<BBHII", 5, 1, 0, 1, MAX_PAYLOAD_BYTES + 1),
        struct.pack("<BBHII", 5, 1, 0, 0, 1),
        struct.pack("<BBHII", 1, 0, 0, 1, 32),
        struct.pack("<BBHII", 2, 0, 0, 0, 31),
        struct.pack("<BBHII", 3, 0, 0, 1, 1),
        struct.pack("<BBHII", 6, 1, 0, 1, 1),
        struct.pack("<BBHII", 7, 0, 0, 1, 5),
        struct.pack("<BBHII", 9, 1, 0, 1, 0),
        struct.pack("<BBHII", 10, 0, 0, 1, 3),
        struct.pack("<BBHII", 255, 0, 0, 1, 3),
    ],
)
def test_a_malformed_header_raises_before_its_payload_arrives(header: bytes) -> None:
    parser = FrameParser(encode_frame(FrameType.EOF, 1, 1) + header)
    assert parser.next_frame() is not None
    with pytest.raises(MalformedFrame):
        parser.next_frame()
    assert parser.unparsed == header


def test_data_of_any_size_becomes_frames_of_at_most_the_limit() -> None:
    content = bytes(range(256)) * 200
    parser = FrameParser(encode_data(1, 9, memoryview(content)))
    sizes, joined = [], b""
    while (frame := parser.next_frame()) is not None:
        assert frame[:3] == (FrameType.DATA, 1, 9)
        sizes.append(len(frame.payload))
        joined += frame.payload
    assert joined == content
    assert max(sizes) == MAX_PAYLOAD_BYTES


def test_the_flush_completes_any_half_frame_and_is_then_malformed() -> None:
    for kept in range(1, 12 + MAX_PAYLOAD_BYTES, 1000):
        half = encode_frame(FrameType.DATA, 0, 1, bytes(MAX_PAYLOAD_BYTES))[:kept]
        parser = FrameParser(half + FLUSH)
        with pytest.raises(MalformedFrame):
            list(iter(parser.next_frame, None))


@given(st.binary(max_size=100), st.lists(st.integers(0, 2**20), max_size=10), st.binary(max_size=40))
def test_the_opening_is_found_behind_stale_bytes_however_it_is_cut(
    stale: bytes, places: list[int], after: bytes
) -> None:
    nonce = b"n" * 16
    opening = encode_frame(FrameType.WELCOME, 0, 0, MAGIC + nonce)
    older = encode_frame(FrameType.WELCOME, 0, 0, MAGIC + b"o" * 16)
    search = OpeningSearch(FrameType.WELCOME, MAGIC + nonce)
    found = None
    for piece in cut(stale + older + stale + opening + after, places):
        if found is not None:
            found += piece
        else:
            found = search.feed(piece)
    assert found == opening + after


def test_a_nonce_inside_something_else_is_not_an_opening() -> None:
    search = OpeningSearch(FrameType.WELCOME, MAGIC + b"n" * 16)
    assert search.feed(MAGIC + b"n" * 16) is None
    assert search.feed(encode_frame(FrameType.DATA, 1, 4, MAGIC + b"n" * 16)) is None
    too_short = struct.pack("<BBHII", FrameType.WELCOME, 0, 0, 0, 31) + MAGIC + b"n" * 16
    assert search.feed(too_short) is None


@pytest.mark.parametrize("payload", [b"\1", b"\1\5\0\0\0abc", b"\1\xff\xff\xff\xff"])
def test_cut_off_fields_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode_fields(payload)


def test_a_number_of_the_wrong_size_is_malformed() -> None:
    with pytest.raises(MalformedFrame):
        decode_fields(encode_fields([(1, b"1234")])).find_number(1)


def test_undecodable_file_names_survive() -> None:
    fields = decode_fields(encode_fields([(1, b"a\xff")]))
    text = fields.find_text(1)
    assert text is not None
    assert encode_fields([(1, text)]) == encode_fields([(1, b"a\xff")])
