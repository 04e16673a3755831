"""A tap lent to Firecracker, which opens taps by name only: it serves, and nothing that dies leaves it behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.banger import ROOT
from tests.support.tiers import skip_or_fail
from tests.support.unprivileged import NOBODY, find_python, render_environment

WORLD = Path(__file__).parent / "tap_world.py"


@pytest.fixture(scope="module", params=[0, NOBODY], ids=["root", "nobody"])
def told(request, firecracker, mini_kernel):
    """What the world said. It has a network of its own, and device files that its user may open."""
    if os.getuid() != 0:
        skip_or_fail("taps and namespaces need root", tier="native")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    environment = render_environment(environment)
    python = sys.executable if request.param == 0 else find_python(environment)
    if python is None:
        skip_or_fail(f"uid {NOBODY} may not read {ROOT} or run its Python", tier="native")
    argv = (
        "unshare",
        "--net",
        "--mount",
        "--propagation=private",
        "--",
        python,
        "-m",
        "tests.native.tap_world",
    )
    done = subprocess.run(
        (*argv, str(firecracker), str(mini_kernel), str(request.param)),
        capture_output=True,
        text=True,
        timeout=50,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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
