import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.images.archive import (
    MOUNT_POINTS,
    AddedFile,
    TreeEdit,
    copy_archive,
    normalise_name,
    parse_os_release,
)

PLAIN = TreeEdit()
ROOMY = 1024**3


def entry(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", content: bytes = b"", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def directory(name: str, **fields):
    return entry(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str):
    return entry(name, tarfile.SYMTYPE, link=target)


def hard_link(name: str, target: str):
    return entry(name, tarfile.LNKTYPE, link=target)


def pack(*entries) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def copy(tmp_path: Path, archive: bytes, edit: TreeEdit = PLAIN, limit_bytes: int = ROOMY):
    source = tmp_path / "source.tar"
    source.write_bytes(archive)
    target = io.BytesIO()
    copied = copy_archive(source, target, edit, Silent(), limit_bytes=limit_bytes)
    target.seek(0)
    with tarfile.open(fileobj=target) as tar:
        return copied, {member.name: member for member in tar.getmembers()}


def test_owners_modes_links_and_capabilities_come_through(tmp_path):
    info, content = entry("bin/ping", content=b"x", mode=0o4755, uid=3, gid=4, mtime=77)
    info.pax_headers = {"SCHILY.xattr.security.capability": "\x01\0\0\x02", "SCHILY.xattr.trusted.x": "no"}
    archive = pack(
        directory("."), directory("bin", mode=0o2755), (info, content), hard_link("bin/p", "bin/ping")
    )
    copied, members = copy(tmp_path, archive)
    ping = members["bin/ping"]
    assert (ping.mode, ping.uid, ping.gid, ping.mtime) == (0o4755, 3, 4, 77)
    assert ping.pax_headers["SCHILY.xattr.security.capability"] == "\x01\0\0\x02"
    assert "SCHILY.xattr.trusted.x" not in ping.pax_headers
    assert members["bin"].mode == 0o2755
    assert members["bin/p"].islnk()
    assert copied.entries == 4


@pytest.mark.parametrize(
    "squeeze",
    [bytes, gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "xz", "zstd"],
)
def test_every_compression_is_read_and_every_truncation_refused(tmp_path, squeeze):
    archive = pack(entry("a", content=bytes(range(256)) * 99), entry("b", content=b"b" * 999))
    packed = squeeze(archive)
    assert set(copy(tmp_path, packed)[1]) == {"a", "b"}
    for length in (0, 1, 3, 100, len(packed) // 3, len(packed) // 2, len(packed) - 9000):
        if 0 <= length < len(packed):
            with pytest.raises(Problem) as caught:
                copy(tmp_path, packed[:length])
            assert caught.value.code is Code.BAD_REQUEST
            assert "\n" not in caught.value.brief


@pytest.mark.parametrize(
    "entries",
    [
        [entry("/etc/passwd")],
        [entry("../escape")],
        [entry("a/../../escape")],
        [symlink("a", "/etc"), entry("a/passwd")],
        [symlink("a", "."), directory("a/b")],
        [entry("f"), entry("f/g")],
        [symlink("a", "/etc"), directory("a"), entry("a/passwd")],
        [directory("a"), symlink("a", "/etc")],
        [entry("a"), symlink("a", "/etc/passwd")],
        [hard_link("a", "/etc/passwd")],
        [hard_link("a", "../etc/passwd")],
        [hard_link("a", "missing")],
        [directory("d"), hard_link("a", "d")],
        [entry("odd", b"V")],
    ],
    ids=lambda entries: ",".join(info.name for info, _ in entries),
)
def test_a_hostile_archive_is_refused(tmp_path, entries):
    with pytest.raises(Problem) as caught:
        copy(tmp_path, pack(*entries))
    assert caught.value.code is Code.BAD_REQUEST


@pytest.mark.parametrize("name", [*MOUNT_POINTS, "./root/", "root//."])
@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.REGTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.LNKTYPE]
)
def test_a_mount_point_that_is_no_directory_is_refused(tmp_path, name, kind):
    for edit in (PLAIN, TreeEdit(directories=MOUNT_POINTS), TreeEdit(drop=("*",))):
        with pytest.raises(Problem, match="is no directory") as caught:
            copy(tmp_path, pack(entry("f"), entry(name, kind, link="f")), edit)
        assert caught.value.code is Code.BAD_REQUEST


def test_damage_in_the_middle_is_no_quiet_end(tmp_path):
    archive = bytearray(pack(entry("a", content=b"a" * 600), entry("b", content=b"b")))
    archive[512 + 1024 + 150] ^= 1  # the checksum of b's header
    with pytest.raises(Problem, match="not a whole tar archive"):
        copy(tmp_path, bytes(archive))


def test_an_archive_without_an_end_is_refused(tmp_path):
    archive = pack(entry("a", content=b"a" * 512))[:1024]
    with pytest.raises(Problem, match="not a whole tar archive"):
        copy(tmp_path, archive)


def test_devices_and_what_is_below_dev_are_left_out(tmp_path):
    archive = pack(
        directory("dev"), entry("dev/null", tarfile.CHRTYPE), entry("dev/x"), entry("b", tarfile.BLKTYPE)
    )
    assert set(copy(tmp_path, archive)[1]) == {"dev"}


def test_content_beyond_the_limit_is_refused(tmp_path):
    with pytest.raises(Problem, match="more than"):
        copy(tmp_path, pack(entry("a", content=bytes(2000))), limit_bytes=1999)


def test_the_edit_drops_replaces_and_adds(tmp_path):
    edit = TreeEdit(
        drop=("etc/ssh/ssh_host_*", "run/*"),
        files={"etc/machine-id": AddedFile(b"", 0o444), "etc/new/file": AddedFile(b"new")},
        links={"etc/systemd/masked": "/dev/null"},
        directories={"proc": 0o555, "etc": 0o700},
    )
    archive = pack(
        directory("etc", mode=0o755),
        entry("etc/machine-id", content=b"leaked"),
        directory("etc/ssh"),
        entry("etc/ssh/ssh_host_rsa_key", content=b"leaked"),
        directory("run"),
        entry("run/x", content=b"leaked"),
    )
    members = copy(tmp_path, archive, edit)[1]
    assert list(members) == [
        "etc",
        "etc/ssh",
        "run",
        "proc",
        "etc/machine-id",
        "etc/new",
        "etc/new/file",
        "etc/systemd",
        "etc/systemd/masked",
    ]
    assert members["etc"].mode == 0o755
    assert members["etc/machine-id"].size == 0
    assert members["etc/systemd/masked"].linkname == "/dev/null"


def test_an_edit_never_writes_through_a_link_of_the_archive(tmp_path):
    with pytest.raises(Problem, match="no directory"):
        copy(tmp_path, pack(symlink("etc", "/etc")), TreeEdit(files={"etc/machine-id": AddedFile()}))


def test_a_hard_link_to_what_is_dropped_is_refused(tmp_path):
    with pytest.raises(Problem, match="left out"):
        copy(tmp_path, pack(entry("a"), hard_link("b", "a")), TreeEdit(drop=("a",)))


def test_os_release_is_read_on_the_way(tmp_path):
    archive = pack(
        symlink("etc/os-release", "../usr/lib/os-release"), entry("usr/lib/os-release", content=b'ID="x"\n')
    )
    copied, members = copy(tmp_path, archive)
    assert copied.os_release == {"ID": "x"}
    assert members["usr/lib/os-release"].size == 7


def test_a_missing_archive_is_not_found(tmp_path):
    with pytest.raises(Problem) as caught:
        copy_archive(tmp_path / "none.tar", io.BytesIO(), PLAIN, Silent(), limit_bytes=1)
    assert caught.value.code is Code.NOT_FOUND


@given(st.text())
def test_a_name_is_refused_or_stays_below_the_root(name):
    try:
        normal = normalise_name(name)
    except Problem:
        return
    assert not normal.startswith("/")
    assert ".." not in normal.split("/")


def test_os_release_keeps_no_control_characters():
    text = 'NAME="a\x1b]0;title\x07b\x9b1m\u202e"\nID=\tx\0\n'
    assert parse_os_release(text) == {"NAME": "a]0;titleb1m", "ID": "x"}


@given(st.text() | st.lists(st.text(alphabet="AZ_az09=\"' #\n\r\x00\u2028é")).map("\n".join))
def test_any_os_release_gives_words_and_one_line_for_each(text):
    for key, value in parse_os_release(text).items():
        assert key.replace("_", "").isalnum()
        for part in (key, value):
            assert len(part.splitlines()) <= 1
        assert key in text
        assert value.isprintable()
        assert value in "".join(c for c in text if c.isprintable())


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z][A-Z_0-9]*", fullmatch=True), st.text(alphabet="abc XYZ-./:=0", max_size=9)
    ),
    st.sampled_from(("", '"', "'")),
    st.lists(st.sampled_from(("# a comment", "", "no assignment", "=x", "a b=c")), max_size=3),
)
def test_what_an_os_release_assigns_is_found_among_odd_lines(values, quote, odd):
    values = {key: value if quote else value.strip() for key, value in values.items()}
    lines = [*odd, *(f"{key}={quote}{value}{quote}" for key, value in values.items()), *odd]
    assert parse_os_release("\n".join(lines) + "\n") == values
