"""The posture of what is root: whom it would obey, and whose its file is."""

import os
import socket

import pytest
from tests.unit.checks.conftest import open_networks

from banger.base.problem import unavailable
from banger.base.tasks import Supervisor
from banger.model.config import Config
from banger.privileged.fake import FakePrivileged
from banger.services.checks import root_helper, trust
from banger.services.hostnet.service import HostNetwork


class Helped(FakePrivileged):
    kind = "helper"


class OwnRoot(FakePrivileged):
    kind = "in-process"


@pytest.fixture
async def helped(around, tmp_path, monkeypatch):
    """Surroundings with a helper that is installed as it should be."""
    directory = tmp_path / "run-root"
    directory.mkdir(mode=0o755)
    monkeypatch.chdir(directory)  # a socket's path is short
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("root.sock")
        (directory / "root.sock").chmod(0o600)
        program = tmp_path / "lib" / "banger-root"
        program.parent.mkdir(mode=0o755)
        program.write_text("#!/usr/bin/python3\n")
        program.chmod(0o755)
        async with open_networks(Helped()) as networks:
            yield around._replace(
                config=Config(),
                networks=networks,
                root_socket=directory / "root.sock",
                root_program=program,
            )


async def test_a_closed_socket_and_a_file_of_roots_pass(helped):
    finding = await root_helper.check(helped)
    assert finding.verdict == "pass", finding
    assert str(helped.root_socket) in finding.text


@pytest.mark.parametrize(
    ("what", "mode", "words"),
    [
        ("root_program", 0o757, "everybody may write"),
        ("root_socket", 0o660, "has mode 0660"),
        ("root_socket", 0o606, "has mode 0606"),
    ],
)
async def test_what_others_could_change_fails_with_the_chmod(helped, what, mode, words):
    path = getattr(helped, what)
    path.chmod(mode)
    finding = await root_helper.check(helped)
    assert finding.verdict == "fail"
    assert words in finding.text
    assert finding.fix.startswith("sudo chmod ")
    assert finding.fix.endswith(str(path))


@pytest.mark.parametrize("what", ["root_program", "root_socket"])
async def test_a_directory_that_others_could_change_fails(helped, what):
    parent = getattr(helped, what).parent
    parent.chmod(0o777)
    finding = await root_helper.check(helped)
    assert (finding.verdict, finding.fix) == ("fail", f"sudo chmod o-w {parent}")


async def test_a_group_without_members_is_nobody(helped, monkeypatch):
    """Debian's `staff` on /usr/local/lib."""
    helped.root_program.parent.chmod(0o775)
    monkeypatch.setattr(trust, "list_members", lambda _: [])
    assert (await root_helper.check(helped)).verdict == "pass"
    monkeypatch.setattr(trust, "list_members", lambda _: ["eve"])
    finding = await root_helper.check(helped)
    assert finding.verdict == "fail"
    assert finding.text.startswith("eve may write to")


@pytest.mark.parametrize("what", ["root_program", "root_socket"])
async def test_somebody_elses_file_fails(helped, what, monkeypatch):
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    path = getattr(helped, what)
    os.chown(path, 4242, -1)
    finding = await root_helper.check(helped)
    assert finding.verdict == "fail"
    assert str(path) in finding.text


async def test_a_link_in_place_of_the_program_fails(helped, tmp_path):
    helped.root_program.rename(tmp_path / "elsewhere")
    helped.root_program.symlink_to(tmp_path / "elsewhere")
    finding = await root_helper.check(helped)
    assert (finding.verdict, "symbolic link" in finding.text) == ("fail", True)


async def test_a_file_in_place_of_the_socket_fails(helped):
    helped.root_socket.unlink()
    helped.root_socket.touch(0o600)
    assert (await root_helper.check(helped)).verdict == "fail"


async def test_no_helper_means_that_nothing_is_root(around):
    async with Supervisor() as tasks:
        networks = HostNetwork("auto", None, unavailable("no root helper is installed"), tasks)
        finding = await root_helper.check(around._replace(config=Config(), networks=networks))
    assert (finding.verdict, finding.text) == ("pass", "none: nothing of banger's runs as root")


async def test_user_mode_by_choice_passes_and_still_looks_at_what_is_installed(around, helped):
    chosen = helped._replace(config=Config(network="user"), networks=around.networks)
    finding = await root_helper.check(chosen)
    assert (finding.verdict, "not used" in finding.text) == ("pass", True)
    helped.root_program.chmod(0o777)
    assert (await root_helper.check(chosen)).verdict == "fail"


async def test_a_daemon_that_is_its_own_root_is_a_warning(around):
    async with open_networks(OwnRoot()) as networks:
        finding = await root_helper.check(around._replace(config=Config(), networks=networks))
    assert finding.verdict == "warn"
    assert finding.fix.startswith("sudo banger system install")
