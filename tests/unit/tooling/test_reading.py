"""Which bytes of a repository on the host are read: those of the closed list, and nothing behind a link."""

import os
import socket

import pytest

from banger.base.problem import Problem
from banger.services.tooling.reading import Place, find_place, read_plan


@pytest.fixture
def root(tmp_path):
    directory = tmp_path / "repository"
    directory.mkdir()
    return directory


def read(root, subdirectory=""):
    return read_plan(Place(root, subdirectory))


def test_a_link_is_told_and_not_followed(root, tmp_path):
    (tmp_path / "secret").write_text("s3cret")
    (root / ".nvmrc").symlink_to(tmp_path / "secret")
    found = read(root)
    assert found.tools == ()
    assert [(warning.file, warning.text) for warning in found.warnings] == [
        (".nvmrc", "it is a symbolic link, which is not followed")
    ]


def test_a_directory_that_is_a_link_is_not_entered(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "devcontainer.json").write_text('{"image": "node:20"}')
    (root / ".devcontainer").symlink_to(outside)
    (root / "below").symlink_to(outside)
    (outside / ".nvmrc").write_text("20")
    assert read(root).tools == ()
    assert read(root, "below").tools == ()


def test_what_is_no_file_is_not_waited_for(root):
    os.mkfifo(root / ".nvmrc")
    (root / "go.mod").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / ".ruby-version"))
        found = read(root)
    assert found.tools == ()
    assert {warning.file for warning in found.warnings} == {".nvmrc", "go.mod", ".ruby-version"}


def test_a_large_file_costs_no_more_than_its_beginning(root):
    with (root / "package.json").open("wb") as file:
        file.truncate(10 << 30)
    (warning,) = read(root).warnings
    assert "is not read" in warning.text


def test_of_a_lock_file_nothing_is_read(root):
    with (root / "bun.lockb").open("wb") as file:
        file.truncate(10 << 30)
    assert [(tool.name, tool.version) for tool in read(root).tools] == [("bun", "latest")]


def test_descriptors_are_closed(root):
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / ".config").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    read(root, "a/b")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_repository_that_is_gone_is_refused(root, tmp_path):
    with pytest.raises(Problem, match="cannot be read"):
        read(tmp_path / "gone")


def test_a_place_without_git_is_itself(root):
    (root / "below").mkdir()
    assert find_place(str(root / "below")).root == root / "below"
    (root / ".git").write_text("gitdir: ../elsewhere\n")
    assert find_place(str(root / "below")) == Place(root, "below")
