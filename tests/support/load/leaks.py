"""What the host and the disk have that no VM accounts for, and what a VM says that the host does not have. Reads only."""

from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rdatatype
from tests.support.load.link import AGENT
from tests.support.load.world import JAILED, POOL, World

from banger.api.system import OperationList
from banger.api.vm import VmList, VmShow
from banger.base.problem import Code, Problem
from banger.client.typed import Client
from banger.model.operation import OperationState
from banger.model.vm import NetworkMode, VmRecord, VmState

_SETTLED = frozenset({VmState.CREATED, VmState.RUNNING, VmState.STOPPED, VmState.ERROR})
_DNS_S = 2.0


def list_vms(client: Client) -> list[VmRecord]:
    """One whose removal ends between the two questions is none."""
    found = []
    for vm in client.call(VmList(all=True)).vms:
        try:
            found.append(client.call(VmShow(vm=vm.id)).vm)
        except Problem as problem:
            if problem.code is not Code.NOT_FOUND:
                raise
    return found


def find_leaks(world: World, client: Client) -> list[str]:
    """Empty when rows, host and files agree, and no operation is left that nobody works on."""
    vms = list_vms(client)
    host = world.describe_host()
    running = [vm for vm in vms if vm.state is VmState.RUNNING and vm.runtime is not None]
    found = [f"{vm.name} is {vm.state.value}" for vm in vms if vm.state not in _SETTLED]
    found += [f"{vm.name} has no runtime" for vm in vms if vm.state is VmState.RUNNING and vm.runtime is None]
    found += [
        f"{vm.name} is {vm.state.value} and holds {[hold.step for hold in vm.holds]}"
        for vm in vms
        if getattr(vm, "holds", ()) and vm.state is not VmState.RUNNING
    ]
    found += _compare_processes(running, host)
    if world.kind == JAILED:
        found += _compare_network(running, host)
        found += _compare("jails", {vm.id: vm.runtime.pid for vm in running if vm.runtime}, host["jails"])
        found += _compare("snapshots", dict.fromkeys((vm.id for vm in running), True), host["snapshots"])
        found += _compare_names(vms, running, host)
    else:
        found += _compare_forwards(running, host)
    found += _find_files(world, vms, running)
    operations = client.call(OperationList()).operations
    found += [
        f"operation {operation.kind} is still running"
        for operation in operations
        if operation.state is OperationState.RUNNING
    ]
    return found


def _compare(what: str, expected: Any, found: Any) -> list[str]:
    return [] if expected == found else [f"{what}: {found} instead of {expected}"]


def _compare_processes(running: list[VmRecord], host: dict[str, Any]) -> list[str]:
    expected = {(vm.runtime.pid, vm.runtime.start_time, vm.runtime.boot_id) for vm in running if vm.runtime}
    found = {(vmm["pid"], vmm["start_time"], vmm["boot_id"]) for vmm in host["vmms"]}
    return _compare("VMMs", expected, found)


def _compare_network(running: list[VmRecord], host: dict[str, Any]) -> list[str]:
    guests = {vm.runtime.address: vm.runtime.tap for vm in running if vm.runtime and vm.runtime.tap}
    spare = {name: up for name, up in host["taps"].items() if name not in guests.values()}
    published = sorted(
        f"{port.host_address}:{port.host_port}/{port.protocol} {vm.runtime.address}:{port.guest_port}"
        for vm in running
        for port in vm.spec.publish
        if vm.runtime
    )
    found = _compare("guests", guests, host["guests"])
    found += _compare("published ports", published, host["published"])
    nat = sorted(vm.runtime.address for vm in running if vm.runtime and vm.spec.nat)
    found += _compare("guests with NAT", nat, host["nat"])
    found += [f"tap of a guest is missing: {name}" for name in guests.values() if name not in host["taps"]]
    if len(spare) > POOL or any(spare.values()):
        found.append(f"taps that nobody has: {spare}")
    return found


def _compare_names(vms: list[VmRecord], running: list[VmRecord], host: dict[str, Any]) -> list[str]:
    if host["zone"] != "vm" or host["name_server"] is None:
        return [f"names are not served: {host['zone']!r}, {host['name_server']}"]
    addresses = {vm.id: vm.runtime.address for vm in running if vm.runtime}
    return [
        problem
        for vm in vms
        for problem in _compare(
            f"name of {vm.name}", [addresses[vm.id]] if vm.id in addresses else [], resolve(host, vm.name)
        )
    ]


def resolve(host: dict[str, Any], name: str) -> list[str]:
    """The addresses of a VM's name, as the daemon's name server says."""
    address, port = host["name_server"]
    question = dns.message.make_query(f"{name}.vm.", dns.rdatatype.A)
    try:
        answer = dns.query.udp(question, address, port=port, timeout=_DNS_S)
    except dns.exception.Timeout:
        return ["no answer"]
    return [item.address for section in answer.answer for item in section]


def _compare_forwards(running: list[VmRecord], host: dict[str, Any]) -> list[str]:
    forwards = {vmm["pid"]: sorted(vmm["forwards"]) for vmm in host["vmms"]}
    expected = {}
    for vm in running:
        assert vm.runtime is not None
        assert vm.runtime.network_mode is NetworkMode.USER
        ssh = f"{vm.runtime.address}:{vm.runtime.ssh_port}:22:tcp"
        published = (
            f"{port.host_address}:{port.host_port}:{port.guest_port}:{port.protocol}"
            for port in vm.spec.publish
        )
        expected[vm.runtime.pid] = sorted((ssh, *published))
    return _compare("forwarded ports", expected, forwards)


def _find_files(world: World, vms: list[VmRecord], running: list[VmRecord]) -> list[str]:
    state, runtime = world.vm_directories
    ids, running_ids = {vm.id for vm in vms}, {vm.id for vm in running}
    found = [str(path) for parent in (state, runtime) for path in parent.glob("*") if path.name not in ids]
    found += [f"{vm.name} has no directory" for vm in vms if not (state / vm.id).is_dir()]
    found += [str(path) for path in state.glob("*/.*.tmp")]
    found += [str(path) for path in runtime.glob(f"*/{AGENT}") if path.parent.name not in running_ids]
    return found


def read_bugs(world: World) -> list[str]:
    """Lines of the daemon's log that speak of a bug."""
    return [line[:2000] for line in world.read_log().splitlines() if "raceback" in line or "by a bug" in line]
