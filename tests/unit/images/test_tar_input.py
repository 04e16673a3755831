"""Archives that cost much to read, and what Python's tarfile takes without a word."""

import gzip
import io
import lzma
import tarfile
import tracemalloc
import zlib

import pytest
import zstandard

from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.images import archive as archive_module
from banger.images import tar_input
from banger.images.archive import TreeEdit, copy_archive

END = bytes(1024)
MIB = 1024**2


def block(
    name: str,
    kind: bytes = tarfile.REGTYPE,
    content: bytes = b"",
    *,
    size: int | None = None,
    raw_size: bytes = b"",
) -> bytes:
    """A ustar header that says what the test wants, and the padded content."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content) if size is None else size
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if raw_size:
        header[124:136] = raw_size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % 512)


def pax(**records: str) -> bytes:
    return tarfile.TarInfo._create_pax_generic_header(records, tarfile.XHDTYPE, "utf-8")


def read(tmp_path, content: bytes, *, limit_bytes: int = 1024**3, edit: TreeEdit | None = None):
    source = tmp_path / "source.tar"
    source.write_bytes(content)
    target = io.BytesIO()
    return copy_archive(source, target, edit or TreeEdit(), Silent(), limit_bytes=limit_bytes)


def refuse(tmp_path, content: bytes, match: str, **options) -> None:
    with pytest.raises(Problem, match=match) as caught:
        read(tmp_path, content, **options)
    assert caught.value.code is Code.BAD_REQUEST


FILE = block("f", content=b"x")


@pytest.mark.parametrize(
    "content",
    [
        block("f", raw_size=b"\xff" * 12),
        block("f", raw_size=b"\xff" * 10 + b"\xfe\x00"),  # -512, back to the archive's start: a quiet end
        block("f", raw_size=b"\xff" * 10 + b"\xfc\x00"),
        block("d", tarfile.DIRTYPE, raw_size=b"\xff" * 12),
        block("n", tarfile.GNUTYPE_LONGNAME, raw_size=b"\xff" * 10 + b"\xfe\x00"),
        block("n", tarfile.XHDTYPE, raw_size=b"\xff" * 12),
        block("n", tarfile.GNUTYPE_SPARSE, raw_size=b"\xff" * 10 + b"\xfe\x00"),
        FILE + pax(size="-1024"),
        pax(size="-512"),
        pax(**{"GNU.sparse.size": "-1", "GNU.sparse.map": "0,1"}),
    ],
)
def test_a_negative_size_is_damage(tmp_path, content):
    refuse(tmp_path, content + FILE + END, "not a whole tar archive")


@pytest.mark.parametrize(
    "content",
    [
        pax(**{"GNU.sparse.size": "x", "GNU.sparse.map": "0,1"}),
        pax(**{"GNU.sparse.size": "1", "GNU.sparse.map": "a,b"}),
        pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
        pax(mtime="nan"),
        pax(mtime="inf"),
    ],
)
def test_malformed_numbers_are_damage(tmp_path, content):
    refuse(tmp_path, content + FILE + END, "not a whole tar archive")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, b"g"])
def test_long_headers_are_refused_before_they_are_read(tmp_path, kind):
    refuse(tmp_path, block("n", kind, b"n" * (MIB + 1)) + FILE + END, "take more than")
    refuse(tmp_path, block("n", kind, size=8**10) + FILE + END, "take more than")
    name = block("n", tarfile.GNUTYPE_LONGNAME, b"n" * (MIB // 2))
    refuse(tmp_path, name * 2 + FILE + END, "take more than")


def test_a_sparse_map_without_end_is_refused(tmp_path):
    records = pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})
    refuse(tmp_path, records + block("s", content=b"99999999\n" + b"1\n" * MIB) + END, "take more than")


def test_headers_upon_headers_are_refused(tmp_path):
    assert read(tmp_path, block("n", tarfile.GNUTYPE_LONGNAME, b"n") * 10 + FILE + END).entries == 1
    refuse(tmp_path, block("n", tarfile.GNUTYPE_LONGNAME, b"n") * 1000 + FILE + END, "headers")


def test_global_records_do_not_gather(tmp_path):
    content = b"".join(
        tarfile.TarInfo._create_pax_generic_header({f"k{n}": "v"}, tarfile.XGLTYPE, "utf-8") + block(f"f{n}")
        for n in range(100)
    )
    refuse(tmp_path, content + END, "global records")


def test_a_size_beyond_everything_is_refused_even_where_it_is_skipped(tmp_path):
    refuse(tmp_path, block("dev/x", size=8**11 - 1) + END, "more than")
    refuse(tmp_path, block("dev/x", raw_size=b"\x80" + b"\xff" * 11) + END, "more than")


@pytest.mark.parametrize(
    "squeeze", [bytes, gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress]
)
def test_content_that_is_skipped_counts_too(tmp_path, monkeypatch, squeeze):
    monkeypatch.setattr(tar_input, "_STREAM_AIR_BYTES", 20480)
    content = b"".join(block(f"dev/{n}", content=bytes(5000)) for n in range(20)) + END
    refuse(tmp_path, squeeze(content), "more than", limit_bytes=1000)


def test_too_many_entries_and_too_long_names_are_refused(tmp_path, monkeypatch):
    long_name = block("n", tarfile.GNUTYPE_LONGNAME, b"n" * 4096) + FILE
    refuse(tmp_path, long_name + END, "too long a name")
    monkeypatch.setattr(archive_module, "_MAX_ENTRIES", 10)
    assert read(tmp_path, FILE * 10 + END).entries == 10
    refuse(tmp_path, FILE * 11 + END, "more than 10 entries")
    monkeypatch.setattr(archive_module, "_NAMES_LIMIT", 5)
    refuse(tmp_path, FILE * 6 + END, "too long names")


def test_entries_are_not_kept_in_memory(tmp_path):
    content = b"".join(block(f"{n}") for n in range(5000)) + END
    tracemalloc.start()
    copied = read(tmp_path, content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert copied.entries == 5000
    assert peak < 5 * len(content)  # the source, its copy, and little for each; it was eight times that


def with_dictionary(packed: bytes, code: int) -> bytes:
    """The xz file with another dictionary size in the header of its first block."""
    header = bytearray(packed[12 : 12 + (packed[12] + 1) * 4])
    at = header.index(b"\x21\x01") + 2
    header[at] = code
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    return packed[:12] + bytes(header) + packed[12 + len(header) :]


def test_xz_may_not_take_any_memory(tmp_path):
    packed = lzma.compress(FILE + END)
    assert read(tmp_path, with_dictionary(packed, 28)).entries == 1  # 64 MiB, xz -9
    refuse(tmp_path, with_dictionary(packed, 34), "Memory usage limit")  # 512 MiB


def test_zstd_may_not_take_any_memory(tmp_path):
    squeezer = zstandard.ZstdCompressor(level=19).compressobj()  # a size that is not told needs a window
    packed = bytearray(squeezer.compress(FILE + END) + squeezer.flush())
    assert read(tmp_path, bytes(packed)).entries == 1
    packed[5] = (28 - 10) << 3
    refuse(tmp_path, bytes(packed), "not a whole tar archive")


@pytest.mark.parametrize("padding", [b"", bytes(4), bytes(MIB)])
def test_xz_streams_follow_one_another(tmp_path, padding):
    content = block("a", content=bytes(range(256)) * 99) + block("b") + END
    packed = padding.join(lzma.compress(content[at : at + 9999]) for at in range(0, len(content), 9999))
    assert read(tmp_path, packed + padding).entries == 2
    refuse(tmp_path, packed[:-1000], "not a whole tar archive")
