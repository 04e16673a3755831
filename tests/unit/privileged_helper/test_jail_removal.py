import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.privileged.helper.removal import remove_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="directories are made root's")


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    yield descriptor
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(descriptor)


def remove(parent: int, seconds: float = 20) -> bool:
    return remove_tree(parent, "tree", time.monotonic() + seconds)


def test_what_is_not_there_is_gone(parent: int) -> None:
    assert remove(parent)


def test_all_kinds_of_entries(parent: int, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "b" / "c").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_text("x")
    (tree / "a" / "link").symlink_to("/etc")
    (tree / "a" / "closed").mkdir(mode=0)
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "null", 0o020000, os.makedev(1, 3))
    (tree / ".0").mkdir()  # a name that directories are moved to
    (tree / ".0" / "full").mkdir()
    (tree / ".1").write_text("x")
    assert remove(parent)
    assert os.listdir(tmp_path) == []


def test_links_are_not_followed(parent: int, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("x")
    keep.chmod(0o755)
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(keep)
    (tree / "link").symlink_to("../keep")
    assert remove(parent)
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
    assert (keep / "file").read_text() == "x"
    assert keep.stat().st_mode & 0o777 == 0o755
    tree.symlink_to(keep)
    assert remove(parent)
    assert (keep / "file").exists()
    assert not tree.is_symlink()


def test_a_plain_file_in_its_place(parent: int, tmp_path: Path) -> None:
    (tmp_path / "tree").write_text("x")
    assert remove(parent)
    assert os.listdir(tmp_path) == []


def test_depth_costs_no_descriptors(parent: int, tmp_path: Path) -> None:
    place = os.open(tmp_path, os.O_RDONLY)
    for name in ("tree", *["d"] * 2000):
        os.mkdir(name, dir_fd=place)
        inner = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    assert remove(parent)
    assert os.listdir(tmp_path) == []


def test_what_was_open_before_takes_nothing_new(parent: int, tmp_path: Path) -> None:
    """Each directory is root's, and closed, before it is looked into."""
    (tmp_path / "tree" / "s").mkdir(parents=True)
    (tmp_path / "tree" / "s").chmod(0o777)
    (tmp_path / "tree" / "s" / "full").mkdir()
    held = os.open(tmp_path / "tree" / "s", os.O_RDONLY)
    assert remove(parent)
    assert (os.fstat(held).st_uid, os.fstat(held).st_mode & 0o777) == (0, 0o700)
    with pytest.raises(FileNotFoundError):
        os.mkdir("late", dir_fd=held)
    os.close(held)


def test_no_time_left_leaves_the_rest_for_the_next(parent: int, tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / "tree" / str(number)).mkdir(parents=True)
    assert not remove(parent, -1)
    assert 0 < len(os.listdir(tmp_path / "tree")) < 600
    assert remove(parent)
    assert os.listdir(tmp_path) == []
