"""What is read of this host, what is not, and what happens when it changes meanwhile."""

import io
import os
import socket
import tarfile

import pytest

from banger.base.problem import Code, Problem
from banger.base.trees.pack import Packed, measure, pack


def read(stream):
    """Names in the stream, by Python's tarfile."""
    with tarfile.open(fileobj=io.BytesIO(stream), errors="surrogateescape") as archive:
        return {entry.name: entry for entry in archive.getmembers()}


def pack_all(descriptor, names=None, **options):
    return b"".join(pack(descriptor, names, **options))


def test_named_ones_come_in_their_order_with_what_is_below(tree, descriptor):
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/c").touch()
    (tree / "d").touch()
    assert list(read(pack_all(descriptor, [b"d", b"a/b"]))) == ["d", "a/b", "a/b/c"]


def test_a_named_one_can_have_another_name(tree, descriptor):
    (tree / "a").mkdir()
    (tree / "a/b").touch()
    assert list(read(pack_all(descriptor, [b"a"], stored={b"a": b"x/y"}))) == ["x/y", "x/y/b"]


@pytest.mark.parametrize(
    "name",
    [
        b"..",
        b"../secret",
        b"/etc/passwd",
        b"a/../../secret",
        b"",
        b".",
        b"up/secret",
        b"link/secret",
        b"a\0b",
    ],
)
def test_names_outside_or_through_links_are_refused(tree, descriptor, name):
    (tree.parent / "secret").write_text("s")
    (tree / "a").mkdir()
    (tree / "up").symlink_to("..")
    (tree / "link").symlink_to("a")
    with pytest.raises(Problem) as caught:
        pack_all(descriptor, [name])
    assert caught.value.code in (Code.BAD_REQUEST, Code.NOT_FOUND)


def test_a_missing_name_is_a_problem(descriptor):
    with pytest.raises(Problem, match=r"there is no file 'a\\x1bb'"):
        pack_all(descriptor, [b"a\x1bb"])


def test_sockets_pipes_and_devices_are_left_out_and_told(tree, descriptor):
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))
        packed = Packed()
        assert list(read(pack_all(descriptor, packed=packed))) == []
    assert packed.left_out == [(b"pipe", "a FIFO"), (b"socket", "a socket")]
    assert packed.entries == 0


def test_names_and_targets_of_any_bytes_and_length_survive(tree, descriptor):
    name, target = b"\xff\n " + b"n" * 250, b"\xfe/" + b"t" * 300
    os.symlink(target, os.fsencode(tree) + b"/" + name)
    (entry,) = read(pack_all(descriptor)).values()
    assert (os.fsencode(entry.name), os.fsencode(entry.linkname)) == (name, target)


def test_a_sparse_file_costs_its_data_only(tree, descriptor):
    with (tree / "disk").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"data")
    packed = Packed()
    stream = pack_all(descriptor, packed=packed)
    assert len(stream) < 20_000
    assert packed.size_bytes == 1 << 40
    assert read(stream)["disk"].size == 1 << 40


def interrupt(monkeypatch, act):
    """Calls `act` once, before the first read of a file's content."""
    pread = os.pread
    done = []

    def reading(*arguments):
        if not done:
            done.append(act())
        return pread(*arguments)

    monkeypatch.setattr(os, "pread", reading)


@pytest.mark.parametrize(
    ("act", "content"),
    [
        (lambda path: os.truncate(path, 3), b"old" + bytes(7)),
        (lambda path: path.write_bytes(b"longer than before"), b"longer tha"),
        (lambda path: os.utime(path, (5, 5)), b"old conten"),
    ],
)
def test_a_file_that_changes_meanwhile_is_told(tree, descriptor, monkeypatch, act, content):
    path = tree / "file"
    path.write_bytes(b"old conten")
    interrupt(monkeypatch, lambda: act(path))
    packed = Packed()
    stream = pack_all(descriptor, packed=packed)
    assert packed.changed == [b"file"]
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        member = archive.extractfile("file")
        assert member is not None
        assert member.read() == content


def test_a_file_that_vanishes_or_becomes_a_link_meanwhile_is_left_out(tree, descriptor, monkeypatch):
    (tree.parent / "secret").write_text("secret")
    for name in ("a", "b", "c", "d"):
        (tree / name).write_text("content")
    stat = os.stat

    def after(name, **options):
        found = stat(name, **options)
        if name == b"b":
            (tree / "b").unlink()
            (tree / "b").symlink_to("../secret")
        if name == b"c":
            (tree / "c").unlink()
        return found

    monkeypatch.setattr(os, "stat", after)
    packed = Packed()
    stream = pack_all(descriptor, packed=packed)
    assert list(read(stream)) == ["a", "d"]
    assert packed.changed == [b"b", b"c"]
    assert b"secret" not in stream


def test_a_deep_tree_is_packed_and_a_deeper_one_refused(tree, descriptor):
    inner = tree
    for _ in range(255):
        inner = inner / "d"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    before = os.listdir("/proc/self/fd")
    assert len(read(pack_all(descriptor))) == 256
    (inner / "d/d").mkdir(parents=True)
    with pytest.raises(Problem, match="more than 256 directories deep"):
        pack_all(descriptor)
    assert os.listdir("/proc/self/fd") == before


def test_a_packing_that_is_left_closes_its_directories(tree, descriptor):
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/big").write_bytes(bytes(1 << 20))
    before = sorted(os.listdir("/proc/self/fd"))
    packing = pack(descriptor)
    next(packing)
    packing.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_the_measure_is_what_packing_comes_to(tree, descriptor):
    (tree / "a").mkdir()
    (tree / "a/one").write_bytes(bytes(1000))
    (tree / "two").write_bytes(bytes(500))
    (tree / "link").symlink_to("two")
    packed = Packed()
    pack_all(descriptor, packed=packed)
    assert measure(descriptor) == packed.size_bytes == 1500
