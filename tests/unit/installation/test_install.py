"""Installing, again and again, for another owner, half-way; with systemd as told and without."""

import os
import stat
from pathlib import Path

import pytest
from tests.unit.installation.conftest import OWNER_UID

from banger.client.wire import Failure
from banger.installation import install as module
from banger.installation import places
from banger.installation.install import Wishes, install, restart
from banger.installation.record import find_record
from banger.installation.tree import Tree
from banger.installation.uninstall import uninstall

ALICE = Wishes(owner="alice")


@pytest.fixture
def said():
    return []


@pytest.fixture
def do(host, said):
    """Installs for alice; keyword arguments are those of Wishes."""
    return lambda on=None, **wishes: install(on or host, ALICE._replace(**wishes), said.append)


@pytest.fixture
def record(host):
    return lambda: find_record(Tree(host.root, uid=host.root_uid))


def at(host, path):
    return Path(host.at(path))


def test_every_file_is_laid_down_and_recorded(do, host, record):
    do()
    found = record()
    assert (found.owner, found.uid, found.finished) == ("alice", OWNER_UID, True)
    assert [file.path for file in found.files] == list(places.FILES)
    for file in found.files:
        state = at(host, file.path).stat()
        assert (state.st_uid, stat.S_IMODE(state.st_mode)) == (os.getuid(), file.mode)
    assert at(host, places.HELPER).stat().st_mode & 0o777 == 0o755
    runtime = at(host, places.RUNTIME).stat()
    assert (runtime.st_uid, stat.S_IMODE(runtime.st_mode)) == (OWNER_UID, 0o700)


def test_without_systemd_it_says_what_to_run(do, said):
    do()
    text = "\n".join(said)
    assert "systemd does not run here" in text
    assert f"banger-root --owner {OWNER_UID} --socket /run/banger-root/root.sock" in text
    assert "BANGER_RUNTIME_DIR=/run/banger BANGER_CONFIG_DIR=/etc/banger banger daemon serve" in text


def test_forwarding_is_turned_on_and_said(do, host, said, record):
    do()
    assert at(host, places.FORWARDING_SWITCH).read_text() == "1\n"
    assert any("now forwards IPv4 packets" in line for line in said)
    do()
    assert record().forwarding_before == "0"


def test_forwarding_can_be_left_alone_and_taken_back(do, host, record):
    do(forwarding=False)
    assert at(host, places.FORWARDING_SWITCH).read_text() == "0\n"
    assert not at(host, places.FORWARDING_FILE).exists()
    do()
    assert at(host, places.FORWARDING_FILE).exists()
    do(forwarding=False)
    assert not at(host, places.FORWARDING_FILE).exists()
    assert record().find(places.FORWARDING_FILE) is None


def test_once_more_changes_nothing(do, host, said):
    do()
    before = {path: at(host, path).stat().st_ino for path in places.FILES}
    said.clear()
    do()
    assert {path: at(host, path).stat().st_ino for path in places.FILES} == before
    assert [line.split()[0] for line in said[: len(places.FILES)]].count("unchanged") == len(places.FILES) - 1


def test_an_upgrade_replaces_what_differs(do, host, said):
    do()
    at(host, places.HELPER).write_text("older")
    at(host, places.DAEMON_UNIT).chmod(0o666)
    said.clear()
    do()
    assert at(host, places.HELPER).read_bytes().startswith(b"#!/usr/bin/python3 -IS\n")
    assert stat.S_IMODE(at(host, places.DAEMON_UNIT).stat().st_mode) == 0o644
    assert [line.split()[1] for line in said if line.startswith("replaced")] == [
        places.HELPER,
        places.DAEMON_UNIT,
    ]


def test_an_edited_configuration_is_kept(do, host, record):
    do()
    digest = record().find(places.CONFIG).digest
    at(host, places.CONFIG).write_text('vmm = "qemu"\n')
    do()
    assert at(host, places.CONFIG).read_text() == 'vmm = "qemu"\n'
    assert record().find(places.CONFIG).digest == digest


def test_the_configuration_laid_down_is_one_that_the_daemon_reads(do, host):
    from banger.model.config import (
        Config,
        FileSync,
        LimitKeys,
        Opencode,
        ToolingKeys,
        VmDefaults,
        parse_config,
    )

    do()
    text = at(host, places.CONFIG).read_text()
    assert parse_config(text, file="config.toml") == Config()
    uncommented = "\n".join(
        line.removeprefix("# ") for line in text.splitlines() if " = " in line or line.startswith("# [")
    )
    assert parse_config(uncommented, file="config.toml").vm_defaults.vcpu == 2
    tables = {
        **{"vm_defaults": VmDefaults, "limits": LimitKeys, "file_sync": FileSync},
        **{"opencode": Opencode, "tooling": ToolingKeys},
    }
    assert "\n# [agents.claude] " in text
    for key in set(Config.__struct_fields__) - set(tables) - {"agents"}:
        assert f"\n# {key} = " in text
    for table, keys in tables.items():
        section = text[text.index(f"[{table}]") :]
        assert all(f"\n# {key} = " in section for key in keys.__struct_fields__)


def test_one_host_has_one_owner(do, monkeypatch, owner):
    import pwd

    do()
    bob = pwd.struct_passwd(("bob", "x", 61236, 61236, "", owner.pw_dir, "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: bob)
    with pytest.raises(Failure, match="installed for alice") as caught:
        do(owner="bob")
    assert caught.value.hint.startswith("sudo banger system uninstall")


def test_it_needs_root(do, host, snapshot):
    before = snapshot()
    with pytest.raises(Failure, match="system install needs root") as caught:
        do(host._replace(root_uid=os.getuid() + 1))
    assert caught.value.hint == "sudo banger system install"
    assert snapshot() == before


@pytest.mark.parametrize("wishes", [{"owner": "nobody-here"}, {"owner": "root"}])
def test_what_is_refused_changes_nothing(do, snapshot, wishes):
    before = snapshot()
    with pytest.raises(Failure):
        do(**wishes)
    assert snapshot() == before


class Killed(BaseException):
    """As SIGKILL: no clean-up of ours may depend on it."""


def kill_at(monkeypatch, step):
    """The process ends at the n-th rename: a file is complete beside its place, or not at all there."""
    left = [step]
    rename = os.rename

    def maybe(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        rename(*arguments, **options)

    monkeypatch.setattr(os, "rename", maybe)
    return lambda: monkeypatch.setattr(os, "rename", rename)


@pytest.mark.parametrize(
    "step", range(1, len(places.FILES) + 1)
)  # the record, then all files but one, the record
@pytest.mark.parametrize("then", ["install", "uninstall"])
def test_one_that_was_killed_can_be_completed_or_removed(
    do, host, record, snapshot, monkeypatch, said, step, then
):
    do(forwarding=False)
    uninstall(host, said.append, with_vms=False)
    before = snapshot()
    undo = kill_at(monkeypatch, step)
    with pytest.raises(Killed):
        do(forwarding=False)
    undo()
    assert not record().finished
    if then == "install":
        do(forwarding=False)
        assert record().finished
        assert sum(1 for path in places.FILES if at(host, path).exists()) == len(places.FILES) - 1
    uninstall(host, said.append, with_vms=False)
    after = snapshot()
    after.pop(places.FORWARDING_SWITCH[1:])
    before.pop(places.FORWARDING_SWITCH[1:])
    assert after == before


def test_killed_before_the_record_nothing_is_there(do, host, record, monkeypatch, said):
    undo = kill_at(monkeypatch, 0)
    with pytest.raises(Killed):
        do()
    undo()
    assert record() is None
    assert not any(at(host, path).exists() for path in places.FILES)
    assert [entry.name for entry in at(host, places.CONFIG_DIRECTORY).iterdir()] == [".install.json.new"]
    with pytest.raises(Failure, match="not installed"):
        uninstall(host, said.append, with_vms=False)
    assert not at(host, places.CONFIG_DIRECTORY).exists()
    do()
    assert record().finished


def test_systemd_is_told_and_the_answer_waited_for(do, systemctl, listen, said):
    helper, daemon = listen.helper(), listen.daemon()
    do(systemctl())
    units = "banger-root.service banger.service"
    assert systemctl.calls() == ["daemon-reload", f"enable {units}", f"restart {units}"]
    assert [request.method for request in helper.asked] == ["hello"]
    assert daemon.asked == ["daemon.ping"]
    assert said[-1] == "banger-root.service and banger.service run; the daemon of alice answers"


@pytest.mark.parametrize("silent", ["helper", "daemon"])
def test_a_unit_that_fails_is_quoted(do, systemctl, listen, record, silent):
    if silent == "daemon":
        listen.helper()
    unit = {"helper": "banger-root.service", "daemon": "banger.service"}[silent]
    with pytest.raises(Failure, match=f"{unit} is failed and does not answer") as caught:
        do(systemctl(state="failed"))
    assert caught.value.detail == f"the last words of {unit}"
    assert f"journalctl -u {unit}" in caught.value.hint
    assert caught.value.exit_status == 69
    assert not record().finished


def test_a_unit_that_does_not_start_is_quoted(do, systemctl):
    with pytest.raises(Failure, match="systemctl failed") as caught:
        do(systemctl(state="failed", restart_status=1))
    assert caught.value.detail == "the last words of banger-root.service"


def test_the_deadline_is_kept(do, systemctl, listen, monkeypatch):
    listen.helper()
    monkeypatch.setattr(module.wait_answer, "__defaults__", (0.2,))
    with pytest.raises(Failure, match=r"banger\.service is \w+ and does not answer"):
        do(systemctl(state="activating"))


def test_a_daemon_of_another_uid_at_the_socket_is_no_answer(do, systemctl, listen):
    listen.helper()
    if os.getuid() == 0:
        listen.daemon(uid=61237)
    with pytest.raises(Failure, match=r"banger\.service is \w+ and does not answer"):
        do(systemctl(state="failed"))


def test_the_owners_own_daemon_must_not_run_vms(do, listen, snapshot):
    own = listen.daemon(f"/tmp/banger-{OWNER_UID}/daemon.sock", running=2)
    with pytest.raises(Failure, match="2 VMs run under alice's own daemon") as caught:
        do()
    assert caught.value.hint == "as alice: banger daemon stop"
    assert own.asked == ["daemon.status"]
    assert places.RECORD[1:] not in snapshot()


def test_the_owners_own_daemon_is_ended_when_it_runs_none(do, listen, monkeypatch, said):
    ended = []
    monkeypatch.setattr(module.processes, "end", lambda *who: ended.append(who))
    listen.daemon(f"/run/user/{OWNER_UID}/banger/daemon.sock")
    do()
    assert ended == [(os.getpid(), OWNER_UID)]
    assert any("own daemon has been stopped" in line for line in said)


def test_a_restart_asks_systemd_and_waits(do, systemctl, listen, said):
    with pytest.raises(Failure, match="not installed"):
        restart(systemctl(), said.append)
    listen.helper(), listen.daemon()
    host = systemctl()
    do(host)
    restart(host, said.append)
    assert systemctl.calls()[-1] == "restart banger-root.service banger.service"
    assert said[-1] == "the daemon of alice answers"


def test_a_process_of_somebody_elses_is_not_ended():
    with pytest.raises(Failure, match="does not run as uid 61239"):
        module.processes.end(os.getpid(), 61239)


def test_a_daemon_that_says_nonsense_is_not_taken_at_its_word(do, listen):
    listen.daemon(f"/tmp/banger-{OWNER_UID}/daemon.sock", running="many")
    with pytest.raises(Failure, match="does not say how many VMs run"):
        do()
