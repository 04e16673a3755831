"""What the agent says of sessions, as values: requests, descriptions, the records of a log. Pure, both directions.

The guest is not trusted: what its records claim is checked, what its words are is made printable.
"""

import re
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Literal, NamedTuple

from banger.base.problem import bad_request
from banger.guest.command import ExecRequest, ExitStatus
from banger.guest.entries import clean_word, need_bytes, need_number
from banger.guest.frames import Fields, FieldValue, MalformedFrame, decode_fields, encode_fields

DEFAULT_SCROLLBACK_BYTES = 1024 * 1024
MAX_TAG_BYTES = 4096  # of all tags of a session together, as `key=value`
_HEADER = struct.Struct("<BQI")
_U64 = struct.Struct("<Q")
_MAX_RECORD_BYTES = 65536
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FLAG_PTY = 1
_FLAG_WRITER = 2
_FLAG_STDIN = 4

SessionState = Literal["running", "stopping", "exited", "stopped", "removed"]
_STATES: tuple[SessionState, ...] = ("running", "stopping", "exited", "stopped", "removed")


class StartSession(NamedTuple):
    """A session to start. The request's `stdin` is a pipe, its `pty` a terminal, neither /dev/null. `required` commands
    are looked up where the session's would be, before it begins."""

    id: str
    request: ExecRequest
    required: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    scrollback_bytes: int = DEFAULT_SCROLLBACK_BYTES


class SessionInfo(NamedTuple):
    """A session at a moment. `begin` is the oldest sequence number held, `end` the next one: bytes of stdout and stderr
    together. `stopped` was asked to end, `exited` was not; either has its exit status. `removed` is the last word of
    a watch. `takes_input`: its standard input is open."""

    id: str
    state: SessionState
    pid: int
    exit_status: ExitStatus | None
    begin: int
    end: int
    started_ns: int
    ended_ns: int | None
    pty: bool
    rows: int
    columns: int
    has_writer: bool
    readers: int
    takes_input: bool = False
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def is_over(self) -> bool:
        return self.state not in ("running", "stopping")


class RecordKind(IntEnum):
    STDOUT = 1
    STDERR = 2
    GAP = 3
    STATE = 4
    RESTORE = 5


class SessionRecord(NamedTuple):
    """One piece of a session's log. `sequence` is that of its first byte; for STATE and RESTORE the reader's place.

    STDOUT and STDERR have bytes. GAP: the log holds nothing from `sequence` to `end`. STATE has `info`. RESTORE, on a
    terminal only, are bytes that bring a fresh terminal into the modes that hold at this place; they are not output.
    """

    kind: RecordKind
    sequence: int
    data: bytes = b""
    info: SessionInfo | None = None

    @property
    def end(self) -> int:
        """The sequence number after it: where a reader that has seen it goes on."""
        if self.kind == RecordKind.GAP:
            number: int = _U64.unpack(self.data)[0]
            return number
        return self.sequence + len(self.data) if self.kind <= RecordKind.STDERR else self.sequence


class RecordParser:
    """The byte stream of session_read, session_list and session_watch, cut anywhere."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[SessionRecord]:
        self._buffer += data
        records: list[SessionRecord] = []
        at = 0
        while len(self._buffer) - at >= _HEADER.size:
            kind, sequence, length = _HEADER.unpack_from(self._buffer, at)
            if length > _MAX_RECORD_BYTES:
                raise MalformedFrame(f"a session's record claims {length} bytes")
            end = at + _HEADER.size + length
            if end > len(self._buffer):
                break
            record = parse_record(kind, sequence, bytes(self._buffer[at + _HEADER.size : end]))
            if record is not None:
                records.append(record)
            at = end
        del self._buffer[:at]
        return records

    @property
    def is_whole(self) -> bool:
        return not self._buffer


def parse_record(kind: int, sequence: int, data: bytes) -> SessionRecord | None:
    """None for a kind that a newer agent may know."""
    if kind == 0:
        raise MalformedFrame("a session's record has no kind")
    if kind > RecordKind.RESTORE:
        return None
    record = SessionRecord(RecordKind(kind), sequence, data)
    if kind == RecordKind.GAP and (len(data) != _U64.size or record.end <= sequence):
        raise MalformedFrame("a gap of a session's log ends before it begins")
    if kind == RecordKind.STATE:
        return SessionRecord(RecordKind.STATE, sequence, b"", parse_session(decode_fields(data)))
    return record


def encode_record(kind: RecordKind, sequence: int, data: bytes) -> bytes:
    return _HEADER.pack(kind, sequence, len(data)) + data


def encode_gap(begin: int, end: int) -> bytes:
    return encode_record(RecordKind.GAP, begin, _U64.pack(end))


def parse_session(fields: Fields) -> SessionInfo:
    session_id = need_bytes(fields, 1).decode("utf-8", "replace")
    if not _ID.fullmatch(session_id):
        raise MalformedFrame("a session has no proper id")
    flags = need_number(fields, 10)
    state = _parse_state(need_number(fields, 2))
    exit_status = _parse_exit(fields.find_number(4), fields.find_number(5))
    if exit_status is not None and state in ("running", "stopping"):
        raise MalformedFrame(f"a session is {state} and has ended")
    return SessionInfo(
        session_id,
        state,
        need_number(fields, 3),
        exit_status,
        need_number(fields, 6),
        need_number(fields, 7),
        need_number(fields, 8),
        fields.find_number(9),
        bool(flags & _FLAG_PTY),
        need_number(fields, 11),
        need_number(fields, 12),
        bool(flags & _FLAG_WRITER),
        need_number(fields, 13),
        bool(flags & _FLAG_STDIN),
        tuple(_parse_tag(encoded) for encoded in fields.find_all(14)),
    )


def encode_session(info: SessionInfo) -> bytes:
    flags = _FLAG_PTY * info.pty | _FLAG_WRITER * info.has_writer | _FLAG_STDIN * info.takes_input
    fields: list[tuple[int, FieldValue]] = [
        (1, info.id),
        (2, _STATES.index(info.state) + 1),
        (3, info.pid),
        (6, info.begin),
        (7, info.end),
        (8, info.started_ns),
        (10, flags),
        (11, info.rows),
        (12, info.columns),
        (13, info.readers),
    ]
    if info.exit_status is not None and info.exit_status.status is not None:
        fields.append((4, info.exit_status.status))
    if info.exit_status is not None and info.exit_status.signal is not None:
        fields.append((5, info.exit_status.signal))
    if info.ended_ns is not None:
        fields.append((9, info.ended_ns))
    fields += [(14, f"{key}={value}") for key, value in info.tags]
    return encode_fields(fields)


def _parse_state(number: int) -> SessionState:
    if not 1 <= number <= len(_STATES):
        raise MalformedFrame(f"a session has state {number}")
    return _STATES[number - 1]


def _parse_exit(status: int | None, signal: int | None) -> ExitStatus | None:
    if status is None and signal is None:
        return None
    if status is not None and signal is not None:
        raise MalformedFrame("a session ends with a status or a signal")
    return ExitStatus(status, signal)


def _parse_tag(encoded: bytes) -> tuple[str, str]:
    key, _, value = encoded.partition(b"=")
    return clean_word(key), "".join(c for c in value.decode("utf-8", "replace") if c.isprintable())


def check_session_id(session_id: str) -> str:
    if not _ID.fullmatch(session_id):
        raise bad_request(f"{session_id[:80]!r} is not the id of a session in a guest")
    return session_id


def check_tags(tags: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    checked = tuple(tags)
    for key, value in checked:
        if not key or "=" in key or not (key + value).isprintable():
            raise bad_request(f"{key[:80]!r} is not a tag", hint="use KEY=VALUE in printable characters")
    if (
        sum(len(f"{key}={value}".encode("utf-8", "surrogateescape")) for key, value in checked)
        > MAX_TAG_BYTES
    ):
        raise bad_request(f"a session's tags have more than {MAX_TAG_BYTES} bytes")
    return checked
