"""Starts that cannot be: real processes, each refused with one line, a hint and its status, and nothing changed."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.support.banger import Banger, refused
from tests.support.unprivileged import DROP, find_python, give_away, render_environment


@pytest.fixture
def home():
    """Short, for there are sockets in it."""
    home = Path(tempfile.mkdtemp(prefix="bad-", dir="/tmp"))
    yield home
    shutil.rmtree(home)


@pytest.fixture
def banger(home):
    user = Banger(home, data=home / "data")
    user.configure('network = "user"\n')
    yield user
    shutil.rmtree(home / "run", ignore_errors=True)


def photograph(directory):
    return {
        path: (entry.st_mode, entry.st_uid, entry.st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if (entry := path.lstat()) and not stat.S_ISSOCK(entry.st_mode)
    }


def start_daemon(banger):
    """Not by the command line, which looks first: (status, what it said)."""
    argv = [sys.executable, "-m", "banger.daemon", "--foreground"]
    done = subprocess.run(argv, env=banger.environment, capture_output=True, text=True, timeout=30)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def make_link(path):
    path.with_name("real").mkdir(mode=0o700)
    path.symlink_to("real")


def make_foreign(path):
    if os.getuid() != 0:
        pytest.skip("only root can give directories away")
    path.mkdir(mode=0o700)
    os.chown(path, 4242, 4242)


BAD = {
    "is a symbolic link to": make_link,
    "is not a directory": lambda path: path.touch(),
    "has mode 0755": lambda path: (path.mkdir(), path.chmod(0o755)),
    "belongs to uid 4242": make_foreign,
}


@pytest.mark.parametrize("words", BAD)
@pytest.mark.parametrize("which", ["run", "state/banger"])
def test_a_directory_that_cannot_be_trusted_is_refused_by_client_and_daemon(banger, home, which, words):
    (home / which).parent.mkdir(mode=0o700, exist_ok=True)
    BAD[words](home / which)
    (home / "run").mkdir(mode=0o700, exist_ok=True) if which != "run" else None
    before = photograph(home)
    status, said = start_daemon(banger)
    assert (status, words in said, "\nhint: " in said) == (77, True, True), said
    assert photograph(home) == before
    refused(banger, "ps", status=77, words=words)
    assert [path for path in photograph(home) if path not in before] in ([], [home / "run" / "start.lock"])


@pytest.mark.parametrize("which", ["data", "cache"])
def test_the_other_directories_are_looked_at_before_anything_is_made(banger, home, which):
    (home / which / "banger").mkdir(parents=True)
    (home / which / "banger").chmod(0o777)
    before = photograph(home)
    status, said = start_daemon(banger)
    assert (status, f"{home}/{which}/banger has mode 0777" in said) == (77, True)
    assert photograph(home) == before
    refused(banger, "ps", status=77, words="has mode 0777", hint=f"hint: chmod 700 {home}/{which}/banger")


def test_a_link_on_the_way_to_the_sockets_is_refused(banger, home):
    (home / "real").mkdir()
    (home / "link").symlink_to("real")
    banger.environment["BANGER_RUNTIME_DIR"] = f"{home}/link/run"
    before = photograph(home)
    hint = f"hint: export BANGER_RUNTIME_DIR={home}/real/run"
    refused(banger, "ps", status=77, words=f"has a symbolic link on the way, {home}/link", hint=hint)
    assert start_daemon(banger)[0] == 77
    assert photograph(home) == before


def test_a_runtime_directory_without_room_for_sockets_is_refused(banger, home):
    banger.environment["BANGER_RUNTIME_DIR"] = f"{home}/{'x' * 100}"
    refused(banger, "ps", status=69, words="path too long", hint="hint: export BANGER_RUNTIME_DIR=")
    banger.environment["BANGER_RUNTIME_DIR"] = f"{home}/{'x' * 70}"
    status, said = start_daemon(banger)
    assert (status, "bytes too long for sockets" in said) == (64, True)
    assert not (banger.state / "banger" / "banger.db").exists()


def test_a_key_that_nobody_knows_is_named_with_file_and_line(banger):
    file = banger.configure('network = "user"\n\nmemroy = "2G"\n')
    refused(banger, "ps", status=64, words=f"{file}:3: memroy: is no key that banger knows")
    assert not (banger.state / "banger" / "banger.db").exists()
    refused(banger, "ps", status=64, words=f"{file}:3")
    assert banger.run("doctor", check=False).returncode == 69


def test_a_configuration_that_is_no_toml_is_refused(banger):
    file = banger.configure("network = user\n")
    refused(banger, "ps", status=64, words=str(file))


@pytest.fixture
def nobody(home):
    """As an ordinary user, whom modes hold off."""
    if os.getuid() != 0:
        user = Banger(home, data=home / "data")
        user.configure('network = "user"\n')
        return user

    class Nobody(Banger):
        def argv(self, *arguments):
            return [*DROP, python, "-m", "banger.cli", *arguments]

    user = Nobody(home, data=home / "data")
    user.environment = render_environment(user.environment)
    python = find_python(user.environment)
    if python is None:
        pytest.skip("nobody can run no Python here")
    user.configure('network = "user"\n')
    give_away(home)
    return user


def test_a_state_directory_that_cannot_be_written_is_refused(nobody, home):
    state = home / "state" / "banger"
    nobody.run("daemon", "start")
    nobody.run("daemon", "stop")
    state.chmod(0o500)
    before = photograph(state)
    refused(nobody, "ps", status=69, words=str(state), hint=f"hint: chmod 700 {state}")
    assert photograph(state) | {state / "daemon.log": 0} == before | {state / "daemon.log": 0}
    state.chmod(0o700)
    assert nobody.run("ps").returncode == 0
    nobody.run("daemon", "stop")


def test_a_configuration_that_cannot_be_read_is_refused(nobody, home):
    file = home / "config" / "banger" / "config.toml"
    file.chmod(0)
    refused(nobody, "ps", status=64, words=f"{file} cannot be read", hint=f"hint: ls -l {file}")


def test_the_doctor_finds_all_of_that_without_starting_a_daemon(banger, home):
    (home / "state" / "banger").mkdir(parents=True, mode=0o755)
    (home / "state" / "banger").chmod(0o755)
    before = photograph(home)
    findings = {
        each["check"]: each
        for each in json.loads(banger.run("doctor", "--json", check=False).stdout)["findings"]
    }
    assert findings["own posture"]["fix"] == f"chmod 0700 {home}/state/banger"
    assert findings["daemon"]["verdict"] == "pass"
    assert photograph(home) == before
