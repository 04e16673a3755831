"""The units: what systemd itself says of them, and that no name in them can be read as anything else."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from banger.client.wire import Failure
from banger.installation import places
from banger.installation.owner import Owner
from banger.installation.units import (
    quote,
    quote_command,
    render_daemon_unit,
    render_helper_unit,
    validate_program,
)
from banger.privileged.helper import cgroups, jail_place
from banger.privileged.helper.__main__ import SOCKET

ALICE = Owner("alice", 1000, 1000, "/home/alice")
DAEMON = ("/opt/banger/bin/python", "-P", "-m", "banger.daemon")
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def read(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


@pytest.fixture
def units(tmp_path):
    """Both, in a root directory of their own, with the programs they name."""

    def write(owner=ALICE, daemon=DAEMON):
        files = {
            places.HELPER_UNIT: render_helper_unit(owner),
            places.DAEMON_UNIT: render_daemon_unit(owner, daemon),
        }
        for path, text in files.items():
            file = tmp_path / path[1:]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        for program in (places.HELPER, daemon[0]):
            file = tmp_path / program[1:]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o755)
        for target in (
            "multi-user",
            "network-pre",
            "network",
            "sysinit",
            "basic",
            "shutdown",
            "-.mount",
            "sockets",
        ):
            name = target if "." in target else f"{target}.target"
            (tmp_path / "etc/systemd/system" / name).write_text(
                "[Unit]\nDescription=x\nDefaultDependencies=no\n"
            )
        return [tmp_path / path[1:] for path in files]

    return write


def analyze(tmp_path, *words):
    return subprocess.run([ANALYZE, f"--root={tmp_path}", *words], capture_output=True, text=True)


@needs_systemd
@pytest.mark.parametrize("directory", ["plain", "all 100% of it; $HOME"])
def test_systemd_understands_them(tmp_path, directory):
    python = tmp_path / directory / "python"
    python.parent.mkdir()
    python.touch(mode=0o755)
    helper = tmp_path / places.HELPER_UNIT_NAME
    helper.write_text(render_helper_unit(ALICE).replace(places.HELPER, "/bin/true"))
    daemon = tmp_path / places.DAEMON_UNIT_NAME
    text = render_daemon_unit(ALICE._replace(home=str(python.parent)), (str(python), *DAEMON[1:]))
    daemon.write_text(text)
    assert verify(helper, daemon) == []
    daemon.write_text(text.replace("KillMode=process", "KillMode=sometimes"))
    assert any("sometimes" in line for line in verify(helper, daemon))
    daemon.write_text(text.replace("/python", "/missing"))
    assert any("is not executable" in line for line in verify(helper, daemon))


def verify(*files):
    argv = [ANALYZE, "verify", "--man=no", "--recursive-errors=no", *map(str, files)]
    done = subprocess.run(argv, capture_output=True, text=True)
    return [line for line in done.stderr.splitlines() if "banger" in line]


@needs_systemd
@pytest.mark.parametrize(("unit", "tenths"), [(places.HELPER_UNIT, 45), (places.DAEMON_UNIT, 38)])
def test_their_exposure_stays_low(units, tmp_path, unit, tenths):
    """0 is an airtight sandbox, 100 none. The helper's worst are the host's network, being root at all, CAP_SYS_ADMIN
    (root disks, and the jailer's mounts) and CAP_SETUID."""
    units()
    name = Path(unit).name
    done = analyze(tmp_path, "security", "--offline=true", f"--threshold={tenths}", "--no-pager", name)
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.returncode == 0, done.stdout


def test_every_capability_of_the_helpers_is_justified():
    text = render_helper_unit(ALICE)
    bounding = " ".join(read(text)["CapabilityBoundingSet"]).split()
    assert bounding == [
        "CAP_NET_ADMIN",
        "CAP_NET_BIND_SERVICE",
        "CAP_CHOWN",
        "CAP_KILL",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_SYS_ADMIN",
        "CAP_MKNOD",
        "CAP_DAC_OVERRIDE",
        "CAP_SYS_PTRACE",
    ]
    for capability in bounding:
        assert re.search(rf"^# {capability} +\w", text, re.MULTILINE)


def test_the_daemon_is_the_owner_and_can_become_nobody_else():
    unit = read(render_daemon_unit(ALICE, DAEMON))
    assert unit["User"] == ["alice"]
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == [""]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert not {"PermissionsStartOnly", "Group"} & set(unit)
    assert all(not line.startswith(("+", "!")) for line in [*unit["ExecStart"], *unit["ExecStop"]])


@pytest.mark.parametrize("text", [render_helper_unit(ALICE), render_daemon_unit(ALICE, DAEMON)])
def test_a_restart_touches_no_vm(text):
    unit = read(text)
    assert (unit["KillMode"], unit["RuntimeDirectoryPreserve"]) == (["process"], ["yes"])
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]


def test_they_run_what_was_asked_for():
    helper, daemon = read(render_helper_unit(ALICE)), read(render_daemon_unit(ALICE, DAEMON))
    assert helper["ExecStart"] == [f"{places.HELPER} --owner 1000 --socket {places.HELPER_SOCKET}"]
    assert daemon["ExecStart"] == ["/opt/banger/bin/python -P -m banger.daemon --foreground --keep-vms"]
    assert daemon["Environment"] == ["BANGER_RUNTIME_DIR=/run/banger BANGER_CONFIG_DIR=/etc/banger"]


def test_the_socket_is_where_a_helper_that_is_told_nothing_listens_and_in_the_units_own_directory():
    assert places.HELPER_SOCKET == SOCKET
    helper, daemon = read(render_helper_unit(ALICE)), read(render_daemon_unit(ALICE, DAEMON))
    assert [f"/run/{name}" for name in helper["RuntimeDirectory"]] == [places.HELPER_RUNTIME]
    assert [f"/run/{name}" for name in daemon["RuntimeDirectory"]] == [places.RUNTIME]


def test_jails_are_where_the_helper_keeps_them_and_the_unit_lets_it():
    unit = read(render_helper_unit(ALICE))
    assert [f"/var/lib/{name}" for name in unit["StateDirectory"]] == [places.HELPER_STATE]
    assert unit["StateDirectoryMode"] == ["0700"]
    assert jail_place.BASE.startswith(places.HELPER_STATE + "/")
    assert f"{cgroups.ROOT}/{cgroups.PARENT}" == places.CGROUPS
    assert (unit["ProtectControlGroups"], unit["RestrictNamespaces"]) == (["no"], ["mnt"])


def test_the_helper_has_the_devices_of_disks_and_makes_nodes_of_no_others():
    allowed = read(render_helper_unit(ALICE))["DeviceAllow"]
    assert [line.split()[0] for line in allowed if "m" in line.split()[1]] == [
        "block-loop",
        "block-device-mapper",
    ]
    assert {"/dev/net/tun rw", "/dev/loop-control rw", "/dev/mapper/control rw"} < set(allowed)


def test_words_are_quoted_as_systemd_reads_them():
    assert quote("/home/alice") == "/home/alice"
    assert quote("/home/a b") == '"/home/a b"'
    assert quote('/x"y\\z%n') == '"/x\\"y\\\\z%%n"'
    assert quote_command(("/a b/$x", "$HOME", "plain")) == '"/a b/$x" $$HOME plain'
    assert shlex.split(quote("/it's; true")) == ["/it's; true"]
    with pytest.raises(AssertionError):
        quote("/home/a\nExecStartPre=/bin/sh")
    for path in ('/a"b', "/a'b", "/a\\b", "/a\nb"):
        with pytest.raises(Failure):
            validate_program(path)
