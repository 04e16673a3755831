"""What tests of VMs on the bridge share: a VMM that holds its tap as QEMU does, and daemons that come and go."""

import asyncio
import os
from contextlib import asynccontextmanager

from tests.unit.hostnet.places import make_bridge
from tests.unit.vms.conftest import open_networks

from banger.api.vm import VmCreate, VmShow
from banger.base.progress import Silent
from banger.base.tasks import Supervisor
from banger.services.hostnet.service import HostNetwork
from banger.services.vms.service import VmService

QUIET = Silent()


class Inheritance:
    """Which machines were started with which descriptor. A fake process keeps a copy until it ends."""

    def __init__(self, vmm):
        self.started = []
        self._vmm = vmm
        self._start = vmm.start
        vmm.start = self.start

    async def start(self, machine, place, tap=None):
        self.started.append((machine, tap))
        handle = await self._start(machine, place, tap)
        if tap is not None:
            copy = os.dup(tap)
            process = self._vmm.host.processes[handle.pid, handle.start_time]
            process.exit.add_done_callback(lambda _: os.close(copy))
        return handle

    def forget_daemon(self):
        """Its own descriptors go with it; those of its VMMs stay."""
        for _, tap in self.started:
            if tap is not None:
                os.close(tap)
        self.started.clear()


@asynccontextmanager
async def open_again(world, root):
    """A daemon that starts as the real one does: first it takes over what runs, then the network is opened."""
    async with Supervisor() as tasks:
        networks = open_networks(root, tasks)
        service = VmService(world.around._replace(networks=networks), tasks)
        await service.recover()
        networks.open()
        yield service
        await service.close()
        await networks.close()


async def create(vms, name, **fields):
    return (await vms.create(VmCreate(name=name, **fields), QUIET)).vm


def find(vms, name):
    return vms.show(VmShow(vm=name)).vm


async def wait_state(vms, name, state):
    async with asyncio.timeout(5):
        while find(vms, name).state is not state:
            await asyncio.sleep(0.001)


def names_of(vms):
    """What the name server of this daemon's bridge was told."""
    return vms._around.networks.bridge.names


def leftovers(root):
    """What VMs have on the host; parked taps are nobody's."""
    return [*root.guests, *root.published, *root.up]


def open_without_pool(root, tasks):
    """In place of `conftest.open_networks`: every tap is made when it is needed, and deleted after."""
    return HostNetwork("auto", make_bridge(root, tasks, pool_target=0), None, tasks)
