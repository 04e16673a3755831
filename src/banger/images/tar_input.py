"""Tar archives from anywhere as a stream of entries: decompressed, whole, and of bounded cost.

Owns the open archive. Refuses what Python's tarfile lets pass or gathers in memory: a damaged or missing end,
negative sizes, headers without end, decompressors that need much memory, more content than was asked for.
Knows nothing of names and kinds.
"""

import gzip
import lzma
import math
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol, cast

import zstandard

from banger.base.problem import Problem, bad_request
from banger.base.units import render_size

_GZIP_MAGIC = b"\x1f\x8b"
_XZ_MAGIC = b"\xfd7zXZ\0"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW_BYTES = 128 * 1024**2  # what `zstd --long` needs, the most it unpacks unasked
_XZ_MEMORY_BYTES = 256 * 1024**2  # `xz -9` needs 65 MiB
_XZ_CHUNK_BYTES = 256 * 1024
_HEADERS_LIMIT_BYTES = 1024**2  # all headers of one entry: names, pax records, the map of a sparse file
_MAX_HEADERS = 16  # of one entry; tarfile recurses for each
_MAX_GLOBAL_RECORDS = 64  # what `g` headers set for all entries; tarfile copies it to each
_STREAM_AIR_BYTES = 64 * 1024**2
DAMAGE = (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError)


def too_large(limit_bytes: int) -> Problem:
    return bad_request(
        f"the archive's files take more than {render_size(limit_bytes)}",
        hint="give the image a larger --size",
    )


class Input:
    """An open archive: its entries in order, each one's content readable until the next is asked for."""

    def __init__(self, archive: "_Archive", limit_bytes: int, stream_limit_bytes: int) -> None:
        self._archive = archive
        self._limit_bytes = limit_bytes
        self._stream_limit_bytes = stream_limit_bytes

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        while (entry := self._archive.next()) is not None:
            if self._archive.offset > self._stream_limit_bytes:
                raise too_large(self._limit_bytes)
            yield entry
            self._archive.members.clear()  # tarfile keeps every entry it has seen

    def open(self, entry: tarfile.TarInfo) -> IO[bytes]:
        """The content of a regular file."""
        content = self._archive.extractfile(entry)
        assert content is not None
        return content


@contextmanager
def open_archive(source: Path, *, limit_bytes: int) -> Iterator[Input]:
    """Opening and reading raise one of DAMAGE, or a Problem when there is much more than `limit_bytes`.

    The compression is told by the first bytes, not by the name. (tarfile's own `r|*` recurses without end on
    a short file.)
    """
    stream_limit_bytes = limit_bytes + limit_bytes // 8 + _STREAM_AIR_BYTES  # headers and padding, too
    with source.open("rb") as file, ExitStack() as stack:
        head = file.read(6)
        file.seek(0)
        content: _Readable = file
        if head.startswith(_GZIP_MAGIC):
            content = stack.enter_context(gzip.GzipFile(fileobj=file))
        elif head.startswith(_XZ_MAGIC):
            content = _XzInput(file)
        elif head.startswith(_ZSTD_MAGIC):
            unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
            content = stack.enter_context(unpacker.stream_reader(file, read_across_frames=True))
        bounded = _BoundedInput(content, stream_limit_bytes, too_large(limit_bytes))
        with _Archive.open(
            fileobj=cast("IO[bytes]", bounded),
            mode="r|",
            tarinfo=_StrictHeader,
            encoding="utf-8",
            errors="surrogateescape",
        ) as archive:
            assert isinstance(archive, _Archive)
            yield Input(archive, limit_bytes, stream_limit_bytes)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _XzInput:
    """One xz stream after another. lzma.LZMAFile would do, had it a limit for memory."""

    def __init__(self, file: _Readable) -> None:
        self._file = file
        self._stream = _new_xz_stream()

    def read(self, size: int) -> bytes:
        while True:
            packed = b""
            if self._stream.eof:
                if not (packed := self._find_next()):
                    return b""
                self._stream = _new_xz_stream()
            elif self._stream.needs_input and not (packed := self._file.read(_XZ_CHUNK_BYTES)):
                raise EOFError("the compressed data is cut short")
            if data := self._stream.decompress(packed, size):
                return data

    def _find_next(self) -> bytes:
        """The first bytes of another stream, after padding; empty at the end."""
        packed = self._stream.unused_data or self._file.read(_XZ_CHUNK_BYTES)
        while packed and not packed.strip(b"\0"):
            packed = self._file.read(_XZ_CHUNK_BYTES)
        return packed.lstrip(b"\0")


def _new_xz_stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


class _BoundedInput:
    """No more than so many bytes: then the given problem."""

    def __init__(self, content: _Readable, limit_bytes: int, problem: Problem) -> None:
        self._content = content
        self._left = limit_bytes
        self._problem = problem

    def read(self, size: int) -> bytes:
        data = self._content.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise self._problem
        return data


class _HeaderInput:
    """What tarfile reads from while it reads the headers of one entry, so that those are not large."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = _HEADERS_LIMIT_BYTES

    def read(self, size: int) -> bytes:
        if size < 0:
            raise tarfile.ReadError("a header's size is negative")
        self._left -= size
        if self._left < 0:
            raise tarfile.ReadError(f"the headers of one entry take more than {_HEADERS_LIMIT_BYTES} bytes")
        return self._stream.read(size)

    def tell(self) -> int:
        return self._stream.tell()


class _Archive(tarfile.TarFile):
    # Class attributes, because the constructor reads the first entry.
    _depth = 0  # of calls that read headers
    _headers = 0  # of the entry under way
    fileobj: IO[bytes]
    members: list[tarfile.TarInfo]
    pax_headers: dict[str, str]

    @contextmanager
    def reading_header(self) -> Iterator[None]:
        stream = self.fileobj
        if self._depth == 0:
            self.fileobj = cast("IO[bytes]", _HeaderInput(stream))
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self.fileobj = stream

    @contextmanager
    def counting_header(self) -> Iterator[None]:
        self._headers += 1
        try:
            if self._headers > _MAX_HEADERS:
                raise tarfile.ReadError(f"one entry has more than {_MAX_HEADERS} headers")
            yield
        finally:
            self._headers -= 1

    def check(self, entry: tarfile.TarInfo) -> None:
        if entry.size < 0 or self.offset < self.fileobj.tell():
            raise tarfile.ReadError("an entry's size is negative")
        if not math.isfinite(entry.mtime):
            raise tarfile.ReadError("an entry's time is no time")
        if len(self.pax_headers) > _MAX_GLOBAL_RECORDS:
            raise tarfile.ReadError(f"more than {_MAX_GLOBAL_RECORDS} global records")


class _StrictHeader(tarfile.TarInfo):
    """Python's tarfile takes a damaged header in mid-archive, or a missing end, for the end: not here."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_StrictHeader":
        assert isinstance(archive, _Archive)
        try:
            with archive.reading_header():
                header = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the two blocks of zeros
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        except (ValueError, IndexError, OverflowError) as error:  # numbers of a sparse file's map
            raise tarfile.ReadError("a header's number is malformed") from error
        archive.check(header)
        return header

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """tarfile's place for what a header means before anything behind it is read. It recurses through here
        for each further header of an entry, by fromtarfile or, in later versions, past it."""
        if self.size < 0:
            raise tarfile.ReadError("a header's size is negative")
        assert isinstance(archive, _Archive)
        with archive.counting_header():
            return super()._proc_member(archive)  # type: ignore[misc, no-any-return]
