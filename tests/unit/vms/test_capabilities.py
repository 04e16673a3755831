"""What VMs can have: each capability through its hooks, and one that nobody has heard of yet."""

import asyncio
import os
import subprocess
from contextlib import asynccontextmanager

import msgspec
import pytest
from tests.unit.vms.conftest import open_networks

from banger.api.vm import VmCreate, VmDelete, VmRename, VmRestart, VmSet, VmShow, VmStart, VmStop
from banger.base.problem import Code, Problem, conflict
from banger.base.progress import Silent
from banger.base.tasks import Supervisor
from banger.guest.entries import Listener
from banger.model.config import Config, FileSync, Opencode
from banger.model.vm import VmState
from banger.services.vms.capabilities import git_identity
from banger.services.vms.capabilities.contract import Capability
from banger.services.vms.capabilities.registration import list_checks
from banger.services.vms.service import VmService

QUIET = Silent()
OPENCODE = Listener("tcp", "127.0.0.1", 4096, 1, "opencode")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@asynccontextmanager
async def open_with(world, **keys):
    """A service with other words in its configuration."""
    config = msgspec.structs.replace(world.around.config, **keys)
    async with Supervisor() as tasks:
        networks = open_networks(None, tasks)
        service = VmService(world.around._replace(config=config, networks=networks), tasks)
        networks.open()
        yield service
        await service.close()
        await networks.close()


def read_archive(world):
    """What the last guest was told at boot."""
    *_, machine = world.vmm.machines.values()
    return open(machine.initramfs, "rb").read()


# One that is new


class Fan(Capability):
    name = "fan"

    def __init__(self):
        self.seen = []
        self.refusal = None

    def preflight(self, vm):
        self.seen.append("preflight")
        if self.refusal:
            raise self.refusal
        return ("the fan is loud",)

    def machine(self, vm, layout, machine):
        self.seen.append("machine")
        return msgspec.structs.replace(machine, kernel_arguments=(*machine.kernel_arguments, "fan=on"))

    def guest(self, boot, config):
        self.seen.append("guest")
        return config

    def prepare(self, vm, layout, image):
        self.seen.append("prepare")

    async def started(self, started):
        self.seen.append("started")

    async def cleanup(self, vm):
        self.seen.append("cleanup")

    async def change(self, vm, after):
        self.seen.append("change")


async def test_every_hook_of_a_capability_is_called_in_its_time(vms, world):
    fan = Fan()
    vms._life.capabilities = (*vms._life.capabilities, fan)
    details = await vms.create(VmCreate(name="web"), QUIET)
    assert fan.seen == ["prepare", "preflight", "machine", "guest", "started"]
    assert details.vm.warnings == ("the fan is loud",)
    (machine,) = world.vmm.machines.values()
    assert machine.kernel_arguments[-1] == "fan=on"
    fan.seen.clear()
    await vms.stop(VmStop(vm="web"), QUIET)
    await vms.set(VmSet(vm="web", vcpus=2))
    await vms.delete(VmDelete(vm="web"), QUIET)
    assert fan.seen == ["change", "cleanup"]


async def test_a_capability_that_refuses_a_start_leaves_the_vm_as_it_was(vms, world):
    fan = Fan()
    vms._life.capabilities = (*vms._life.capabilities, fan)
    await vms.create(VmCreate(name="web", start=False), QUIET)
    fan.refusal = conflict("the fan is broken")
    with pytest.raises(Problem, match="broken"):
        await vms.start(VmStart(vm="web"), QUIET)
    vm = vms.show(VmShow(vm="web")).vm
    assert (vm.state, vm.holds, world.vmm.host.alive()) == (VmState.CREATED, (), [])


# Files


async def test_files_of_the_owner_are_in_the_guest_with_their_mode(world, home):
    (home / "token").write_text("s3cret")
    async with open_with(
        world, file_sync=(FileSync(host="~/token", guest="~/.config/token", mode="0400"),)
    ) as vms:
        details = await vms.create(VmCreate(name="web"), QUIET)
        assert details.vm.warnings == ()
    archive = read_archive(world)
    assert b"root/.config/token" in archive
    assert b"s3cret" in archive
    assert b"s3cret" not in world.store.connection.execute("SELECT record FROM vms").fetchone()[0].encode()


async def test_a_file_that_is_missing_is_a_warning_until_it_is_there(world, home):
    async with open_with(world, file_sync=(FileSync(host="~/token", guest="/etc/token"),)) as vms:
        details = await vms.create(VmCreate(name="web"), QUIET)
        assert details.vm.warnings == ("~/token is not copied to /etc/token: No such file or directory",)
        await vms.stop(VmStop(vm="web"), QUIET)
        (home / "token").write_text("now")
        assert (await vms.start(VmStart(vm="web"), QUIET)).vm.warnings == ()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
async def test_what_is_no_regular_file_is_left_out_and_nobody_waits_for_it(world, home, make):
    make(home / "token")
    async with open_with(world, file_sync=(FileSync(host="~/token", guest="/etc/token"),)) as vms:
        async with asyncio.timeout(10):
            details = await vms.create(VmCreate(name="web"), QUIET)
        assert details.vm.warnings == ("~/token is not copied to /etc/token: it is not a regular file",)
    assert b"etc/token" not in read_archive(world)


async def test_a_file_that_is_too_large_refuses_the_start(world, home):
    with (home / "huge").open("wb") as file:
        file.truncate(8 * 1024 * 1024 + 1)
    async with open_with(world, file_sync=(FileSync(host="~/huge", guest="/huge"),)) as vms:
        with pytest.raises(Problem, match="larger than 8 MiB"):
            await vms.create(VmCreate(name="web"), QUIET)
    assert world.leftovers() == []


def test_the_doctor_asks_the_capabilities_that_are_registered():
    class Stray(Capability):
        @classmethod
        def checks(cls, config):
            return {"stray": None}

    assert "stray" not in list_checks(Config())


async def test_the_doctor_tells_of_files_that_every_start_would_miss(home):
    assert list_checks(Config()) == {}
    config = Config(file_sync=(FileSync(host="~/token", guest="/etc/token"),))
    check = list_checks(config)["file sync"]
    assert (await check()).verdict == "warn"
    (home / "token").write_text("here")
    assert (await check()).verdict == "pass"
    with (home / "token").open("wb") as file:
        file.truncate(9 * 1024 * 1024)
    assert (await check()).verdict == "fail"


# Git


async def test_who_commits_is_who_commits_on_the_host(world, home, monkeypatch):
    identity = '[user]\n\tname = Ada "the" L\\\\ovelace\n\temail = ada@example.org\n'
    (home / "included").write_text(identity.replace('"the"', '\\"the\\"'))
    (home / ".gitconfig").write_text(f"[include]\n\tpath = {home}/included\n[alias]\n\tsecret = !echo\n")
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    async with world.open() as vms:
        await vms.create(VmCreate(name="web"), QUIET)
    archive = read_archive(world)
    begin = archive.index(b"[user]")
    (home / "result").write_bytes(archive[begin : archive.index(b"\0", begin)])
    for key, value in (("name", 'Ada "the" L\\ovelace'), ("email", "ada@example.org")):
        argv = ("git", "config", "-f", str(home / "result"), f"user.{key}")
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == value + "\n"
    assert b"secret" not in archive


async def test_git_is_asked_again_when_a_file_that_it_reads_has_changed_and_only_then(
    world, home, monkeypatch
):
    asked = []
    run = git_identity.run_blocking
    monkeypatch.setattr(git_identity, "run_blocking", lambda *a, **k: asked.append(a) or run(*a, **k))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "elsewhere"))
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    included = home / "included"
    (home / "elsewhere" / "git").mkdir(parents=True)
    (home / "elsewhere" / "git" / "config").write_text(f"[include]\n\tpath = {included}\n")
    (home / ".gitconfig").write_text("[alias]\n\tst = status\n")
    included.write_text("[user]\n\tname = Ada\n")
    async with world.open() as vms:
        await vms.create(VmCreate(name="web"), QUIET)
        assert b'name = "Ada"' in read_archive(world)
        await vms.restart(VmRestart(vm="web"), QUIET)
        assert len(asked) == 1
        await vms.stop(VmStop(vm="web"), QUIET)
        included.write_text("[user]\n\tname = Grace\n")
        await vms.start(VmStart(vm="web"), QUIET)
        assert b'name = "Grace"' in read_archive(world)
        assert len(asked) == 2


@pytest.mark.parametrize("enabled", [True, False])
async def test_without_an_identity_or_without_leave_nothing_is_told(world, home, enabled):
    if not enabled:
        (home / ".gitconfig").write_text("[user]\n\tname = Ada\n")
    async with open_with(world, git_identity=enabled) as vms:
        await vms.create(VmCreate(name="web"), QUIET)
    assert b"gitconfig" not in read_archive(world)


# opencode


async def test_waiting_for_opencode_ends_when_it_listens_or_in_time(world, monkeypatch):
    monkeypatch.setattr("banger.services.vms.capabilities.opencode._WAIT_S", 0.05)
    async with world.open() as vms:
        await vms.create(VmCreate(name="web"), QUIET)
        await vms.stop(VmStop(vm="web"), QUIET)
        with pytest.raises(Problem, match="opencode does not listen on port 4096") as caught:
            await vms.start(VmStart(vm="web", wait_opencode=True), QUIET)
        assert caught.value.code is Code.UNAVAILABLE
        assert vms.show(VmShow(vm="web")).vm.state is VmState.RUNNING


async def test_the_configuration_can_have_every_start_wait(world, monkeypatch):
    monkeypatch.setattr("banger.services.vms.capabilities.opencode._WAIT_S", 0.05)
    async with open_with(world, opencode=Opencode(wait=True, port=22)) as vms:
        details = await vms.create(VmCreate(name="web"), QUIET)
        assert "wait for opencode" in [stage.name for stage in details.vm.boot_stages]


# Names and labels


async def test_a_vm_is_renamed_while_it_runs_and_keeps_everything_else(vms, world):
    before = (await vms.create(VmCreate(name="web"), QUIET)).vm
    await vms.create(VmCreate(name="other", start=False), QUIET)
    after = (await vms.rename(VmRename(vm="web", name="shop"))).vm
    assert (after.id, after.name, after.runtime) == (before.id, "shop", before.runtime)
    for name, code in (("other", Code.ALREADY_EXISTS), ("No_Name", Code.BAD_REQUEST)):
        with pytest.raises(Problem) as caught:
            await vms.rename(VmRename(vm="shop", name=name))
        assert caught.value.code is code
        assert "--name" not in caught.value.hint
    assert (await vms.rename(VmRename(vm="shop", name="shop"))).vm.name == "shop"


async def test_labels_are_put_on_and_taken_away(vms):
    await vms.create(VmCreate(name="web", start=False, labels={"team": "blue", "tier": "1"}), QUIET)
    changed = await vms.set(VmSet(vm="web", labels={"team": "red", "new": ""}, unlabel=["tier"]))
    assert changed.vm.labels == {"team": "red", "new": ""}
    with pytest.raises(Problem, match="no label 'tier'"):
        await vms.set(VmSet(vm="web", unlabel=["tier"]))
    assert vms.show(VmShow(vm="web")).vm.labels == {"team": "red", "new": ""}


@pytest.mark.parametrize("labels", [{"": "x"}, {"a b": "x"}, {"a": "two\nlines"}, {"a": "x" * 256}])
async def test_bad_labels_are_refused_and_leave_nothing(vms, world, labels):
    with pytest.raises(Problem) as caught:
        await vms.create(VmCreate(name="web", labels=labels), QUIET)
    assert (caught.value.code, bool(caught.value.hint)) == (Code.BAD_REQUEST, True)
    assert world.leftovers() == []


def test_these_tests_do_not_read_the_real_home(home):
    assert Config().git_identity
    assert os.path.expanduser("~") == str(home)
