"""What can be changed of a VM that exists: specification, labels, time to live, published ports. The caller holds the
VM's lock.

Owns no state. What is made on the host is in the row before, what is taken back is in the row until after: whoever
takes over the VM makes the host's part as the row says.
"""

from collections.abc import Iterable

import msgspec

from banger.api.vm import VmSet
from banger.base.problem import Problem, bad_request, conflict, not_found
from banger.base.units import render_size
from banger.model.machine import PortForward
from banger.model.moment import Moment, Ttl
from banger.model.names import validate_labels
from banger.model.ports import check_together, find_rival, render_publish, render_short
from banger.model.vm import LIVE, NetworkMode, Origin, VmRecord, VmSpec, require_running, validate_spec
from banger.network.ports import check_port
from banger.network.user import check_forward
from banger.services.hostnet.service import HostNetwork
from banger.services.vms.live import LiveVms

_SIZES = ("vcpus", "memory_mib", "disk_size_bytes")


def settle_spec(vm: VmRecord, request: VmSet) -> VmSpec:
    """The specification as it will be. Raises `conflict` for sizes of a VM that runs, `bad_request` for wrong ones."""
    asked = {name: value for name in _SIZES if (value := getattr(request, name)) is not None}
    if asked and vm.state in LIVE:
        raise conflict(
            f"{vm.name} is {vm.state.value}: its sizes change while it is stopped",
            hint=f"banger vm stop {vm.name}",
        )
    origins = {**vm.spec.origins, **dict.fromkeys(asked, Origin.FLAG)}
    nat = vm.spec.nat if request.nat is None else request.nat
    spec = validate_spec(msgspec.structs.replace(vm.spec, **asked, origins=origins, nat=nat))
    if spec.disk_size_bytes < vm.spec.disk_size_bytes:
        raise bad_request(
            f"the work disk of {vm.name} cannot shrink to {render_size(spec.disk_size_bytes)}",
            hint=f"--disk-size takes {render_size(vm.spec.disk_size_bytes)} or more",
        )
    return spec


def require_change(request: VmSet) -> None:
    """Raises `bad_request` for a call that asks for nothing."""
    if request == VmSet(vm=request.vm):
        raise bad_request("there is nothing to change", hint="banger vm set --help")


def settle_labels(vm: VmRecord, request: VmSet) -> dict[str, str]:
    """Raises `not_found` for a label to take away that there is not."""
    for key in request.unlabel:
        if key not in vm.labels:
            raise not_found(f"{vm.name} has no label {key!r}", hint=f"banger vm show {vm.name}")
    kept = {key: value for key, value in vm.labels.items() if key not in request.unlabel}
    return validate_labels({**kept, **request.labels})


def settle_ttl(vm: VmRecord, request: VmSet, now: Moment) -> Ttl | None:
    if request.no_ttl and request.ttl_s is not None:
        raise bad_request("--ttl and --no-ttl contradict each other", hint="leave one of them out")
    if request.no_ttl:
        return None
    return vm.ttl if request.ttl_s is None else Ttl(seconds=request.ttl_s, since=now)


def settle_publish(vm: VmRecord, port: PortForward) -> VmSpec:
    """The specification with the port. Raises `not_running`, and `conflict` for what does not go together."""
    require_running(vm)
    if port in vm.spec.publish:
        return vm.spec
    try:
        check_together((*vm.spec.publish, port))
    except Problem as problem:
        in_the_way = find_rival(port, vm.spec.publish) or vm.spec.publish[0]
        raise conflict(
            problem.brief, hint=f"banger vm unpublish {vm.name} {render_short(in_the_way)}"
        ) from problem
    return msgspec.structs.replace(vm.spec, publish=(*vm.spec.publish, port))


def refuse_taken(ports: Iterable[PortForward], others: Iterable[VmRecord]) -> None:
    """Raises `conflict` for a port that one of these VMs has on the host now. Nothing here knows who else has one."""
    live = [other for other in others if other.state in LIVE]
    for port in ports:
        for other in live:
            if (rival := find_rival(port, other.spec.publish)) is not None:
                raise conflict(
                    f"port {port.host_address}:{port.host_port}/{port.protocol} of the host is published by "
                    f"{other.name}",
                    hint=f"banger vm unpublish {other.name} {render_short(rival)}",
                )


async def publish(vm: VmRecord, port: PortForward, networks: HostNetwork, live: LiveVms) -> None:
    """Raises `conflict` when the port is taken."""
    assert vm.runtime is not None
    if vm.runtime.network_mode is NetworkMode.BRIDGE:
        await networks.publish(vm, (port,))
    else:
        forwarding, handle = live.get_forwarding(vm)
        check_forward(port, nat=vm.spec.nat)
        check_port(port)  # says more than a VMM does
        await forwarding.add_forward(handle, port)


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
