"""A tap lent to Firecracker, which opens taps by name only: it serves, and nothing that dies leaves it behind."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.support.banger import ROOT
from tests.support.tiers import skip_or_fail
from tests.support.unprivileged import NOBODY, find_python, render_environment


def run_world(module: str, *arguments: str, python: str = sys.executable) -> dict:
    """What it said. It has a network of its own."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    unshare = ("unshare", "--net", "--mount", "--propagation=private", "--")
    done = subprocess.run(
        (*unshare, python, "-m", f"tests.native.{module}", *arguments),
        capture_output=True,
        text=True,
        timeout=50,
        cwd=ROOT,
        env=render_environment(environment),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def find_python_for(uid: int) -> str:
    """One that the uid may run; for root any."""
    if os.getuid() != 0:
        skip_or_fail("taps and namespaces need root", tier="native")
    if uid == 0:
        return sys.executable
    python = find_python(render_environment({"PYTHONPATH": f"{ROOT}/src:{ROOT}"}))
    if python is None:
        skip_or_fail(f"uid {NOBODY} may not read {ROOT} or run its Python", tier="native")
    return python


@pytest.fixture(scope="module", params=[0, NOBODY], ids=["root", "nobody"])
def told(request, firecracker, mini_kernel):
    """Device files in there are such that its user may open them."""
    python = find_python_for(request.param)
    return run_world("tap_world", str(firecracker), str(mini_kernel), str(request.param), python=python)


@pytest.fixture(scope="module")
def told_of_jails(firecracker, mini_kernel):
    python = find_python_for(NOBODY)
    directory = Path(tempfile.mkdtemp(prefix="bn-", dir="/tmp"))
    try:
        return run_world("jail_world", str(directory), str(mini_kernel), str(NOBODY), python=python)
    finally:
        shutil.rmtree(directory)


def test_a_tap_lives_as_long_as_its_holder_or_the_vmm_and_no_longer(told):
    assert told["share"] == {
        "persists while shared": False,
        "pings": True,
        "stays with its holder": True,
        "pings another": True,
        "stays with the VMM": True,
        "goes with the last": True,
    }


def test_a_start_that_fails_gives_the_tap_back_as_it_was(told):
    assert "Firecracker refuses PUT /actions" in told["fail"].pop("late")
    assert told["fail"].pop("early") == "the tap bng-none is gone"
    assert told["fail"] == {"persists after": False, "_attach": False, "share_tap": False, "gone": True}


def test_a_descriptor_that_somebody_still_has_for_a_moment_is_waited_for(told):
    assert told["busy"] == {"gone": True}


def test_a_daemon_and_a_vmm_killed_one_after_the_other_leave_no_tap(told):
    assert told["killed"] == {"stays with the VMM": True, "persists": False, "gone": True}
    assert told["left"] == []
    assert told["running"] == []


def test_a_jailed_vmm_of_an_ordinary_users_daemon_shares_its_tap_by_way_of_root(told_of_jails):
    assert told_of_jails["share"] == {
        "persists while shared": False,
        "pings": True,
        "answers": True,
        "exit": "killed",
        "by root": True,
        "stays with its holder": True,
        "pings another": True,
        "stays with the VMM": True,
        "goes with the last": True,
    }


def test_a_jailed_start_that_fails_gives_the_tap_back_or_leaves_none(told_of_jails):
    assert told_of_jails["late"] == {"persists after": False, "serves again": True, "gone": True}
    for step in ("lent", "attached"):
        assert told_of_jails[step] == {"told": "as told", "gone": True, "by root": "delete_taps"}
    assert (told_of_jails["left"], told_of_jails["jails"], told_of_jails["running"]) == ([], 0, [])
