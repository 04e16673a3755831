"""A repository goes into a real guest: its git, its disk, its own idea of files."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.support.banger import Banger, refused
from tests.support.repositories import Case, Link, Remove, Write, commit, make_plain, perform, run_git

_TEST = b"""#!/bin/sh
set -e
test "$(cat src/answer)" = 42
git status --short > result
echo "tested $(git log --oneline | wc -l) commit in $(pwd)"
"""
_LIST = (
    "find . -name .git -prune -o \\( -type f -o -type l \\) -printf '%P\\0%y%#m\\0%l\\0' "
    "-type f -exec md5sum -z {} \\; | sort -z"
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    steps = (
        Write(b"test.sh", _TEST, 0o755),
        Write(b"src/answer", b"41\n"),
        Write(b"gone", b"x\n"),
        Write(b"a name\nwith \xff", b"odd\n"),
        Link(b"link", b"../../outside"),
    )
    tree = make_plain(tmp_path / "project", Case("project", steps))
    perform(tree, [Write(b"src/answer", b"42\n"), Remove(b"gone"), Write(b".env", b"TOKEN=secret\n")])
    return tree


def list_here(tree: Path) -> bytes:
    return subprocess.run(["sh", "-c", _LIST], cwd=tree, capture_output=True, check=True).stdout


def list_there(banger: Banger, vm: str, place: str) -> bytes:
    return banger.run("vm", "exec", vm, "-w", place, "--", "sh", "-c", _LIST).stdout


def test_run_with_a_path_runs_the_repositorys_tests_and_leaves_nothing(banger: Banger, repository: Path):
    done = banger.run("vm", "run", "--rm", "--name", "once", str(repository), "--", "./test.sh")
    assert done.stdout == b"tested 1 commit in /root/project\n"
    assert "once" not in [vm["name"] for vm in banger.json("vm", "list", "--all")["vms"]]
    assert not (repository / "result").exists()


def test_what_is_refused_is_refused_before_a_vm_is_made(banger: Banger, tmp_path: Path):
    before = banger.json("vm", "list", "--all")["vms"]
    refused(banger, "vm", "run", str(tmp_path), "--", "true", status=64, words="not in a git repository")
    assert banger.json("vm", "list", "--all")["vms"] == before


def test_a_workspace_comes_follows_and_keeps_the_guests_work(banger: Banger, vm: str, repository: Path):
    banger.run("workspace", "prepare", vm, str(repository))
    (repository / ".env").unlink()
    assert list_there(banger, vm, "/root/project") == list_here(repository)
    assert banger.guest(vm, "git", "status", "--short").split() == ["D", "gone", "M", "src/answer"]
    perform(
        repository, [*commit("next"), Write(b"large", os.urandom(200_000)), Write(b"src/answer", b"43\n")]
    )
    run_git(repository, "add", "large")
    first = banger.json("workspace", "prepare", vm)
    assert (first["changed"], first["sent_bytes"] > 200_000) == (True, True)
    assert list_there(banger, vm, "/root/project") == list_here(repository)
    perform(repository, [Write(b"src/answer", b"44\n")])
    assert banger.json("workspace", "prepare", vm)["sent_bytes"] < 3_000

    banger.guest(vm, "sh", "-c", "echo mine > src/answer; echo new > made-here")
    state = banger.json("workspace", "status", vm)
    assert state["guest_changes"] == ["made-here", "src/answer"]
    perform(repository, [Write(b"src/answer", b"45\n")])
    text = refused(banger, "workspace", "prepare", vm, status=75, words="work that would be lost")
    assert "--force" in text
    assert banger.guest(vm, "cat", "src/answer") == "mine\n"
    banger.run("workspace", "prepare", vm, "--force")
    assert banger.guest(vm, "cat", "src/answer", "made-here") == "45\nnew\n"


def test_a_read_only_one_cannot_be_written_to_and_still_follows(banger: Banger, vm: str, repository: Path):
    place = "/root/read-only"
    banger.run("workspace", "prepare", vm, str(repository), "--guest-path", place, "--read-only")
    done = banger.run("vm", "exec", vm, "--", "touch", "x", check=False)
    assert b"Read-only file system" in done.stderr
    perform(repository, [Write(b"src/answer", b"47\n")])
    banger.run("workspace", "prepare", vm, "--read-only")
    assert banger.guest(vm, "cat", "src/answer") == "47\n"
    banger.run("vm", "restart", vm)
    until_refused = (
        f"n=0; while touch {place}/x 2>/dev/null && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.1; done; "
        f"touch {place}/x"
    )
    done = banger.run("vm", "exec", vm, "--", "sh", "-c", until_refused, check=False)
    assert b"Read-only file system" in done.stderr
    banger.run("workspace", "prepare", vm)
    banger.guest(vm, "touch", "src/answer")


def test_a_full_disk_in_the_middle_leaves_nothing_and_the_next_one_works(
    banger: Banger, vm: str, repository: Path
):
    perform(repository, [Write(b"large", os.urandom(1_200_000))])
    run_git(repository, "add", "large")
    mount = "mkdir -p /root/small && mount -t tmpfs -o size=2m none /root/small"
    banger.run("vm", "exec", vm, "-w", "/", "--", "sh", "-c", mount)
    place = ("--guest-path", "/root/small/project")
    text = refused(
        banger,
        "workspace",
        "prepare",
        vm,
        str(repository),
        *place,
        status=74,
        words="the disk of shared is full",
    )
    assert "df" in text
    assert banger.run("vm", "exec", vm, "-w", "/", "--", "ls", "-A", "/root/small").stdout == b""
    banger.run("vm", "exec", vm, "-w", "/", "--", "mount", "-o", "remount,size=40m", "/root/small")
    banger.run("workspace", "prepare", vm, str(repository), *place)
    (repository / ".env").unlink()
    assert list_there(banger, vm, "/root/small/project") == list_here(repository)
    banger.run("vm", "exec", vm, "-w", "/", "--", "umount", "/root/small")


def test_a_stopped_vm_is_refused(banger: Banger, repository: Path):
    banger.run("vm", "create", "--no-start", "--name", "still")
    refused(
        banger,
        "workspace",
        "prepare",
        "still",
        str(repository),
        status=69,
        words="still has never been started",
    )
    banger.run("vm", "delete", "still")
