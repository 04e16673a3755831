"""An untrusted tar stream as entries, in one pass and with bounded memory.

Owns what has arrived and is not taken yet: one chunk of the source. Refuses damaged headers, headers without end,
streams without the blocks of zeros at their end, and anything but zeros behind them. Judges no names and no kinds.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from banger.base.trees import headers
from banger.base.trees.headers import BLOCK_BYTES, Entry, Header, MalformedTar

_MAX_EXTENSION_BYTES = 1024**2  # all extended headers of one entry
_MAX_EXTENSIONS = 16
_MAX_TRAILER_BYTES = 1024**2  # tar pads to 10 KiB, some writers to more
_MAX_SEGMENT_LINE = 20
_SPARSE = b"GNU.sparse."
_WITH_CONTENT = (headers.FILE, headers.OLD_FILE, headers.CONTIGUOUS)
_WITHOUT_CONTENT = (
    headers.HARD_LINK,
    headers.SYMLINK,
    headers.CHARACTER,
    headers.BLOCK_DEVICE,
    headers.DIRECTORY,
    headers.FIFO,
)


class _Said(NamedTuple):
    """What extended headers said about the entry that follows them."""

    records: dict[bytes, bytes]
    name: bytes | None
    target: bytes | None


class TarReader:
    """Iterate for the entries; between two of them `content` gives the bytes of the first, or they are skipped.

    Raises MalformedTar, and whatever the source raises.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = memoryview(b"")
        self._content_bytes = 0
        self._entry: Entry | None = None

    def __iter__(self) -> Iterator[Entry]:
        while (block := self._take_block()).strip(b"\0"):
            yield self._read_entry(block)
            self._skip(self._content_bytes)
        self._read_end()

    def content(self) -> Iterator[tuple[int, memoryview]]:
        """The entry's bytes, each piece with its offset in the file. What a piece shows is gone with the next one."""
        entry = self._entry
        assert entry is not None
        segments = ((0, entry.size),) if entry.segments is None else entry.segments
        for offset, length in segments:
            for piece in self._pieces(length):
                self._content_bytes -= len(piece)
                yield offset, piece
                offset += len(piece)

    def _read_entry(self, block: bytes) -> Entry:
        said = _Said({}, None, None)
        room = _MAX_EXTENSION_BYTES
        for _ in range(_MAX_EXTENSIONS):
            header = headers.parse_block(block)
            if header.kind not in headers.EXTENSIONS:
                return self._complete(header, said)
            room -= header.size
            if room < 0:
                raise MalformedTar("an extended header is too long")
            body = self._take(header.size)
            self._take(headers.padding(header.size))
            said = _take_extension(header.kind, body, said)
            block = self._take_block()
        raise MalformedTar(f"an entry has more than {_MAX_EXTENSIONS} headers")

    def _complete(self, header: Header, said: _Said) -> Entry:
        records = said.records
        stored = headers.parse_decimal(records[b"size"]) if b"size" in records else header.size
        name = said.name if said.name is not None else records.get(b"path", header.name)
        kind = header.kind
        if kind in _WITH_CONTENT:
            kind = headers.DIRECTORY if name.endswith(b"/") else headers.FILE
        has_content = header.kind in _WITH_CONTENT or header.kind not in _WITHOUT_CONTENT
        self._content_bytes = stored + headers.padding(stored) if has_content else 0
        entry = Entry(
            name,
            kind,
            header.mode & 0o7777,
            headers.parse_decimal(records[b"uid"]) if b"uid" in records else header.uid,
            headers.parse_decimal(records[b"gid"]) if b"gid" in records else header.gid,
            stored if has_content else 0,
            headers.parse_time(records[b"mtime"]) if b"mtime" in records else header.mtime * 10**9,
            said.target if said.target is not None else records.get(b"linkpath", header.target),
        )
        if any(key.startswith(_SPARSE) for key in records):
            entry = self._read_sparse(entry, records)
        self._entry = entry
        return entry

    def _read_sparse(self, entry: Entry, records: dict[bytes, bytes]) -> Entry:
        version = (records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor"))
        if version != (b"1", b"0") or entry.kind != headers.FILE:
            raise MalformedTar("a sparse file is not in the format GNU.sparse 1.0")
        size = headers.parse_decimal(records.get(b"GNU.sparse.realsize", b""))
        name = records.get(b"GNU.sparse.name", entry.name)
        numbers = self._read_numbers()
        count = next(numbers)
        if count > headers.MAX_SEGMENTS:
            raise MalformedTar(f"a sparse file has more than {headers.MAX_SEGMENTS} pieces")
        segments = [(next(numbers), next(numbers)) for _ in range(count)]
        data_bytes = self._content_bytes - headers.padding(entry.size)
        checked = headers.check_segments(segments, size, data_bytes)
        return entry._replace(name=name, size=size, segments=checked)

    def _read_numbers(self) -> Iterator[int]:
        """Lines of decimal digits out of the entry's content, block by block."""
        rest = b""
        while True:
            if self._content_bytes < BLOCK_BYTES:
                raise MalformedTar("the map of a sparse file has no end")
            rest += self._take_block()
            self._content_bytes -= BLOCK_BYTES
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield headers.parse_decimal(line)
            if len(rest) > _MAX_SEGMENT_LINE:
                raise MalformedTar("the map of a sparse file is malformed")

    def _read_end(self) -> None:
        """What follows the first block of zeros: at least another one, and nothing else."""
        room = _MAX_TRAILER_BYTES
        if self._take_block().strip(b"\0"):
            raise MalformedTar("a block of zeros stands in mid-stream")
        while self._fill():
            room -= len(self._chunk)
            if room < 0 or bytes(self._chunk).strip(b"\0"):
                raise MalformedTar("something follows its end")
            self._chunk = memoryview(b"")

    def _fill(self) -> bool:
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._chunk = memoryview(chunk)
        return True

    def _pieces(self, length: int) -> Iterator[memoryview]:
        while length:
            if not self._fill():
                raise MalformedTar("it is cut short")
            piece, self._chunk = self._chunk[:length], self._chunk[length:]
            length -= len(piece)
            yield piece

    def _take(self, length: int) -> bytes:
        return b"".join(self._pieces(length))

    def _take_block(self) -> bytes:
        return self._take(BLOCK_BYTES)

    def _skip(self, length: int) -> None:
        for _ in self._pieces(length):
            pass


def _take_extension(kind: bytes, body: bytes, said: _Said) -> _Said:
    if kind == headers.PAX:
        return said._replace(records=said.records | headers.parse_records(body))
    if kind == headers.GNU_LONG_NAME:
        return said._replace(name=body.partition(b"\0")[0])
    if kind == headers.GNU_LONG_TARGET:
        return said._replace(target=body.partition(b"\0")[0])
    return said  # global records: git archive's commit id
