import errno
import os
from pathlib import Path

import pytest

from banger.base import files
from banger.base.problem import Problem


def test_an_atomic_write_replaces_the_file_and_leaves_no_temporary(tmp_path):
    target = tmp_path / "state"
    files.write_atomic(target, b"old")
    files.write_atomic(target, b"new", mode=0o640)
    assert target.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_failed_atomic_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "state"
    files.write_atomic(target, b"old")
    with pytest.raises(RuntimeError), files.atomic_file(target) as descriptor:
        os.write(descriptor, b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_sparse_clone_has_the_same_bytes_and_keeps_its_holes(tmp_path):
    source = tmp_path / "seed"
    with source.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
        file.seek(8 * 1024 * 1024)
        file.write(b"x" * 4096)
        file.seek(40 * 1024 * 1024)
        file.write(b"y" * 4096)
    target = tmp_path / "clone"
    assert files.clone_sparse(source, target) in ("reflink", "copy")
    assert target.read_bytes() == source.read_bytes()
    assert files.allocated_bytes(target) < 1024 * 1024


def test_a_clone_may_cross_file_systems(tmp_path, monkeypatch):
    """Where data and state are on different ones, the kernel refuses to copy and so do reflinks."""

    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(files.fcntl, "ioctl", refuse)
    monkeypatch.setattr(files.os, "copy_file_range", refuse)
    source, target = tmp_path / "seed", tmp_path / "clone"
    with source.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
        file.seek(5 * 1024 * 1024)
        file.write(os.urandom(3 * 1024 * 1024))
    assert files.clone_sparse(source, target) == "copy"
    assert target.read_bytes() == source.read_bytes()
    assert files.allocated_bytes(target) < 8 * 1024 * 1024


def test_a_private_directory_is_made_private(tmp_path):
    made = files.ensure_private_directory(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_may_enter_is_refused(tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(Problem, match="0755"):
        files.ensure_private_directory(tmp_path)


def test_a_link_to_a_private_directory_is_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(Problem, match="symbolic link to real"):
        files.ensure_private_directory(tmp_path / "link")


def test_removing_a_tree_does_not_follow_links(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "link").symlink_to(outside)
    files.remove_tree(ours)
    files.remove_tree(ours)
    assert not ours.exists()
    assert (outside / "precious").read_text() == "kept"


@pytest.mark.parametrize("make", [lambda path: path.write_text("x"), lambda path: path.symlink_to("outside")])
def test_what_is_no_directory_is_removed_under_its_name(tmp_path, make):
    (tmp_path / "outside").mkdir()
    make(tmp_path / "ours")
    files.remove_tree(tmp_path / "ours")
    assert [entry.name for entry in tmp_path.iterdir()] == ["outside"]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EIO])
def test_what_cannot_be_looked_at_takes_no_room(tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "stat", refuse)
    assert files.allocated_bytes(tmp_path) == 0


def test_a_link_on_the_way_is_refused_but_for_the_systems(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(Problem, match="on the way") as caught:
        files.refuse_links(tmp_path / "link" / "run")
    assert caught.value.hint == f"export BANGER_RUNTIME_DIR={tmp_path}/real/run"
    files.refuse_links(tmp_path / "real" / "run")
    files.refuse_links(Path("/var/run/banger"))
