"""The steps of a start that take something of the host: root disk, place on the network, VMM.

Each owns what it holds in this process (an attachment, a lease, a handle). What is left of an earlier daemon's is found
by the VM's id, or goes when the bridge is made anew.
"""

from contextlib import AbstractAsyncContextManager, suppress

import msgspec

from banger.base.clock import host_boot_id, utc_now
from banger.base.problem import Problem
from banger.model.vm import VmRecord, VmRuntime
from banger.services.hostnet.contract import Lease, Wish
from banger.services.hostnet.service import HostNetwork
from banger.services.vms.holds import Start, Step
from banger.services.vms.layout import Layouts
from banger.services.vms.plan import locate_root
from banger.services.vms.rows import Rows
from banger.services.vms.surroundings import Backends
from banger.storage.choose import Storage
from banger.vmm.contract import Handle


class AttachRoot(Step):
    name = "attach root"

    def __init__(self, storage: Storage, layouts: Layouts) -> None:
        self._storage = storage
        self._layouts = layouts

    async def do(self, start: Start) -> None:
        vm = start.vm
        start.root = await self._storage.get(vm.root_driver).attach(locate_root(vm, self._layouts.of(vm.id)))

    async def adopt(self, vm: VmRecord) -> None:
        self._storage.get(vm.root_driver).adopt(vm.id)

    async def undo(self, vm: VmRecord, what: dict[str, str]) -> None:
        await self._storage.get(vm.root_driver).release(vm.id)


class JoinNetwork(Step):
    """What an earlier daemon had admitted goes when the bridge is made anew, and a tap goes with its VMM."""

    name = "network"

    def __init__(self, networks: HostNetwork) -> None:
        self._networks = networks
        self._leases: dict[str, AbstractAsyncContextManager[object]] = {}

    async def do(self, start: Start) -> None:
        vm = start.vm
        wish = compose_wish(vm)._replace(ssh_port=start.ssh_port)
        lease = self._networks.lease(wish, start.mode)
        start.lease = await lease.__aenter__()
        self._leases[vm.id] = lease

    async def adopt(self, vm: VmRecord) -> None:
        assert vm.runtime is not None
        if vm.id in self._leases:
            return
        lease = self._networks.adopt(compose_wish(vm), vm.runtime)
        await lease.__aenter__()
        self._leases[vm.id] = lease

    async def undo(self, vm: VmRecord, what: dict[str, str]) -> None:
        if (lease := self._leases.pop(vm.id, None)) is not None:
            await lease.__aexit__(None, None, None)


class StartVmm(Step):
    """Its identity is written as soon as it is known. A VMM of which none was written is found by its place."""

    name = "start vmm"

    def __init__(self, rows: Rows, backends: Backends, layouts: Layouts) -> None:
        self._rows = rows
        self._backends = backends
        self._layouts = layouts
        self._handles: dict[str, Handle] = {}

    def describe(self, start: Start) -> dict[str, str]:
        return {"backend": start.vmm.name}

    async def do(self, start: Start) -> None:
        place = self._layouts.of(start.vm.id).place
        start.handle = await start.vmm.start(start.machine, place, start.lease.tap_descriptor)
        self._handles[start.vm.id] = start.handle
        start.vm = self._rows.update(start.vm, runtime=compose_runtime(start.handle, start.lease))

    async def undo(self, vm: VmRecord, what: dict[str, str]) -> None:
        vmm = self._backends.by_name(what["backend"])
        handle = self._handles.get(vm.id) or find_handle(vm)  # the row may not have taken it
        if handle is not None:
            await vmm.kill(handle)
        else:
            await vmm.evict(self._layouts.of(vm.id).place)
        self._handles.pop(vm.id, None)

    async def adopt(self, vm: VmRecord) -> None:
        if (handle := find_handle(vm)) is not None:
            self._handles[vm.id] = handle

    def is_known(self, vm_id: str) -> bool:
        """Whether it may run, as far as this process knows."""
        return vm_id in self._handles

    def is_held(self, vm_id: str) -> bool:
        """Whether it may run, as far as is written down."""
        vm = self._rows.find(vm_id)
        return vm is not None and any(hold.step == self.name for hold in vm.holds)

    def find_runtime(self, vm_id: str) -> VmRuntime | None:
        """Of a VMM that may run."""
        vm = self._rows.find(vm_id)
        return vm.runtime if vm is not None and self.is_held(vm_id) else None

    def forget(self, vm_id: str) -> None:
        """It has ended in another way than by `undo`. Where that cannot be written, `undo` comes after it, and finds
        nothing."""
        self._handles.pop(vm_id, None)
        vm = self._rows.find(vm_id)
        with suppress(Problem):
            if vm is not None:
                holds = tuple(hold for hold in vm.holds if hold.step != self.name)
                self._rows.update(vm, runtime=None, holds=holds)


def compose_runtime(handle: Handle, lease: Lease) -> VmRuntime:
    return VmRuntime(
        **msgspec.structs.asdict(handle),
        network_mode=lease.mode,
        tap=lease.tap,
        address=lease.address,
        ssh_port=lease.ssh_port,
        host_boot=host_boot_id(),
        started_at=utc_now(),
    )


def find_handle(vm: VmRecord) -> Handle | None:
    """Of the VMM that the row names, unless the host has booted since: its pid is somebody else's then."""
    runtime = vm.runtime
    if runtime is None or runtime.host_boot not in {"", host_boot_id()}:
        return None
    return Handle(**{name: getattr(runtime, name) for name in Handle.__struct_fields__})


def compose_wish(vm: VmRecord) -> Wish:
    return Wish(
        vm_id=vm.id,
        name=vm.name,
        nat=vm.spec.nat,
        publish=vm.spec.publish,
        address=vm.address,
        ssh_port=vm.ssh_port,
    )
