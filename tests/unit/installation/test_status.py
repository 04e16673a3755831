"""What is installed, whether it is whole, whether it runs; and how that is shown."""

import json
import os
from pathlib import Path

import pytest
from tests.unit.installation.conftest import OWNER_UID

import banger
from banger.cli.render.installation import as_data, render_status
from banger.installation import places
from banger.installation.helper_archive import digest_build
from banger.installation.install import Wishes, install
from banger.installation.status import find_status


@pytest.fixture
def installed(host):
    install(host, Wishes(owner="alice"), lambda text: None)
    return host


def built(host):
    return digest_build(Path(host.at(places.HELPER)).read_bytes())


def fixes(status):
    return dict(status.problems)


def test_nothing_is_installed(host):
    assert find_status(host) is None
    assert as_data(None) == {"installed": False}


def test_all_is_well(installed, listen):
    listen.helper(build=built(installed))
    listen.daemon(running=3)
    status = find_status(installed)
    assert status.problems == []
    assert (status.owner, status.uid, status.finished, status.forwarding) == ("alice", OWNER_UID, True, True)
    assert {file.state for file in status.files} == {"intact"}
    assert status.helper == (os.getpid(), built(installed), built(installed), built(installed), None)
    assert status.daemon == (os.getpid(), banger.__version__, 3, None)
    assert status.units is None
    text = render_status(status)
    assert f"helper:      pid {os.getpid()}, build {built(installed)}" in text
    assert f"{places.HELPER}" in text
    assert "problem" not in text


def test_each_problem_names_what_mends_it(installed, listen, systemctl):
    Path(installed.at(places.HELPER_UNIT)).write_text("changed")
    Path(installed.at(places.MODULES_FILE)).unlink()
    Path(installed.at(places.CONFIG)).write_text("edited")
    Path(installed.at(places.DAEMON_UNIT)).chmod(0o666)
    Path(installed.at(places.FORWARDING_SWITCH)).write_text("0\n")
    host = systemctl(state="inactive")
    status = find_status(host)
    states = {file.path: file.state for file in status.files}
    assert states.pop(places.DAEMON_UNIT).startswith("others than root may change it")
    assert states == {
        places.HELPER: "intact",
        places.CONFIG: "edited",
        places.MODULES_FILE: "missing",
        places.UDEV_RULES: "intact",
        places.FORWARDING_FILE: "intact",
        places.HELPER_UNIT: "changed",
    }
    found = fixes(status)
    assert found[f"{places.MODULES_FILE}: missing"] == "sudo banger system install"
    assert found["this host does not forward IPv4 packets"] == "sudo sysctl -w net.ipv4.ip_forward=1"
    assert found["banger.service is inactive"] == "journalctl -u banger.service"
    assert sum(fix == "sudo banger system restart" for fix in found.values()) == 2
    assert all(fix for fix in found.values())
    assert "problem: the root helper does not listen" in render_status(status)


def test_an_older_helper_is_found_in_file_and_process(installed, listen):
    listen.daemon(version="0.0.1")
    listen.helper(build="f" * 16)
    assert fixes(find_status(installed)) == {
        "the helper that runs is not the one that is installed": "sudo banger system restart",
        f"the daemon is of version 0.0.1, this banger of {banger.__version__}": "sudo banger system install",
    }
    Path(installed.at(places.HELPER)).write_bytes(b"older")
    texts = fixes(find_status(installed))
    assert (
        texts["the installed helper is of another version than this banger"] == "sudo banger system install"
    )


def test_an_unfinished_installation_is_one(installed):
    record = Path(installed.at(places.RECORD))
    record.write_text(record.read_text().replace('"finished": true', '"finished": false'))
    assert fixes(find_status(installed))["the installation was not finished"] == "sudo banger system install"


def test_a_directory_that_cannot_be_trusted_is_told_and_not_raised(installed):
    Path(installed.at("/usr/local/lib")).chmod(0o777)
    (state,) = [file.state for file in find_status(installed).files if file.path == places.HELPER]
    assert state == "everybody may write to /usr/local/lib"


def test_as_json_it_has_stable_names(installed, listen):
    listen.helper(build=built(installed))
    data = json.loads(json.dumps(as_data(find_status(installed))))
    assert data["installed"] is True
    assert data["files"][0] == {"path": places.HELPER, "state": "intact"}
    assert set(data["helper"]) == {"pid", "build", "installed", "ours", "problem"}
    assert set(data["daemon"]) == {"pid", "version", "running", "problem"}
    assert data["problems"] == [{"text": data["daemon"]["problem"], "fix": "sudo banger system restart"}]
    assert set(data) == {
        "installed", "version", "owner", "uid", "installed_at", "finished", "files", "helper", "daemon", "units",
        "forwarding", "problems",
    }  # fmt: skip
