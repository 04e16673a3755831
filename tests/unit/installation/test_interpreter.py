"""Which Python becomes root, and whether the owner can run the daemon."""

import os
from pathlib import Path

import pytest
from tests.unit.installation.conftest import OWNER_UID

from banger.client.wire import Failure
from banger.installation.interpreter import belongs_to, find_helper_python, get_daemon_argv
from banger.installation.owner import find_owner


@pytest.fixture
def programs(host):
    """Fakes of Python that say which version they are: programs("python3", "3 9")."""
    directory = Path(host.at("/usr/bin"))
    (directory / "python3").unlink()

    def make(name, version):
        (directory / name).write_text(f"#!/bin/sh\necho {version}\n")
        (directory / name).chmod(0o755)
        return directory / name

    return make


def test_the_systems_python_is_taken_when_it_is_new_enough(host, programs):
    programs("python3", "3 11")
    programs("python3.13", "3 13")
    assert find_helper_python(host) == "/usr/bin/python3"


def test_else_the_newest_that_is_there(host, programs):
    programs("python3", "3 10")
    programs("python3.9", "3 9")
    programs("python3.11", "3 11")
    programs("python3.12", "3 12")
    programs("python3.12-config", "3 99")
    assert find_helper_python(host) == "/usr/bin/python3.12"


def test_without_one_the_package_is_named(host, programs):
    programs("python3", "3 10")
    with pytest.raises(Failure, match=r"Python 3\.11") as caught:
        find_helper_python(host)
    assert caught.value.hint == "sudo apt-get install python3"


def test_one_that_does_not_run_is_passed_over(host, programs):
    programs("python3", "3 11").write_text("#!/nowhere\n")
    programs("python3.11", "3 11")
    assert find_helper_python(host) == "/usr/bin/python3.11"


def test_one_that_others_may_change_never_becomes_root(host, programs):
    programs("python3", "3 11").chmod(0o777)
    programs("python3.11", "3 11")
    assert find_helper_python(host) == "/usr/bin/python3.11"
    Path(host.at("/usr/bin")).chmod(0o777)
    with pytest.raises(Failure):
        find_helper_python(host)


def test_a_link_is_as_good_as_every_directory_on_its_way(root):
    us, real = {os.getuid(), 0}, root / "real"
    real.mkdir()
    program = real / "python3.11"
    program.touch()
    (root / "alternatives").mkdir()
    (root / "alternatives/python3").symlink_to(program)
    link = root / "python3"
    link.symlink_to("alternatives/python3")
    assert belongs_to(link, us)
    (root / "alternatives").chmod(0o777)
    assert not belongs_to(link, us)
    (root / "alternatives").chmod(0o755)
    real.chmod(0o777)
    assert not belongs_to(link, us)
    real.chmod(0o755)
    assert belongs_to(link, us)
    assert not belongs_to(link, {os.getuid() + 1})
    assert not belongs_to(root / "missing", us)
    (root / "loop").symlink_to("loop")
    assert not belongs_to(root / "loop", us)


def test_the_daemon_is_tried_as_its_owner(host):
    owner = find_owner("alice", None, {})
    Path(host.python).write_text(f'#!/bin/sh\n[ "$(id -u) $HOME" = "{OWNER_UID} {owner.home}" ]\n')
    assert get_daemon_argv(host, owner) == (host.python, "-P", "-m", "banger.daemon")


def test_an_installation_that_the_owner_cannot_run_is_refused(host):
    Path(host.python).write_text("#!/bin/sh\necho 'No module named banger' >&2; exit 1\n")
    with pytest.raises(Failure, match="alice cannot run the daemon") as caught:
        get_daemon_argv(host, find_owner("alice", None, {}))
    assert caught.value.detail == "No module named banger"


def test_an_installation_of_a_third_users_is_refused(host):
    Path(host.python).chmod(0o777)
    with pytest.raises(Failure, match="could be changed by others than alice and root"):
        get_daemon_argv(host, find_owner("alice", None, {}))
