"""Where commands begin in a VM with a workspace."""

import pytest

from banger.api.vm import VmCreate, VmDelete
from banger.base.progress import Silent
from banger.guest.command import ExecRequest
from banger.model.workspace import Workspace


@pytest.fixture
async def vm(world, vms):
    vm = (await vms.create(VmCreate(name="web", start=False), Silent())).vm
    world.store.workspaces.save(
        Workspace(
            vm_id=vm.id,
            host_root="/src/app",
            guest_path="/root/app",
            subdirectory="web",
            environment={"A": "tools"},
        )
    )
    return vm


async def test_a_command_begins_in_the_workspace_and_finds_its_tools(vms, vm):
    arranged = vms.arrange(vm, ExecRequest(argv=("make",), env=(("A", "mine"),), stdin=True))
    assert arranged.cwd == "/root/app/web"
    assert arranged.argv == ("make",)
    assert arranged.env == (("A", "tools"), ("A", "mine"))  # the later one wins
    assert arranged.stdin


@pytest.mark.parametrize("own", [{"cwd": "/etc"}, {"user": "nobody"}])
async def test_whoever_says_where_gets_nothing_added(vms, vm, own):
    request = ExecRequest(argv=("make",), **own)
    assert vms.arrange(vm, request) is request


async def test_a_vm_without_a_workspace_runs_commands_as_they_are(vms):
    vm = (await vms.create(VmCreate(name="plain", start=False), Silent())).vm
    request = ExecRequest(argv=("make",))
    assert vms.arrange(vm, request) is request


async def test_the_workspace_goes_with_its_vm(world, vms, vm):
    await vms.delete(VmDelete(vm="web"), Silent())
    assert not world.store.workspaces.list()
