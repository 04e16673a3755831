"""Ending a daemon for its successor: a real one, whoever has started it and however it takes a signal."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.support.banger import Banger

from banger.installation import places, processes
from banger.installation.host import Host
from banger.installation.owner import Owner


@pytest.fixture
def home():
    home = Path(tempfile.mkdtemp(prefix="sd-", dir="/tmp"))
    yield home
    shutil.rmtree(home)


@pytest.mark.parametrize("flags", [(), ("--keep-vms",)])
def test_a_daemon_that_is_ended_for_its_successor_leaves_its_vms(home, flags):
    user = Banger(home, data=home / "data")
    user.environment["BANGER_RUNTIME_DIR"] = str(home) + places.RUNTIME
    user.configure('network = "user"\n')
    ready, told = os.pipe()
    argv = [sys.executable, "-m", "banger.daemon", "--foreground", "--ready-fd", str(told), *flags]
    with subprocess.Popen(
        argv, env=user.environment, pass_fds=[told], stderr=subprocess.PIPE, text=True
    ) as daemon:
        os.close(told)
        with os.fdopen(ready) as line:
            assert "ready" in line.readline()
        name = pwd.getpwuid(os.getuid()).pw_name
        processes.stop_daemon(Host(root=str(home)), Owner(name, os.getuid(), os.getgid(), str(home)))
        assert daemon.wait(30) == 0
        assert daemon.stderr is not None
        assert '"message": "the VMs run on"' in daemon.stderr.read()
