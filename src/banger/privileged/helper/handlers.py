"""One method for each request of the contract, and what is taken away when nobody asks any more.

Synchronous, one request at a time. Raises Refusal and nothing else for what can go wrong on a host: an error of the
kernel's is translated here at the latest.
"""

import errno
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from banger.privileged.contract import machines, network, processes
from banger.privileged.contract.base import VERSION, Done, Reply, Request
from banger.privileged.contract.machines import Jail, Jails, Launched, MachineSupport, Snapshots
from banger.privileged.contract.network import Ensured, HostState, Routes, Taps
from banger.privileged.contract.processes import Greeting
from banger.privileged.contract.requests import REQUESTS
from banger.privileged.contract.values import Refusal, parse_bridge_address
from banger.privileged.helper import guests, names, snapshots, tap
from banger.privileged.helper.allowed import verify_subnet
from banger.privileged.helper.bridge import ensure_bridge, get_bridge, remove_all, remove_bridge
from banger.privileged.helper.host import Host, is_our_tap
from banger.privileged.helper.host_state import inspect_host
from banger.privileged.helper.id_maps import map_ids
from banger.privileged.helper.jails import JailKeeper
from banger.privileged.helper.machine_support import inspect_machines
from banger.privileged.helper.ports import verify_sockets
from banger.privileged.helper.processes import signal_vmm
from banger.privileged.helper.refusals import translate
from banger.privileged.helper.routes import list_host_routes

R = TypeVar("R")
_DNS_PORT = 53
_DNS_BACKLOG = 64


class Handlers:
    """Root's side of the contract for one owner, in this network namespace."""

    def __init__(self, owner: int, build: str) -> None:
        self._owner = owner
        self._build = build
        self._host = Host()
        self._jails = JailKeeper()

    def handle(self, request: Request[R], descriptors: Sequence[int]) -> Reply[R]:
        """The descriptors stay the caller's; those of the reply are the caller's, too. Raises Refusal."""
        request.validate()
        try:
            reply: Reply[R] = _METHODS[request.method](self, request, descriptors)
        except OSError as error:
            raise translate(error) from error
        return reply

    def close(self) -> None:
        """Gives back what is held of the kernel's: sockets, and with them the network namespace."""
        self._jails.close()
        self._host.close()

    def end_unsettled(self) -> None:
        """For the start of a helper, before it is asked anything."""
        try:
            self._jails.end_unsettled()
        except OSError as error:
            raise translate(error) from error

    def release_abandoned(self) -> bool:
        """Takes away what no VM uses, for the time when no daemon is there. True when nothing of ours is left."""
        try:
            return self._release_abandoned()
        except OSError as error:
            raise translate(error) from error

    def _release_abandoned(self) -> bool:
        """One that cannot be removed, as its VMM may see to, is no obstacle to the rest; it is told at the end."""
        failures = []
        for release in (self._jails.remove_abandoned, snapshots.detach_abandoned):
            try:
                release()
            except (Refusal, OSError) as error:
                failures.append(error)
        nothing_left = self._release_network()
        if failures:
            raise failures[0]
        return nothing_left and not self._jails.list() and not snapshots.list_snapshots()

    def _release_network(self) -> bool:
        links = self._host.netlink.list_links()
        taps = {link.name for link in links if is_our_tap(link)}
        if taps:
            guests.release_gone(self._host, taps)
            return False
        remove_all(self._host, links)
        return True

    # In the order of the contract

    def _hello(self, _: processes.Hello, __: Sequence[int]) -> Reply[Greeting]:
        return Reply(Greeting(version=VERSION, build=self._build, pid=os.getpid(), owner=self._owner))

    def _list_routes(self, _: network.ListRoutes, __: Sequence[int]) -> Reply[Routes]:
        return Reply(Routes(routes=list_host_routes(self._host)))

    def _inspect_host(self, _: network.InspectHost, __: Sequence[int]) -> Reply[HostState]:
        return Reply(inspect_host(self._host))

    def _ensure_bridge(self, request: network.EnsureBridge, _: Sequence[int]) -> Reply[Ensured]:
        verify_subnet(request.address)
        tap.verify_tun()
        fresh = ensure_bridge(self._host, request.bridge, parse_bridge_address(request.address))
        return Reply(Ensured(fresh=fresh))

    def _remove_bridge(self, request: network.RemoveBridge, _: Sequence[int]) -> Reply[Done]:
        remove_bridge(self._host, request.bridge)
        return Reply(Done())

    def _create_taps(self, request: network.CreateTaps, _: Sequence[int]) -> Reply[Taps]:
        return Reply(*tap.create_taps(self._host, get_bridge(self._host, request.bridge), request.count))

    def _delete_taps(self, request: network.DeleteTaps, _: Sequence[int]) -> Reply[Done]:
        tap.delete_taps(self._host, request.taps)
        return Reply(Done())

    def _list_taps(self, request: network.ListTaps, _: Sequence[int]) -> Reply[Taps]:
        return Reply(tap.list_taps(self._host, self._host.netlink.find_link(request.bridge)))

    def _apply_guests(self, request: network.ApplyGuests, _: Sequence[int]) -> Reply[Done]:
        bridge = get_bridge(self._host, request.bridge)
        guests.apply_guests(self._host, bridge, request.policy, request.guests)
        return Reply(Done())

    def _admit_guest(self, request: network.AdmitGuest, _: Sequence[int]) -> Reply[Done]:
        guests.admit_guest(self._host, get_bridge(self._host, request.bridge), request.guest)
        return Reply(Done())

    def _release_guest(self, request: network.ReleaseGuest, _: Sequence[int]) -> Reply[Done]:
        guests.release_guest(self._host, request.guest)
        return Reply(Done())

    def _publish_ports(self, request: network.PublishPorts, descriptors: Sequence[int]) -> Reply[Done]:
        bridge = get_bridge(self._host, request.bridge)
        verify_sockets(self._host, request.ports, descriptors)
        guests.publish_ports(self._host, bridge, request.guest_address, request.ports)
        return Reply(Done())

    def _unpublish_ports(self, request: network.UnpublishPorts, _: Sequence[int]) -> Reply[Done]:
        guests.unpublish_ports(self._host, request.guest_address, request.ports)
        return Reply(Done())

    def _open_dns(self, request: network.OpenDns, _: Sequence[int]) -> Reply[Done]:
        address = str(get_bridge(self._host, request.bridge).interface.ip)
        try:
            return Reply(Done(), _open_dns_sockets(address))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Refusal(
                    "conflict",
                    f"port {_DNS_PORT} of {address} is taken by another name server",
                    f"sudo ss -lntup 'sport = :{_DNS_PORT}'",
                ) from error
            raise

    def _route_names(self, request: network.RouteNames, _: Sequence[int]) -> Reply[Done]:
        names.route_names(request.bridge, get_bridge(self._host, request.bridge).interface, request.zone)
        return Reply(Done())

    def _unroute_names(self, request: network.UnrouteNames, _: Sequence[int]) -> Reply[Done]:
        names.unroute_names(request.bridge)
        return Reply(Done())

    def _signal_vmm(self, request: processes.SignalVmm, _: Sequence[int]) -> Reply[Done]:
        signal_vmm(request.pid, request.start_time, request.signal, self._owner)
        return Reply(Done())

    def _map_ids(self, request: processes.MapIds, _: Sequence[int]) -> Reply[Done]:
        map_ids(request.pid, request.start_time, self._owner)
        return Reply(Done())

    def _inspect_machines(self, _: machines.InspectMachines, __: Sequence[int]) -> Reply[MachineSupport]:
        return Reply(inspect_machines())

    def _attach_snapshot(self, request: machines.AttachSnapshot, descriptors: Sequence[int]) -> Reply[Done]:
        base, changes = descriptors
        snapshots.attach_snapshot(request.vm, request.size_bytes, base, changes, owner=self._owner)
        return Reply(Done())

    def _detach_snapshot(self, request: machines.DetachSnapshot, _: Sequence[int]) -> Reply[Done]:
        self._jails.reap()  # a dead VMM's disk is held until then
        snapshots.detach_snapshot(request.vm)
        return Reply(Done())

    def _list_snapshots(self, _: machines.ListSnapshots, __: Sequence[int]) -> Reply[Snapshots]:
        return Reply(Snapshots(snapshots=snapshots.list_snapshots()))

    def _launch_vmm(self, request: machines.LaunchVmm, descriptors: Sequence[int]) -> Reply[Launched]:
        return Reply(*self._jails.launch(request, descriptors, owner=self._owner))

    def _settle_vmm(self, request: machines.SettleVmm, _: Sequence[int]) -> Reply[Done]:
        return Reply(Done(), self._jails.settle(request.vm, request.tap))

    def _enter_jail(self, request: machines.EnterJail, _: Sequence[int]) -> Reply[Jail]:
        return Reply(*self._jails.enter(request.vm))

    def _remove_jail(self, request: machines.RemoveJail, _: Sequence[int]) -> Reply[Done]:
        self._jails.remove(request.vm)
        return Reply(Done())

    def _list_jails(self, _: machines.ListJails, __: Sequence[int]) -> Reply[Jails]:
        return Reply(Jails(jails=self._jails.list()))


_METHODS: dict[str, Callable[[Handlers, Any, Sequence[int]], Reply[Any]]] = {
    method: getattr(Handlers, f"_{method}") for method in REQUESTS
}


def _open_dns_sockets(address: str) -> tuple[int, int]:
    with ExitStack() as undo:
        udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind((address, _DNS_PORT))
        tcp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger are no obstacle
        tcp.bind((address, _DNS_PORT))
        tcp.listen(_DNS_BACKLOG)
        undo.pop_all()
        return udp.detach(), tcp.detach()
