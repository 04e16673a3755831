"""Streams that are up to something, and what becomes of what was there."""

import errno
import os
import stat
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banger.base.problem import Code, Problem
from banger.base.trees import headers
from banger.base.trees.headers import BLOCK_BYTES, Entry, render_entry

from .conftest import file, make_stream

LINK, HARD, DIR = headers.SYMLINK, headers.HARD_LINK, headers.DIRECTORY


def refused(take, stream, words, **policy):
    with pytest.raises(Problem) as caught:
        take(stream, **policy)
    assert words in caught.value.brief, caught.value.brief
    assert caught.value.brief.isprintable()
    return caught.value


def names(tree):
    return sorted(os.listdir(tree))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (b"../evil", "leaves the directory"),
        (b"a/../../evil", "leaves the directory"),
        (b"a/../evil", "leaves the directory"),
        (b"..", "leaves the directory"),
        (b"./..", "leaves the directory"),
        (b"a//../../evil", "leaves the directory"),
        (b"/evil", "is absolute"),
        (b"//evil", "is absolute"),
        (b"", "has an empty name"),
        (b".", "takes the place of the directory itself"),
        (b"a" * 256, "has too long a name"),
        (b"a/" * 2100 + b"b", "has too long a name"),
        (b"a/" * 300 + b"b", "more than 256 directories deep"),
        (b"esc\x1b[2J/../evil", r"'esc\x1b[2J/../evil'"),
        (b"new\nline/../evil", r"'new\x0aline/../evil'"),
        ("right\N{RIGHT-TO-LEFT OVERRIDE}/../evil".encode(), r"'right\xe2\x80\xae/../evil'"),
        (b"\xff/../evil", r"'\xff/../evil'"),
    ],
)
@pytest.mark.parametrize("kind", [headers.FILE, DIR, LINK, HARD])
def test_names_that_leave_are_refused_and_told_without_driving_a_terminal(take, tree, name, words, kind):
    if (name, kind) == (b".", DIR):
        return
    problem = refused(take, make_stream(Entry(name, kind, target=b"x")), words)
    assert problem.code is Code.OPERATION_FAILED
    assert names(tree) == []
    assert names(tree.parent) == ["tree"]


def test_a_zero_byte_in_a_name_is_refused(take, tree):
    record = b"15 path=a\0evil\n"
    stream = raw_header(b"pax", b"x", len(record)) + record.ljust(512, b"\0") + render_entry(file(b"x")[0])
    refused(take, make_stream(stream + b"x".ljust(512, b"\0")), "has a zero byte in its name")
    assert names(tree) == []


def raw_header(name, kind, size, *, size_field=None, checksum=None, mode=b"0000644"):
    fields = [
        name,
        mode,
        b"0000000",
        b"0000000",
        size_field or b"%011o" % size,
        b"00000000000",
        b" " * 8,
        kind,
    ]
    fields += [b"", b"ustar", b"00", b"", b"", b"", b"", b"", b""]
    layout = struct.Struct("<100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12s")
    fields[6] = checksum or b"%06o\0 " % sum(layout.pack(*fields))
    return layout.pack(*fields)


@pytest.mark.parametrize("kind", [headers.FILE, DIR, LINK])
def test_nothing_goes_through_a_link_of_the_streams_own(take, tree, kind):
    (tree.parent / "out").mkdir()
    stream = make_stream(Entry(b"link", LINK, target=b"../out"), Entry(b"link/evil", kind, target=b"x"))
    refused(take, stream, "leads through link, a symbolic link")
    assert names(tree.parent / "out") == []


@pytest.mark.parametrize("target", [b"..", b"/tmp", b".", b"inside"])
def test_nothing_goes_through_a_link_that_was_there(take, tree, target):
    (tree / "inside").mkdir()
    (tree / "link").symlink_to(os.fsdecode(target))
    refused(take, make_stream(file(b"link/evil")), "leads through link, a symbolic link")
    refused(take, make_stream(Entry(b"link/", DIR)), "leads through link, a symbolic link")
    assert names(tree / "inside") == []


def test_a_directory_that_becomes_a_link_is_not_gone_through(take, tree):
    (tree.parent / "out").mkdir()
    entries = Entry(b"a/", DIR), file(b"a/one"), Entry(b"a", LINK, target=b"../out"), file(b"a/evil")
    refused(take, make_stream(*entries), "a directory has its name")
    assert names(tree.parent / "out") == []


def test_a_directory_that_a_process_makes_a_link_meanwhile_is_not_gone_through(take, tree):
    out = tree.parent / "out"
    out.mkdir()

    def chunks():
        yield make_stream(Entry(b"a/", DIR), file(b"a/one"), file(b"other"), end=b"")
        (tree / "a").rename(tree.parent / "moved")
        (tree / "a").symlink_to(out)
        yield make_stream(file(b"a/evil"))

    refused(take, chunks(), "leads through a, a symbolic link")
    assert names(out) == []


def test_a_link_is_replaced_and_not_written_through(take, tree):
    (tree.parent / "victim").write_text("old")
    (tree / "file").symlink_to("../victim")
    (tree / "link").symlink_to("../victim")
    take(
        make_stream(
            file(b"file"),
            Entry(b"link", LINK, target=b"elsewhere"),
            Entry(b"own", LINK, target=b"../victim"),
            file(b"own"),
        )
    )
    assert (tree.parent / "victim").read_text() == "old"
    assert not (tree / "file").is_symlink()
    assert not (tree / "own").is_symlink()
    assert os.readlink(tree / "link") == "elsewhere"


def test_a_shared_file_is_replaced_and_not_written_through(take, tree):
    (tree.parent / "victim").write_text("old")
    os.link(tree.parent / "victim", tree / "file")
    take(make_stream(file(b"file", b"new")))
    assert (tree.parent / "victim").read_text() == "old"
    assert (tree / "file").read_text() == "new"


@pytest.mark.parametrize(
    "target",
    [b"../secret", b"/etc/passwd", b"", b"up/secret", b"there", b"missing", b"dir", b"a/../../secret"],
)
def test_hard_links_are_to_files_of_the_stream_only(take, tree, target):
    (tree.parent / "secret").write_text("secret")
    (tree / "there").write_text("mine")
    entries = Entry(b"up", LINK, target=b".."), Entry(b"dir/", DIR), Entry(b"hard", HARD, target=target)
    refused(take, make_stream(*entries), "is a hard link to")
    assert (tree.parent / "secret").stat().st_nlink == (tree / "there").stat().st_nlink == 1


def test_a_hard_link_to_a_link_is_refused(take, tree):
    refused(
        take,
        make_stream(Entry(b"l", LINK, target=b"/etc/passwd"), Entry(b"h", HARD, target=b"l")),
        "hard link",
    )


def test_hard_links_are_made_also_over_what_is_there(take, tree):
    (tree / "two").write_text("old")
    entries = file(b"one", b"new"), Entry(b"two", HARD, target=b"./one"), Entry(b"two", HARD, target=b"one")
    take(make_stream(*entries))
    assert (tree / "two").read_text() == "new"
    assert (tree / "one").stat().st_nlink == 2
    assert names(tree) == ["one", "two"]


@pytest.mark.parametrize("kind", [headers.CHARACTER, headers.BLOCK_DEVICE, headers.FIFO])
def test_devices_and_pipes_are_refused_or_left_out(take, tree, kind):
    stream = make_stream(Entry(b"special", kind), file(b"file"))
    refused(take, stream, "special is a ")
    unpacked = take(stream, specials="leave_out")
    assert names(tree) == ["file"]
    assert unpacked.left_out[0][0] == b"special"
    assert (unpacked.entries, unpacked.left_out_count) == (1, 1)


def test_an_unknown_type_is_refused_also_when_specials_are_left_out(take):
    refused(take, make_stream(Entry(b"odd", b"Z")), "is of an unknown type, Z", specials="leave_out")
    refused(take, make_stream(Entry(b"odd", b"\x1b")), r"is of an unknown type, '\x1b'", specials="leave_out")


def test_rights_that_a_mode_lends_are_dropped(take, tree):
    take(make_stream(file(b"file", mode=0o7777), Entry(b"dir/", DIR, mode=0o7777)))
    for name in ("file", "dir"):
        assert stat.S_IMODE((tree / name).stat().st_mode) == 0o777


def test_modes_are_masked_as_for_any_new_file(take, tree):
    take(
        make_stream(file(b"file", mode=0o777), Entry(b"dir/", DIR, mode=0o777), file(b"made/file")),
        umask=0o027,
    )
    assert [stat.S_IMODE((tree / name).stat().st_mode) for name in ("file", "dir", "made")] == [0o750] * 3


def test_what_a_directory_held_and_was_stays(take, tree):
    (tree / "dir").mkdir(mode=0o700)
    (tree / "dir/old").write_text("old")
    take(make_stream(Entry(b"dir/", DIR, mode=0o777), file(b"dir/new")))
    assert names(tree / "dir") == ["new", "old"]
    assert stat.S_IMODE((tree / "dir").stat().st_mode) == 0o700


def test_a_read_only_directory_can_be_filled(take, tree):
    take(
        make_stream(
            Entry(b"dir/", DIR, mode=0o555, mtime_ns=5 * 10**9),
            file(b"dir/one"),
            Entry(b"dir/sub/", DIR),
            file(b"dir/sub/two"),
        )
    )
    state = (tree / "dir").stat()
    assert (stat.S_IMODE(state.st_mode), state.st_mtime) == (0o555, 5)


def test_kinds_that_do_not_fit_are_refused_clearly(take, tree):
    (tree / "dir").mkdir()
    (tree / "dir/kept").touch()
    (tree / "file").write_text("old")
    for entry in (file(b"dir"), Entry(b"dir", LINK, target=b"x")):
        problem = refused(take, make_stream(entry), "dir cannot be written: a directory has its name")
        assert problem.code is Code.ALREADY_EXISTS
    refused(take, make_stream(Entry(b"file/", DIR)), "file/ cannot be written: file is no directory")
    refused(take, make_stream(file(b"file/below")), "file is no directory")
    assert (tree / "file").read_text() == "old"
    assert names(tree / "dir") == ["kept"]


@pytest.mark.parametrize(
    ("place", "target", "leaves"),
    [
        (b"l", b"file", False),
        (b"l", b"dir/file", False),
        (b"l", b"..", True),
        (b"l", b"../x", True),
        (b"l", b"/etc", True),
        (b"d/l", b"..", False),
        (b"d/l", b"../x", False),
        (b"d/l", b"../../x", True),
        (b"d/l", b"./../x", False),
        (b"d/l", b"x/..", True),  # x may be a link
        (b"d/e/l", b"../../x/../../../etc", True),
    ],
)
def test_links_that_lead_out_are_kept_or_refused(take, tree, place, target, leaves):
    stream = make_stream(Entry(place, LINK, target=target))
    if leaves:
        refused(take, stream, "is a symbolic link out of the directory", links="refuse")
        assert not os.path.lexists(tree / os.fsdecode(place))
    take(stream, links="keep")
    assert os.readlink(os.fsencode(tree) + b"/" + place) == target


def test_a_link_to_nothing_is_refused(take):
    refused(take, make_stream(Entry(b"link", LINK)), "is a symbolic link to nothing")


# Streams that are no whole archives


def test_a_stream_that_ends_early_leaves_whole_files_only(take, tree):
    (tree / "two").write_text("old")
    stream = make_stream(file(b"one", b"1"), file(b"two", bytes(3000)), file(b"three"))
    for cut in range(0, len(stream) - 1024, 97):
        refused(take, stream[:cut], "it is cut short")
        assert set(names(tree)) <= {"one", "two", "three"}
        assert (tree / "two").read_bytes() in (b"old", bytes(3000))
    refused(take, stream[:-512], "it is cut short")


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"", "cut short"),
        (b"no tar at all".ljust(1024), "checksum is wrong"),
        (raw_header(b"a", b"0", 0, checksum=b"0000000\0"), "checksum is wrong"),
        (raw_header(b"a", b"0", 0, size_field=b"-0000000001"), "number is malformed"),
        (raw_header(b"a", b"0", 0, size_field=b"\xff" * 12), "negative or too large"),
        (raw_header(b"a", b"0", 0, size_field=b"\x80" + b"\xff" * 11), "negative or too large"),
        (raw_header(b"a", b"0", 0, mode=b"rwxr-xr"), "number is malformed"),
        (raw_header(b"p", b"x", 1 << 21) + bytes(1 << 21), "extended header is too long"),
        (raw_header(b"p", b"x", 1 << 40), "extended header is too long"),
        (raw_header(b"p", b"L", 1 << 40), "extended header is too long"),
        (raw_header(b"p", b"x", 512) + bytes(512), "cut short"),
        (b"".join(raw_header(b"p", b"x", 0) for _ in range(20)), "more than 16 headers"),
        (make_stream(end=bytes(512)) + raw_header(b"a", b"0", 0), "a block of zeros stands in mid-stream"),
        (make_stream() + b"more", "something follows its end"),
        (make_stream() + bytes(2 << 20), "something follows its end"),
    ],
)
def test_what_is_no_archive_is_refused(take, tree, stream, words):
    refused(take, stream, words)
    assert names(tree) == []


@pytest.mark.parametrize(
    "record",
    [
        b"16 path=x", b"999 path=x\n", b"x path=y\n", b"3 =\n", b"12 size=abc\n", b"0 path=x\n", b"13 size=-512\n",
        b"30 size=99999999999999999999\n", b"13 mtime=abc\n", b"-5 path=x\n", b"11 uid=-1\n",
    ],
)  # fmt: skip
def test_malformed_records_are_refused(take, tree, record):
    stream = raw_header(b"pax", b"x", len(record)) + record.ljust(512, b"\0")
    refused(take, make_stream(stream, file(b"innocent")), "the tar stream is refused")
    assert names(tree) == []


def test_padding_of_a_tape_record_is_no_content(take, tree):
    take(make_stream(file(b"a")) + bytes(10240))
    assert names(tree) == ["a"]


def test_too_many_entries_and_too_many_bytes_are_refused(take, tree):
    refused(
        take, make_stream(*(file(b"%d" % n) for n in range(4))), "is one too many, after 3", max_entries=3
    )
    refused(
        take,
        make_stream(file(b"a", bytes(600)), file(b"b", bytes(600))),
        "more than 1000 bytes",
        max_bytes=1000,
    )


def test_a_full_disk_is_told_and_leaves_the_old_file(take, tree, monkeypatch):
    (tree / "file").write_text("old")

    def pwrite(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    problem = refused(
        take, make_stream(file(b"file", b"new")), "file cannot be written: No space left on device"
    )
    assert problem.code is Code.NO_SPACE
    assert (names(tree), (tree / "file").read_text()) == (["file"], "old")


def test_a_source_that_fails_is_passed_on_and_leaves_nothing_half_written(take, tree):
    def chunks():
        yield make_stream(file(b"one"), file(b"two", bytes(100_000)))[:20_000]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(chunks())
    assert names(tree) == ["one"]


# Sparse files


def sparse(name, size, segments, content, *, minor=b"0", map_text=None):
    entry = Entry(name, headers.FILE, size=size, segments=segments)
    stream = render_entry(entry) + content + bytes(headers.padding(len(content)))
    stream = stream.replace(b"sparse.minor=0", b"sparse.minor=" + minor)
    if map_text is not None:
        old = headers.render_map(segments)
        stream = stream.replace(old, map_text.ljust(len(old), b"\0"))
    return stream


def test_holes_come_out_as_holes(take, tree):
    take(make_stream(sparse(b"f", 1 << 30, ((1 << 29, 4), (1 << 30, 0)), b"data")))
    state = (tree / "f").stat()
    assert (state.st_size, state.st_blocks <= 8) == (1 << 30, True)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (sparse(b"f", 100, ((98, 4),), b"data"), "leaves the file"),
        (sparse(b"f", 100, ((50, 2), (40, 2)), b"data"), "out of order"),
        (sparse(b"f", 100, ((50, 2), (51, 2)), b"data"), "out of order"),
        (sparse(b"f", 100, ((0, 4),), b"data", map_text=b"1\n0\n5\n"), "does not fit its data"),
        (sparse(b"f", 100, ((0, 4),), b"data", map_text=b"1\n0\n3\n"), "does not fit its data"),
        (sparse(b"f", 100, ((0, 4),), b"data", map_text=b"70000\n"), "more than 65536 pieces"),
        (sparse(b"f", 100, ((0, 4),), b"data", map_text=b"99999999999999999999\n"), "malformed"),
        (sparse(b"f", 100, ((0, 4),), b"data", map_text=b"-1\n"), "malformed"),
        (sparse(b"f", 100, ((0, 4),), b"data", map_text=b"1" * 500), "malformed"),
        (sparse(b"f", 100, ((0, 4),), b"data", map_text=b"9\n0\n4\n"), "malformed"),
        (sparse(b"f", 100, ((0, 4),), b"", map_text=b"9\n0\n4\n"), "malformed"),
        (sparse(b"f", 100, ((0, 0),), b"", map_text=b"60000\n" + b"0\n" * 253), "has no end"),
        (sparse(b"f", 100, ((0, 4),), b"data", minor=b"1"), "not in the format GNU.sparse 1.0"),
        (sparse(b"../evil", 100, ((0, 4),), b"data"), "leaves the directory"),
    ],
)
def test_maps_that_do_not_fit_are_refused(take, tree, stream, words):
    refused(take, make_stream(stream), words)
    assert names(tree) == []


# Whatever the bytes are


ORIGINAL = make_stream(
    Entry(b"dir/", DIR),
    file(b"dir/" + b"n" * 120, b"content"),
    file(b"x", bytes(1000)),
    Entry(b"dir/link", LINK, target=b".."),
    Entry(b"hard", HARD, target=b"x"),
    sparse(b"s", 5000, ((100, 4), (5000, 0)), b"data"),
)


@settings(max_examples=400)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(ORIGINAL) - 1), st.sampled_from(b"./0178x\n\0\xff")), max_size=6
    ),
    mends=st.booleans(),
)
def test_mutated_streams_stay_inside(take, tree, changes, mends):
    stream = bytearray(ORIGINAL)
    for at, value in changes:
        stream[at] = value
    if mends:  # the code behind a checksum is the interesting one
        for at in range(0, len(stream), BLOCK_BYTES):
            if stream[at + 257 : at + 262] == b"ustar":
                stream[at + 148 : at + 156] = b" " * 8
                stream[at + 148 : at + 156] = b"%06o\0 " % sum(stream[at : at + BLOCK_BYTES])
    problem = None
    try:
        take(bytes(stream), specials="leave_out")
    except Problem as caught:
        problem = caught
    assert problem is None or problem.brief.isprintable()
    assert names(tree.parent) == ["tree"]
    assert not [name for name in names(tree) if name.startswith(".banger")]


def test_the_map_of_a_sparse_file_is_no_place_for_zeros_without_end(take):
    taken = 0
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"1")]
    records.append((b"size", b"%d" % (1 << 40)))
    body = b"".join(headers._render_record(*record) for record in records)
    head = headers._render_block(b"pax", headers.PAX, 0o644, 0, 0, len(body), 0, b"") + body
    head += bytes(headers.padding(len(body)))

    def chunks():
        nonlocal taken
        yield head + headers._render_block(b"map", headers.FILE, 0o644, 0, 0, 0, 0, b"")
        while taken < 1 << 24:
            taken += BLOCK_BYTES
            yield bytes(BLOCK_BYTES)

    refused(take, chunks(), "the map of a sparse file is malformed")
    assert taken <= 2 * BLOCK_BYTES


@pytest.mark.parametrize("number", [2**32 - 1, 2**32, 10**17])
@pytest.mark.parametrize("kind", [headers.FILE, DIR, LINK])
def test_an_owner_that_no_system_has_is_refused(take, tree, kind, number):
    stream = make_stream(Entry(b"a", kind, uid=number, target=b"x"))
    refused(take, stream, "belongs to a number that nobody has", keep_owners=True)
    assert names(tree) == []
    take(stream)
