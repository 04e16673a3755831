import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.privileged.contract.values import Refusal
from banger.privileged.helper.managed import (
    Root,
    exists_below,
    open_below,
    open_trusted_directory,
    read_below,
)

PARTS = ("one", "two", "three", "file")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "real" / "one" / "two" / "three").mkdir(parents=True)
    (tmp_path / "real" / "one" / "two" / "three" / "file").write_text("content")
    (tmp_path / "elsewhere" / "two" / "three").mkdir(parents=True)
    (tmp_path / "elsewhere" / "two" / "three" / "file").write_text("secret")
    return tmp_path


@pytest.fixture
def root(tree: Path) -> Iterator[int]:
    descriptor = os.open(tree / "real", os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_a_file_below_a_root_is_opened(root: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    descriptor = open_below(root, PARTS, os.O_RDONLY)
    assert os.read(descriptor, 100) == b"content"
    assert os.get_inheritable(descriptor) is False
    os.close(descriptor)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("depth", range(len(PARTS)))
@pytest.mark.parametrize("absolute", [True, False])
def test_a_symbolic_link_is_refused_wherever_it_is(tree: Path, root: int, depth: int, absolute: bool) -> None:
    component = (tree / "real").joinpath(*PARTS[: depth + 1])
    moved = component.with_name("moved")
    component.rename(moved)
    component.symlink_to(moved if absolute else "moved")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):
        open_below(root, PARTS, os.O_RDONLY)
    with pytest.raises(OSError):
        open_below(root, PARTS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    assert len(os.listdir("/proc/self/fd")) == before
    assert (tree / "real").joinpath("moved", *PARTS[1:]).exists() or depth > 0


@pytest.mark.parametrize("part", ["", ".", "..", "/", "one/two", "../elsewhere", "/etc", "a\0b"])
@pytest.mark.parametrize("position", [0, 1, 3])
def test_what_is_no_component_is_refused(root: int, part: str, position: int) -> None:
    parts = list(PARTS)
    parts[position] = part
    with pytest.raises(Refusal, match="is not a component of a path"):
        open_below(root, parts, os.O_RDONLY)


def test_no_component_at_all_is_refused(root: int) -> None:
    with pytest.raises(Refusal):
        open_below(root, (), os.O_RDONLY)


def test_the_roots_are_a_closed_list() -> None:
    assert {root.value for root in Root} == {
        "/proc/sys/net/ipv4", "/proc/sys/net/ipv6", "/proc", "/dev", "/dev/net", "/run/systemd", "/etc"
    }  # fmt: skip
    assert read_below(Root.IPV4, ("ip_forward",)).strip() in "01"
    assert exists_below(Root.PROCESSES, (str(os.getpid()), "stat"))
    assert not exists_below(Root.PROCESSES, ("nothing",))
    assert not exists_below(Root.PROCESSES, ("self",))  # a symbolic link


class TestTrustedDirectory:
    @pytest.mark.parametrize(
        "path", ["proc", "", "/", "/proc/..", "/proc/./x", "//proc/x", "/proc/x/", "/proc//x"]
    )
    def test_only_an_absolute_plain_path_is_one(self, path: str) -> None:
        with pytest.raises(Refusal):
            open_trusted_directory(path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root's own directories are trusted")
    def test_another_users_directory_is_not_trusted(self, tmp_path: Path) -> None:
        with pytest.raises(Refusal, match="cannot be trusted"):
            open_trusted_directory(str(tmp_path))

    def test_one_that_is_missing_below_a_missing_one_is_not_made(self) -> None:
        with pytest.raises(Refusal, match=r"nothing-\d+ is missing"):
            open_trusted_directory(f"/proc/nothing-{os.getpid()}/deeper")
