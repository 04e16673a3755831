"""Root's files: no symbolic link in any component, nobody else's directories, whole files only."""

import os
import stat
from pathlib import Path

import pytest

from banger.client.wire import Failure
from banger.installation import tree as module
from banger.installation.tree import Tree

PATH = "/etc/banger/deep/file"


@pytest.fixture
def tree(root):
    (root / "system").mkdir()
    return Tree(str(root / "system"), uid=os.getuid())


@pytest.fixture
def at(root):
    return lambda path: root / "system" / path.removeprefix("/")


def test_a_file_is_written_with_its_mode_whatever_the_umask(tree, at):
    former = os.umask(0o077)
    try:
        tree.write(PATH, b"content", mode=0o755)
    finally:
        os.umask(former)
    assert at(PATH).read_bytes() == b"content"
    assert stat.S_IMODE(at(PATH).stat().st_mode) == 0o755
    assert stat.S_IMODE(at("/etc/banger").stat().st_mode) == 0o755
    assert tree.find(PATH) == (b"content", 0o755, os.getuid())
    assert [entry.name for entry in at("/etc/banger/deep").iterdir()] == ["file"]


@pytest.mark.parametrize("component", ["/etc", "/etc/banger", "/etc/banger/deep"])
@pytest.mark.parametrize(
    "operation", ["find", "write", "remove", "lock", "remove_empty", "remove_own", "give", "log"]
)
def test_a_symbolic_link_in_any_directory_is_refused(tree, at, root, component, operation):
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    tree.write(PATH, b"content", mode=0o644)
    at(component).rename(elsewhere / "real")
    at(component).symlink_to(elsewhere / "real")
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(Failure, match="symbolic link") as caught:
        perform(tree, operation, PATH)
    assert caught.value.code == "unauthorized"
    assert sorted(elsewhere.rglob("*")) == before
    assert (elsewhere / "real" / Path(PATH).relative_to(component)).read_bytes() == b"content"


def perform(tree, operation, path):
    if operation == "find":
        tree.find(path)
    elif operation == "write":
        tree.write(path, b"other", mode=0o644)
    elif operation == "remove":
        tree.remove(path)
    elif operation == "lock":
        with tree.lock(os.path.dirname(path)):
            pass
    elif operation == "remove_empty":
        tree.remove_empty_directory(path)
    elif operation == "remove_own":
        tree.remove_own_directory(path)
    elif operation == "give":
        tree.give_directory(path, uid=os.getuid(), gid=os.getgid())
    else:
        os.close(tree.open_log(path))


def test_a_symbolic_link_in_the_files_place_is_not_followed(tree, at, root):
    target = root / "target"
    target.write_text("theirs")
    tree.write(PATH, b"x", mode=0o644)
    at(PATH).unlink()
    at(PATH).symlink_to(target)
    with pytest.raises(Failure, match="symbolic link"):
        tree.find(PATH)
    with pytest.raises(Failure, match="symbolic link"):
        tree.open_log(PATH)
    tree.write(PATH, b"ours", mode=0o644)
    assert (at(PATH).read_text(), target.read_text(), at(PATH).is_symlink()) == ("ours", "theirs", False)
    at(PATH).unlink()
    at(PATH).symlink_to(target)
    assert tree.remove(PATH)
    assert target.read_text() == "theirs"


@pytest.mark.parametrize("left", ["file", "link", "directory"])
def test_what_a_killed_write_has_left_is_no_obstacle(tree, at, root, left):
    (root / "target").write_text("theirs")
    tree.write(PATH, b"old", mode=0o644)
    aside = at("/etc/banger/deep/.file.new")
    if left == "file":
        aside.write_text("half")
    elif left == "link":
        aside.symlink_to(root / "target")
    else:
        aside.mkdir()
        with pytest.raises(Failure):
            tree.write(PATH, b"new", mode=0o644)
        assert at(PATH).read_bytes() == b"old"
        return
    tree.write(PATH, b"new", mode=0o644)
    assert (at(PATH).read_bytes(), aside.exists(), (root / "target").read_text()) == (b"new", False, "theirs")


def test_removing_takes_along_what_a_killed_write_has_left(tree, at):
    tree.write(PATH, b"x", mode=0o644)
    at("/etc/banger/deep/.file.new").write_text("half")
    assert tree.remove(PATH)
    assert list(at("/etc/banger/deep").iterdir()) == []
    assert not tree.remove(PATH)
    assert not tree.remove("/nowhere/at/all")


def test_a_directory_of_somebody_elses_is_refused(tree, at, root):
    tree.write(PATH, b"x", mode=0o644)
    if os.getuid() == 0:
        os.chown(at("/etc/banger"), 61235, -1)
    else:
        tree = Tree(str(root / "system"), uid=os.getuid() + 1)
    with pytest.raises(Failure, match="belongs to uid") as caught:
        tree.write(PATH, b"y", mode=0o644)
    assert caught.value.hint.startswith("sudo chown root:root /")
    assert at(PATH).read_bytes() == b"x"


def test_a_directory_that_all_may_write_to_is_refused_unless_it_is_sticky(tree, at):
    tree.write(PATH, b"x", mode=0o644)
    at("/etc").chmod(0o777)
    with pytest.raises(Failure, match="everybody may write to /etc"):
        tree.find(PATH)
    at("/etc").chmod(0o1777)
    assert tree.find(PATH) is not None


def test_a_directory_of_a_groups_is_refused_when_it_has_members(tree, at, monkeypatch):
    tree.write(PATH, b"x", mode=0o644)
    at("/etc").chmod(0o2775)
    monkeypatch.setattr(module, "list_members", lambda gid: [])
    assert tree.find(PATH) is not None
    monkeypatch.setattr(module, "list_members", lambda gid: ["mallory"])
    with pytest.raises(Failure, match="mallory may write to /etc"):
        tree.find(PATH)


def test_what_is_no_regular_file_is_refused(tree, at):
    tree.ensure_directory("/etc")
    os.mkfifo(at("/etc/fifo"))
    with pytest.raises(Failure, match="no regular file"):
        tree.find("/etc/fifo")
    at("/etc/directory").mkdir()
    with pytest.raises(Failure, match="no regular file"):
        tree.find("/etc/directory")
    with pytest.raises(Failure):
        tree.write("/etc/directory", b"x", mode=0o644)
    assert at("/etc/directory").is_dir()
    assert not at("/etc/.directory.new").exists()


def test_of_two_at_once_the_second_is_refused(tree):
    with tree.lock("/etc/banger"), pytest.raises(Failure, match="another"), tree.lock("/etc/banger"):
        pass
    with tree.lock("/etc/banger"):
        pass


def test_a_directory_is_given_to_its_user_once(tree, at):
    tree.give_directory("/run", uid=os.getuid(), gid=os.getgid())
    (at("/run") / "kept").touch()
    at("/run").chmod(0o755)
    tree.give_directory("/run", uid=os.getuid(), gid=os.getgid())
    assert stat.S_IMODE(at("/run").stat().st_mode) == 0o700
    assert (at("/run") / "kept").exists()
    at("/other").symlink_to(at("/run"))
    with pytest.raises(Failure):
        tree.give_directory("/other", uid=os.getuid(), gid=os.getgid())


def test_removing_a_directory_of_ours_follows_no_link_inside(tree, at, root):
    (root / "theirs").mkdir()
    (root / "theirs/kept").touch()
    tree.ensure_directory("/run/own/deep")
    at("/run/own/link").symlink_to(root / "theirs")
    tree.remove_own_directory("/run/own")
    assert not at("/run/own").exists()
    assert (root / "theirs/kept").exists()
    tree.remove_own_directory("/run/own")


def test_a_directory_that_holds_something_stays(tree, at):
    tree.write(PATH, b"x", mode=0o644)
    assert not tree.remove_empty_directory("/etc/banger/deep")
    tree.remove(PATH)
    assert tree.remove_empty_directory("/etc/banger/deep")
    assert tree.remove_empty_directory("/etc/banger/deep")
    assert not at("/etc/banger/deep").exists()
