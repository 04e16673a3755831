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

from banger.privileged.contract import requests
from banger.privileged.contract.requests import (
    REQUESTS,
    VERSION,
    Done,
    Ensured,
    Greeting,
    HostState,
    Reply,
    Request,
    Routes,
    Taps,
)
from banger.privileged.contract.values import Refusal, parse_bridge_address
from banger.privileged.helper import guests, names, tap
from banger.privileged.helper.allowed import verify_subnet
from banger.privileged.helper.bridge import ensure_bridge, get_bridge, remove_all, remove_bridge
from banger.privileged.helper.host import Host, is_our_tap
from banger.privileged.helper.host_state import inspect_host
from banger.privileged.helper.id_maps import map_ids
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
        self._host.close()

    def release_abandoned(self) -> bool:
        """Takes away what no VM uses, for the time when no daemon is there. True when nothing of ours is left."""
        try:
            return self._release_abandoned()
        except OSError as error:
            raise translate(error) from error

    def _release_abandoned(self) -> bool:
        links = self._host.netlink.list_links()
        taps = {link.name for link in links if is_our_tap(link)}
        if taps:
            guests.release_gone(self._host, taps)
            return False
        remove_all(self._host, links)
        return True

    # In the order of the contract

    def _hello(self, _: requests.Hello, __: Sequence[int]) -> Reply[Greeting]:
        return Reply(Greeting(version=VERSION, build=self._build, pid=os.getpid(), owner=self._owner))

    def _list_routes(self, _: requests.ListRoutes, __: Sequence[int]) -> Reply[Routes]:
        return Reply(Routes(routes=list_host_routes(self._host)))

    def _inspect_host(self, _: requests.InspectHost, __: Sequence[int]) -> Reply[HostState]:
        return Reply(inspect_host(self._host))

    def _ensure_bridge(self, request: requests.EnsureBridge, _: Sequence[int]) -> Reply[Ensured]:
        verify_subnet(request.address)
        tap.verify_tun()
        fresh = ensure_bridge(self._host, request.bridge, parse_bridge_address(request.address))
        return Reply(Ensured(fresh=fresh))

    def _remove_bridge(self, request: requests.RemoveBridge, _: Sequence[int]) -> Reply[Done]:
        remove_bridge(self._host, request.bridge)
        return Reply(Done())

    def _create_taps(self, request: requests.CreateTaps, _: Sequence[int]) -> Reply[Taps]:
        return Reply(*tap.create_taps(self._host, get_bridge(self._host, request.bridge), request.count))

    def _delete_taps(self, request: requests.DeleteTaps, _: Sequence[int]) -> Reply[Done]:
        tap.delete_taps(self._host, request.taps)
        return Reply(Done())

    def _list_taps(self, request: requests.ListTaps, _: Sequence[int]) -> Reply[Taps]:
        return Reply(tap.list_taps(self._host, self._host.netlink.find_link(request.bridge)))

    def _apply_guests(self, request: requests.ApplyGuests, _: Sequence[int]) -> Reply[Done]:
        bridge = get_bridge(self._host, request.bridge)
        guests.apply_guests(self._host, bridge, request.policy, request.guests)
        return Reply(Done())

    def _admit_guest(self, request: requests.AdmitGuest, _: Sequence[int]) -> Reply[Done]:
        guests.admit_guest(self._host, get_bridge(self._host, request.bridge), request.guest)
        return Reply(Done())

    def _release_guest(self, request: requests.ReleaseGuest, _: Sequence[int]) -> Reply[Done]:
        guests.release_guest(self._host, request.guest)
        return Reply(Done())

    def _publish_ports(self, request: requests.PublishPorts, descriptors: Sequence[int]) -> Reply[Done]:
        bridge = get_bridge(self._host, request.bridge)
        verify_sockets(self._host, request.ports, descriptors)
        guests.publish_ports(self._host, bridge, request.guest_address, request.ports)
        return Reply(Done())

    def _unpublish_ports(self, request: requests.UnpublishPorts, _: Sequence[int]) -> Reply[Done]:
        guests.unpublish_ports(self._host, request.guest_address, request.ports)
        return Reply(Done())

    def _open_dns(self, request: requests.OpenDns, _: Sequence[int]) -> Reply[Done]:
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

    def _route_names(self, request: requests.RouteNames, _: Sequence[int]) -> Reply[Done]:
        names.route_names(request.bridge, get_bridge(self._host, request.bridge).interface, request.zone)
        return Reply(Done())

    def _unroute_names(self, request: requests.UnrouteNames, _: Sequence[int]) -> Reply[Done]:
        names.unroute_names(request.bridge)
        return Reply(Done())

    def _signal_vmm(self, request: requests.SignalVmm, _: Sequence[int]) -> Reply[Done]:
        signal_vmm(request.pid, request.start_time, request.signal, self._owner)
        return Reply(Done())

    def _map_ids(self, request: requests.MapIds, _: Sequence[int]) -> Reply[Done]:
        map_ids(request.pid, request.start_time, self._owner)
        return Reply(Done())


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
