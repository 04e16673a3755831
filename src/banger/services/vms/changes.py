"""What can be changed of a VM that exists: NAT, published ports, sizes. The caller holds the VM's lock.

Owns no state. The host is changed before the row: a change that was never confirmed is undone by the next rebuild.
"""

import asyncio

import msgspec

from banger.api.vm import VmSet
from banger.base.problem import Problem, bad_request, conflict, not_found
from banger.base.units import render_size
from banger.model.machine import PortForward
from banger.model.ports import check_together, render_publish
from banger.model.vm import LIVE, NetworkMode, Origin, VmRecord, VmSpec, require_running, validate_spec
from banger.network.ports import check_port
from banger.network.user import check_forward
from banger.services.hostnet.service import HostNetwork
from banger.services.vms.layout import Layout
from banger.services.vms.live import LiveVms

_SIZES = ("vcpus", "memory_mib", "disk_size_bytes")


def settle_sizes(vm: VmRecord, request: VmSet) -> VmSpec:
    """The specification as it will be. Raises `conflict` for sizes of a VM that runs, `bad_request` for wrong ones."""
    asked = {name: value for name in _SIZES if (value := getattr(request, name)) is not None}
    if not asked and request.nat is None:
        raise bad_request("there is nothing to change", hint="banger vm set --help")
    if asked and vm.state in LIVE:
        raise conflict(
            f"{vm.name} is {vm.state.value}: its sizes change while it is stopped",
            hint=f"banger vm stop {vm.name}",
        )
    origins = {**vm.spec.origins, **dict.fromkeys(asked, Origin.FLAG)}
    spec = validate_spec(msgspec.structs.replace(vm.spec, **asked, origins=origins))
    if spec.disk_size_bytes < vm.spec.disk_size_bytes:
        raise bad_request(
            f"the work disk of {vm.name} cannot shrink to {render_size(spec.disk_size_bytes)}",
            hint=f"--disk-size takes {render_size(vm.spec.disk_size_bytes)} or more",
        )
    return spec


def select_growth(before: VmSpec, after: VmSpec) -> VmSpec:
    """What asks for more room than before; a size that does not grow asks for none."""
    same = {name: 0 for name in _SIZES if getattr(after, name) <= getattr(before, name)}
    return msgspec.structs.replace(after, **same)


async def grow_work_disk(vm: VmRecord, spec: VmSpec, layout: Layout) -> None:
    """The guest grows the file system at its next boot."""
    if vm.has_work_disk and spec.disk_size_bytes > vm.spec.disk_size_bytes:
        await asyncio.to_thread(_truncate, layout, spec.disk_size_bytes)


def _truncate(layout: Layout, size_bytes: int) -> None:
    with layout.work_disk.open("r+b") as disk:
        disk.truncate(size_bytes)


async def set_nat(vm: VmRecord, nat: bool, networks: HostNetwork) -> None:
    """Of a VM that runs on the bridge, at once. QEMU's user network cannot be changed while it runs."""
    if vm.state not in LIVE or vm.runtime is None or nat == vm.spec.nat:
        return
    if vm.runtime.network_mode is NetworkMode.USER:
        raise conflict(
            f"NAT of {vm.name} cannot be changed while it runs in user mode",
            hint=f"banger vm stop {vm.name}, then set and start it",
        )
    await networks.set_nat(vm, nat)


async def publish(vm: VmRecord, port: PortForward, networks: HostNetwork, live: LiveVms) -> VmSpec:
    """The specification with the port. Raises `not_running`, and `conflict` when the port is taken."""
    require_running(vm)
    if port in vm.spec.publish:
        return vm.spec
    try:
        check_together((*vm.spec.publish, port))
    except Problem as problem:
        raise conflict(problem.brief, hint=f"banger vm unpublish {vm.name} PORT") from problem
    assert vm.runtime is not None
    if vm.runtime.network_mode is NetworkMode.BRIDGE:
        await networks.publish(vm, (port,))
    else:
        forwarding, handle = live.get_forwarding(vm)
        check_forward(port, nat=vm.spec.nat)
        check_port(port)  # says more than a VMM does
        await forwarding.add_forward(handle, port)
    return msgspec.structs.replace(vm.spec, publish=(*vm.spec.publish, port))


async def unpublish(vm: VmRecord, port: PortForward, networks: HostNetwork, live: LiveVms) -> VmSpec:
    """The specification without the port. Raises `not_found` for one that is not published."""
    if port not in vm.spec.publish:
        published = ", ".join(render_publish(each) for each in vm.spec.publish)
        raise not_found(
            f"{render_publish(port)} of {vm.name} is not published",
            hint=f"published: {published}" if published else f"banger vm show {vm.name}",
        )
    if vm.state in LIVE and vm.runtime is not None:
        if vm.runtime.network_mode is NetworkMode.BRIDGE:
            await networks.unpublish(vm, (port,))
        else:
            forwarding, handle = live.get_forwarding(vm)
            await forwarding.remove_forward(handle, port)
    return msgspec.structs.replace(vm.spec, publish=tuple(each for each in vm.spec.publish if each != port))
