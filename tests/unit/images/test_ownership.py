"""Which way to being root over a tree is taken, and what is left of it afterwards: nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from banger.base.problem import Code, Problem, unavailable
from banger.images import ownership
from banger.images.ownership import Ownership, may_gain_privileges


def can_unshare() -> bool:
    return subprocess.run(("unshare", "--user", "true"), capture_output=True).returncode == 0


needs_namespaces = pytest.mark.skipif(not can_unshare(), reason="user namespaces are forbidden here")


@pytest.fixture
def confined(monkeypatch):
    """As in the daemon's unit: an ordinary user, whatever is executed gains nothing."""
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(ownership, "may_gain_privileges", lambda: False)


@pytest.fixture
def free(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(ownership, "may_gain_privileges", lambda: True)


class Mapper:
    """Looks at the keeper, and maps nothing."""

    def __init__(self, failure: Problem | None = None) -> None:
        self.asked: list[int] = []
        self.failure = failure

    async def __call__(self, pid: int) -> None:
        self.asked.append(pid)
        assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
        assert Path(f"/proc/{pid}/uid_map").read_text() == ""
        if self.failure is not None:
            raise self.failure


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def opened(owned: Ownership) -> None:
    async with owned.open_root():
        pass


async def test_root_needs_nothing(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    mapper = Mapper()
    async with Ownership(mapper).open_root() as prefix:
        assert prefix == ()
    assert mapper.asked == []


@needs_namespaces
async def test_a_confined_daemon_has_its_ids_mapped_by_somebody_else(confined):
    mapper = Mapper()
    async with Ownership(mapper).open_root() as prefix:
        (keeper,) = mapper.asked
        assert prefix[0].endswith("/nsenter")
        assert prefix[1:] == (f"--user=/proc/{keeper}/ns/user", "--")
        assert not is_gone(keeper)
    assert is_gone(keeper)


@needs_namespaces
async def test_each_block_has_a_namespace_of_its_own(confined):
    mapper = Mapper()
    owned = Ownership(mapper)
    async with owned.open_root() as first:
        async with owned.open_root() as second:
            assert first != second
        assert [is_gone(pid) for pid in mapper.asked] == [False, True]


@needs_namespaces
async def test_what_the_mapper_refuses_is_told_and_leaves_no_keeper(confined):
    mapper = Mapper(unavailable("alice has no ids", hint="sudo usermod alice"))
    with pytest.raises(Problem) as caught:
        await opened(Ownership(mapper))
    assert caught.value is mapper.failure
    assert [is_gone(pid) for pid in mapper.asked] == [True]


@needs_namespaces
async def test_a_keeper_whose_daemon_dies_ends(tmp_path):
    """By itself: nobody is there any more to end it."""
    program = """
import asyncio, os
from banger.images import ownership
ownership.may_gain_privileges = lambda: False
os.getuid = lambda: 1000
async def say(pid):
    print(pid, flush=True)
    os.kill(os.getpid(), 9)
async def main():
    async with ownership.Ownership(say).open_root():
        pass
asyncio.run(main())
"""

    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, timeout=60)
    assert done.returncode == -9, done.stderr  # and all copies of its pipes are closed, or this would wait


async def test_a_confined_daemon_without_a_helper_says_how_to_get_one(confined):
    with pytest.raises(Problem) as caught:
        await opened(Ownership())
    assert (caught.value.code, caught.value.hint) == (Code.UNAVAILABLE, "sudo banger system install")


async def test_where_namespaces_are_forbidden_nobody_is_asked(confined, monkeypatch):
    monkeypatch.setattr(ownership, "get_tool", lambda name, package: "/bin/false")
    mapper = Mapper()
    with pytest.raises(Problem) as caught:
        await opened(Ownership(mapper))
    assert caught.value.brief.startswith("user namespaces cannot be made")
    assert "apparmor_restrict_unprivileged_userns" in (caught.value.hint or "")
    assert mapper.asked == []


async def test_a_free_daemon_runs_newuidmap_and_asks_nobody(free, monkeypatch):
    tried = []

    async def works(prefix):
        tried.append(prefix)

    monkeypatch.setattr(ownership, "_find_complaint", works)
    monkeypatch.setattr(ownership, "find_tool", lambda name: Path("/usr/bin") / name)
    mapper = Mapper()
    async with Ownership(mapper).open_root() as prefix:
        assert prefix[1:] == ("--map-auto", "--map-root-user", "--")
    assert [each[1:] for each in tried] == [("--map-root-user", "--"), prefix[1:]]
    assert mapper.asked == []


@pytest.mark.parametrize(
    ("complaints", "brief", "hint"),
    [
        (["no"], "user namespaces cannot be made: no", "work-offline"),
        ([None, "no ids"], "subordinate user ids cannot be had: no ids", "usermod --add-subuids"),
    ],
)
async def test_a_free_daemon_is_told_what_newuidmap_lacks(free, monkeypatch, complaints, brief, hint):
    waiting = list(complaints)

    async def complain(_):
        return waiting.pop(0)

    monkeypatch.setattr(ownership, "_find_complaint", complain)
    monkeypatch.setattr(ownership, "find_tool", lambda name: Path("/usr/bin") / name)
    with pytest.raises(Problem) as caught:
        await opened(Ownership())
    assert caught.value.brief == brief
    assert hint in (caught.value.hint or "")


async def test_a_free_daemon_without_uidmap_is_told_the_package(free, monkeypatch):
    monkeypatch.setattr(ownership, "find_tool", lambda name: None)
    with pytest.raises(Problem, match="uidmap is not installed") as caught:
        await opened(Ownership())
    assert caught.value.hint == "sudo apt-get install uidmap"


def test_no_new_privileges_is_read_from_the_kernel():
    program = "from banger.images.ownership import may_gain_privileges; print(may_gain_privileges())"

    for flags, said in ((("--no-new-privs",), "False\n"), ((), f"{may_gain_privileges()}\n")):
        argv = ("setpriv", *flags, sys.executable, "-c", program)
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == said


async def test_a_tree_of_our_own_is_removed_without_anybodys_help(tmp_path, confined):
    (tmp_path / "tree" / "below").mkdir(parents=True)
    mapper = Mapper()
    owned = Ownership(mapper)
    await owned.remove_tree(tmp_path / "tree")
    await owned.remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []
    assert mapper.asked == []
