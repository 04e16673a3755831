"""Root without root, for tests of what stands above it: a bridge, taps and tables that are plain data.

Owns a host of its own. A tap's descriptor is one end of a socket pair, so that leaks can be counted: when the last
copy of it is closed the tap is gone, as in the kernel, and when the tap is deleted a poll of it says so. Refuses what
the helper refuses; passes the contract suite that the helper passes.
"""

import os
import select
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, TypeVar

from banger.base.problem import Problem
from banger.privileged.calls import guard_call
from banger.privileged.contract import machines, network, processes
from banger.privileged.contract.base import VERSION, Done, Reply, Request
from banger.privileged.contract.machines import Jail, Jails, Launched, MachineSupport, Snapshots
from banger.privileged.contract.network import (
    Ensured,
    ForwardDrop,
    HostState,
    Route,
    Routes,
    Tap,
    Taps,
    subnet_of,
)
from banger.privileged.contract.processes import Greeting
from banger.privileged.contract.values import (
    TAP_PREFIX,
    Guest,
    Policy,
    PublishedPort,
    Refusal,
    parse_address,
    parse_bridge_address,
    parse_network,
    refuse,
)
from banger.privileged.fake_jails import FakeJails
from banger.privileged.fake_snapshots import FakeSnapshots
from banger.privileged.helper.refusals import (
    bridge_missing,
    forwarding_off,
    ids_missing,
    namespace_mapped,
    nft_missing,
    process_gone,
    process_mistaken,
    tables_missing,
    tap_missing,
)
from banger.privileged.helper.routes import DEFAULT_PREFIX_MAX

R = TypeVar("R")

_DONE: Reply[Any] = Reply(Done())
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@dataclass
class FakeTap:
    """`kernel` is the other end of what the holder has."""

    kernel: socket.socket
    up: bool = False


class FakePrivileged:
    """`Privileged` on an invented host. Its public attributes are the host's state, for tests to set and to look at."""

    kind = "fake"

    def __init__(self) -> None:
        self.calls: list[Request[Any]] = []
        self.missing: dict[str, Problem] = {}
        self.routes: list[Route] = [Route(destination="0.0.0.0/0", device="eth0", gateway="192.0.2.1")]
        self.ip_forward = True
        self.nft = "1.0.6"
        self.resolved = True
        self.drops: tuple[ForwardDrop, ...] = ()
        self.processes: dict[int, int] = {}  # those that may be signalled: start time by pid
        self.signals: list[tuple[int, int]] = []
        self.unmapped: set[int] = set()  # processes in user namespaces of their own
        self.has_subordinate_ids = True
        self.bridge = ""
        self.address = ""
        self.taps: dict[str, FakeTap] = {}
        self.guests: dict[str, Guest] = {}
        self.policy: Policy | None = None
        self.published: dict[tuple[str, str, int], tuple[str, int]] = {}
        self.zone = ""
        self.machines = MachineSupport(
            snapshot_reason="",
            snapshot_hint="",
            jail_reason="",
            jail_hint="",
            firecracker="/usr/local/lib/banger/firecracker/1.12.1/firecracker",
            firecracker_version="1.12.1",
        )
        self.snapshots = FakeSnapshots()
        self.jails = FakeJails()
        self._next: dict[str, list[Problem]] = {}
        self._taps_made = 0

    def fail_next(self, method: str, problem: Problem) -> None:
        """One call of the method fails, with nothing done. `missing` does it until it is taken out again."""
        self._next.setdefault(method, []).append(problem)

    async def call(self, request: Request[R], descriptors: Sequence[int] = ()) -> Reply[R]:
        with guard_call(self.kind, request, descriptors):
            self.calls.append(request)
            if request.method in self.missing:
                raise self.missing[request.method]
            if waiting := self._next.get(request.method):
                raise waiting.pop(0)
            self._drop_closed()
            reply: Reply[R] = getattr(self, f"_{request.method}")(request, descriptors)
            return reply

    async def close(self) -> None:
        """Taps that somebody still holds live on."""
        self._drop_closed()

    def _drop_closed(self) -> None:
        for name in [name for name, tap in self.taps.items() if _is_hung_up(tap.kernel)]:
            self._delete(name)

    def _delete(self, name: str) -> None:
        if tap := self.taps.pop(name, None):
            tap.kernel.close()

    def _get_bridge(self, name: str) -> None:
        if name != self.bridge:
            raise bridge_missing(name)

    def _get_tables(self) -> None:
        """`policy` is None until guests are applied, and again when a test flushes the ruleset."""
        if self.policy is None:
            raise tables_missing()

    # One method for each request

    def _hello(self, _: processes.Hello, __: Sequence[int]) -> Reply[Greeting]:
        return Reply(Greeting(version=VERSION, build=self.kind, pid=os.getpid(), owner=os.getuid()))

    def _list_routes(self, _: network.ListRoutes, __: Sequence[int]) -> Reply[Routes]:
        return Reply(Routes(routes=tuple(self.routes)))

    def _inspect_host(self, _: network.InspectHost, __: Sequence[int]) -> Reply[HostState]:
        return Reply(
            HostState(ip_forward=self.ip_forward, nft=self.nft, resolved=self.resolved, drops=self.drops)
        )

    def _ensure_bridge(self, request: network.EnsureBridge, _: Sequence[int]) -> Reply[Ensured]:
        if not self.nft:
            raise nft_missing()
        wanted = (request.bridge, request.address)
        if (self.bridge, self.address) != wanted or not self.taps:
            self._refuse_overlap(subnet_of(request.address))
        fresh = (self.bridge, self.address) != wanted or self.policy is None
        if (self.bridge, self.address) != wanted:
            self._remove_bridge(network.RemoveBridge(bridge=self.bridge), ())
            self.bridge, self.address = wanted
        self.policy = self.policy or Policy()
        return Reply(Ensured(fresh=fresh))

    def _remove_bridge(self, request: network.RemoveBridge, _: Sequence[int]) -> Reply[Done]:
        if request.bridge == self.bridge:
            if self.taps:
                raise Refusal(
                    "conflict",
                    f"{self.bridge} has {len(self.taps)} taps",
                    "banger vm list, then: banger vm stop NAME",
                )
            self.bridge = self.address = self.zone = ""
            self.guests.clear()
            self.published.clear()
            self.policy = None
        return _DONE

    def _create_taps(self, request: network.CreateTaps, _: Sequence[int]) -> Reply[Taps]:
        self._get_bridge(request.bridge)
        names, held = [], []
        for _tap in range(request.count):
            self._taps_made += 1
            name = f"{TAP_PREFIX}{self._taps_made:08x}"
            kernel, holder = socket.socketpair()
            self.taps[name] = FakeTap(kernel)
            names.append(name)
            held.append(holder.detach())
        return Reply(Taps(taps=tuple(Tap(name=name, up=False) for name in names)), tuple(held))

    def _delete_taps(self, request: network.DeleteTaps, _: Sequence[int]) -> Reply[Done]:
        for name in request.taps:
            self._delete(name)
        return _DONE

    def _list_taps(self, request: network.ListTaps, _: Sequence[int]) -> Reply[Taps]:
        taps = self.taps.items() if request.bridge == self.bridge else ()
        return Reply(Taps(taps=tuple(Tap(name=name, up=tap.up) for name, tap in taps)))

    def _apply_guests(self, request: network.ApplyGuests, _: Sequence[int]) -> Reply[Done]:
        self._get_bridge(request.bridge)
        for guest in request.guests:
            self._verify_guest_address(guest.address)
        self.policy = request.policy
        self.published.clear()
        self.guests = {guest.tap: guest for guest in request.guests}
        return _DONE

    def _admit_guest(self, request: network.AdmitGuest, _: Sequence[int]) -> Reply[Done]:
        self._get_bridge(request.bridge)
        guest = request.guest
        self._verify_guest_address(guest.address)
        if guest.tap not in self.taps:
            raise tap_missing(guest.tap, self.bridge)
        if guest.nat and not self.ip_forward:
            raise forwarding_off()
        self._get_tables()
        self.guests[guest.tap] = guest
        self.taps[guest.tap].up = True
        return _DONE

    def _release_guest(self, request: network.ReleaseGuest, _: Sequence[int]) -> Reply[Done]:
        self.guests.pop(request.guest.tap, None)
        self._withdraw(request.guest.address)
        if tap := self.taps.get(request.guest.tap):
            tap.up = False
        return _DONE

    def _publish_ports(self, request: network.PublishPorts, descriptors: Sequence[int]) -> Reply[Done]:
        self._get_bridge(request.bridge)
        self._verify_guest_address(request.guest_address)
        if len(descriptors) != len(request.ports):
            raise refuse(f"{len(request.ports)} ports come with {len(descriptors)} sockets")
        if not self.ip_forward and any(not _is_loopback(port) for port in request.ports):
            raise forwarding_off()
        wanted = {}
        for port, descriptor in zip(request.ports, descriptors, strict=True):
            _verify_bound(port, descriptor)
            key = (port.protocol, port.host_address, port.host_port)
            wanted[key] = (request.guest_address, port.guest_port)
            self._get_tables()
            if self.published.get(key, wanted[key]) != wanted[key]:
                raise Refusal("conflict", f"port {port.host_port} leads to another guest already")
        self.published |= wanted
        return _DONE

    def _unpublish_ports(self, request: network.UnpublishPorts, _: Sequence[int]) -> Reply[Done]:
        for port in request.ports:
            key = (port.protocol, port.host_address, port.host_port)
            if self.published.get(key) == (request.guest_address, port.guest_port):
                del self.published[key]
        return _DONE

    def _open_dns(self, request: network.OpenDns, _: Sequence[int]) -> Reply[Done]:
        """At a free port of 127.0.0.1."""
        self._get_bridge(request.bridge)
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.bind(tcp.getsockname())
            return Reply(Done(), (udp.detach(), tcp.detach()))

    def _route_names(self, request: network.RouteNames, _: Sequence[int]) -> Reply[Done]:
        self._get_bridge(request.bridge)
        if not self.resolved:
            raise Refusal("unavailable", "this host has no systemd-resolved")
        self.zone = request.zone
        return _DONE

    def _unroute_names(self, request: network.UnrouteNames, _: Sequence[int]) -> Reply[Done]:
        if request.bridge == self.bridge:
            self.zone = ""
        return _DONE

    def _signal_vmm(self, request: processes.SignalVmm, _: Sequence[int]) -> Reply[Done]:
        if (start_time := self.processes.get(request.pid)) is None:
            return _DONE
        if start_time != request.start_time:
            raise process_mistaken(request.pid)
        self.signals.append((request.pid, request.signal))
        return _DONE

    def _map_ids(self, request: processes.MapIds, _: Sequence[int]) -> Reply[Done]:
        if (start_time := self.processes.get(request.pid)) is None:
            raise process_gone(request.pid)
        if start_time != request.start_time:
            raise process_mistaken(request.pid)
        if request.pid not in self.unmapped:
            raise namespace_mapped(request.pid)
        if not self.has_subordinate_ids:
            raise ids_missing("alice", "/etc/subuid")
        self.unmapped.remove(request.pid)
        return _DONE

    def _inspect_machines(self, _: machines.InspectMachines, __: Sequence[int]) -> Reply[MachineSupport]:
        return Reply(self.machines)

    def _attach_snapshot(self, request: machines.AttachSnapshot, descriptors: Sequence[int]) -> Reply[Done]:
        self.snapshots.attach(request, descriptors)
        return _DONE

    def _detach_snapshot(self, request: machines.DetachSnapshot, _: Sequence[int]) -> Reply[Done]:
        self.snapshots.detach(request)
        return _DONE

    def _list_snapshots(self, _: machines.ListSnapshots, __: Sequence[int]) -> Reply[Snapshots]:
        return Reply(self.snapshots.list())

    def _launch_vmm(self, request: machines.LaunchVmm, descriptors: Sequence[int]) -> Reply[Launched]:
        if self.machines.jail_reason:
            raise Refusal("unavailable", self.machines.jail_reason, self.machines.jail_hint)
        has_snapshot = request.vm in self.snapshots.attached
        launched, sockets = self.jails.launch(request, descriptors, has_snapshot=has_snapshot)
        self.processes[launched.pid] = launched.start_time
        return Reply(launched, (sockets,))

    def _settle_vmm(self, request: machines.SettleVmm, _: Sequence[int]) -> Reply[Done]:
        if request.tap and request.tap not in self.taps:
            raise Refusal("not_found", f"the VMM does not hold the tap {request.tap}")
        self.jails.settle(request)
        if not request.tap:
            return _DONE
        tap = self.taps[request.tap]
        tap.kernel.close()  # whoever had the other end has lent it
        tap.kernel, holder = socket.socketpair()
        return Reply(Done(), (holder.detach(),))

    def _enter_jail(self, request: machines.EnterJail, _: Sequence[int]) -> Reply[Jail]:
        jail, sockets = self.jails.enter(request)
        return Reply(jail, (sockets,))

    def _remove_jail(self, request: machines.RemoveJail, _: Sequence[int]) -> Reply[Done]:
        self.jails.remove(request)
        return _DONE

    def _list_jails(self, _: machines.ListJails, __: Sequence[int]) -> Reply[Jails]:
        return Reply(self.jails.list())

    def _refuse_overlap(self, subnet: IPv4Network) -> None:
        for route in self.routes:
            network = parse_network(route.destination)
            if network.prefixlen > DEFAULT_PREFIX_MAX and network.overlaps(subnet):
                raise Refusal(
                    "conflict",
                    f"{subnet} overlaps {network}, which this host reaches by {route.device}",
                    'set bridge_cidr in config.toml, for example bridge_cidr = "10.210.0.1/24"',
                )

    def _withdraw(self, address: str) -> None:
        self.published = {key: to for key, to in self.published.items() if to[0] != address}

    def _verify_guest_address(self, text: str) -> None:
        bridge = parse_bridge_address(self.address)
        address = parse_address(text)
        subnet = bridge.network
        reserved = (bridge.ip, subnet.network_address, subnet.broadcast_address)
        if address not in subnet or address in reserved:
            raise refuse(f"{address} is not a guest's address in {subnet}")


def _is_loopback(port: PublishedPort) -> bool:
    return parse_address(port.host_address).is_loopback


def _is_hung_up(end: socket.socket) -> bool:
    poll = select.poll()
    poll.register(end, select.POLLIN)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def _verify_bound(port: PublishedPort, descriptor: int) -> None:
    if _find_binding(descriptor) != (_KINDS[port.protocol], (port.host_address, port.host_port)):
        place = f"{port.host_address}:{port.host_port}/{port.protocol}"
        raise Refusal("unauthorized", f"port {place} cannot be published: the socket is not bound to it")


def _find_binding(descriptor: int) -> tuple[int, object] | None:
    copy = os.dup(descriptor)
    try:
        bound = socket.socket(fileno=copy)
    except OSError:  # not a socket at all
        os.close(copy)
        return None
    with bound:
        return (bound.type, bound.getsockname()) if bound.family == socket.AF_INET else None
