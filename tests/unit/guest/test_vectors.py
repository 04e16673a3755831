"""The golden vectors that the C agent is tested with, read from the host's side."""

import json
from pathlib import Path

import pytest

from banger.guest.frames import (
    FLUSH,
    MAGIC,
    MAX_PAYLOAD_BYTES,
    WINDOW_BYTES,
    FrameParser,
    FrameType,
    MalformedFrame,
    OpeningSearch,
    decode_fields,
    encode_fields,
    encode_frame,
)

VECTORS = json.loads((Path(__file__).parents[3] / "guest-agent" / "vectors.json").read_text())


def named(kind: str):
    return [pytest.param(vector, id=vector["name"]) for vector in VECTORS[kind]]


def content(part: dict, key: str = "hex") -> bytes:
    zeros = "zeros" if key == "hex" else f"{key}_zeros"
    return bytes.fromhex(part.get(key, "")) + bytes(part.get(zeros, 0))


def test_the_constants_are_the_protocols():
    assert MAGIC.hex() == VECTORS["magic"]
    assert (VECTORS["payload_max"], VECTORS["window"]) == (MAX_PAYLOAD_BYTES, WINDOW_BYTES)
    assert len(FLUSH) == VECTORS["flush"]["zeros"]
    assert not any(FLUSH)


@pytest.mark.parametrize("vector", named("frames"))
def test_frames_are_read_and_written_to_the_byte(vector):
    encoded, payload = content(vector), content(vector, "payload")
    parser = FrameParser(encoded)
    assert parser.next_frame() == (vector["type"], vector["stream"], vector["channel"], payload)
    assert parser.unparsed == b""
    assert encode_frame(vector["type"], vector["stream"], vector["channel"], payload) == encoded
    assert FrameType(vector["type"]).name == vector["type_name"]


@pytest.mark.parametrize("vector", [p for p in named("malformed") if p.values[0]["from"] == "both"])
def test_what_is_malformed_from_both_sides_is_refused_by_its_header(vector):
    with pytest.raises(MalformedFrame):
        FrameParser(content(vector)).next_frame()


@pytest.mark.parametrize("vector", named("fields"))
def test_fields_are_read_and_written_to_the_byte(vector):
    written = [
        (entry["tag"], entry.get("text", entry.get("number", content(entry)))) for entry in vector["fields"]
    ]
    encoded = content(vector)
    assert encode_fields(written) == encoded
    pairs = [(tag, encode_fields([(tag, value)])[5:]) for tag, value in written]
    decoded = decode_fields(encoded)
    for tag, _ in pairs:
        assert decoded.find_all(tag) == tuple(value for other, value in pairs if other == tag)


@pytest.mark.parametrize("vector", named("malformed_fields"))
def test_malformed_fields_are_refused(vector):
    with pytest.raises(MalformedFrame):
        decode_fields(content(vector))


def test_the_handshake_finds_its_own_welcome_behind_stale_bytes():
    nonce = bytes.fromhex(VECTORS["handshake"]["nonce"])
    prefix = bytes.fromhex(VECTORS["handshake"]["guest_answers_prefix_of_payload"])
    welcome = encode_frame(FrameType.WELCOME, 0, 0, prefix)
    assert welcome[:8].hex() == VECTORS["handshake"]["guest_answers_header"]
    search = OpeningSearch(FrameType.WELCOME, MAGIC + nonce)
    foreign = encode_frame(FrameType.WELCOME, 0, 0, MAGIC + bytes(16))
    stream = b"stale" + foreign + welcome
    found = None
    for at in range(len(stream)):
        found = search.feed(stream[at : at + 1])
        if found is not None:
            break
    assert found is not None
    assert found == welcome[: len(found)]
    hello = b"".join(content(part) for part in VECTORS["handshake"]["host_sends"])
    assert hello == FLUSH + encode_frame(FrameType.HELLO, 0, 0, MAGIC + nonce)
