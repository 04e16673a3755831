"""A fake root whose calls can be held up, names that are plain data, and the bridge on both."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from banger.base.problem import Code, Outcome, Problem
from banger.base.tasks import Supervisor
from banger.model.network import parse_bridge_cidr
from banger.model.ports import parse_publish
from banger.model.vm import NetworkMode, VmRuntime
from banger.network.bridge import BridgePlan
from banger.privileged.calls import close_all
from banger.privileged.contract.network import DeleteTaps
from banger.privileged.fake import FakePrivileged
from banger.services.hostnet.bridge import Allowances, BridgeNetwork
from banger.services.hostnet.contract import Wish

DEFAULT = Allowances()
PLAN = BridgePlan("br-banger", parse_bridge_cidr("10.209.0.1/24"))
_RANDOM = random.SystemRandom()  # the other's seed is the same in each process
IN_BACKGROUND = ("create_taps", "delete_taps")
REFUSED = Problem(Code.UNAVAILABLE, "not today", hint="try tomorrow", outcome=Outcome.NOT_STARTED)
LOST = Problem(Code.NOT_FOUND, "there is no bridge br-banger", outcome=Outcome.NOT_STARTED)
UNKNOWN = Problem(Code.UNAVAILABLE, "the helper is gone", outcome=Outcome.UNKNOWN)


def list_open():
    """What this process has open; a socket has a name of its own, whatever its number."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return found


async def settle():
    """Until everything that can go on without waiting has."""
    for _ in range(50):
        await asyncio.sleep(0)


class SlowRoot(FakePrivileged):
    """Calls of a method in `before` wait before they are done, those in `after` with their answer."""

    def __init__(self):
        super().__init__()
        self.begun = []
        self.before = {}
        self.after = {}

    async def call(self, request, descriptors=()):
        self.begun.append(request.method)
        if gate := self.before.get(request.method):
            await gate.wait()
        reply = await super().call(request, descriptors)
        if gate := self.after.get(request.method):
            try:
                await gate.wait()
            except asyncio.CancelledError:
                close_all(reply.descriptors)
                raise
        return reply

    def list_methods(self):
        return [request.method for request in self.calls]

    def count(self, method):
        return self.list_methods().count(method)

    def forget(self):
        self.calls.clear()
        self.begun.clear()

    @property
    def up(self):
        return sorted(name for name, tap in self.taps.items() if tap.up)


class FakeNames:
    """What `NameServer` is told, and whether its sockets were closed."""

    def __init__(self, udp, tcp, *, zone, server):
        self.sockets = [socket.socket(fileno=udp), socket.socket(fileno=tcp)]
        self.zone = zone
        self.server = server
        self.addresses = {}
        self.forwarding = set()
        self.is_open = True

    def register(self, name, address):
        self.addresses[name] = address

    def unregister(self, name):
        self.forwarding.discard(self.addresses.pop(name, None))

    def set_forwarding(self, address, allowed):
        (self.forwarding.add if allowed else self.forwarding.discard)(address)

    async def close(self):
        self.is_open = False
        for owned in self.sockets:
            owned.close()


def make_bridge(root, tasks, *, pool_target=2, plan=PLAN, allowances=DEFAULT):
    return BridgeNetwork(root, plan, allowances, pool_target=pool_target, tasks=tasks)


@asynccontextmanager
async def open_bridge(root, **options) -> AsyncIterator[BridgeNetwork]:
    """Open, with its taps made and everything until now forgotten."""
    async with Supervisor() as tasks:
        bridge = make_bridge(root, tasks, **options)
        await bridge.open()
        await settle()
        root.forget()
        yield bridge
        await bridge.close()


def make_wish(number=1, *, nat=False, publish=()):
    return Wish(
        vm_id=f"{number:012x}",
        name=f"vm{number}",
        nat=nat,
        publish=tuple(map(parse_publish, publish)),
        address=f"10.209.0.{number + 1}",
    )


def free_ports(count, suffix=":80"):
    """So many ports that are free, as they are published. Not of those that the kernel gives to whoever asks for any:
    tests run beside one another."""
    found = []
    while len(found) < count:
        publish = f"{_RANDOM.randrange(20_000, 32_000)}{suffix}"
        if publish not in found and is_free(publish):
            found.append(publish)
    return found


def is_free(publish):
    port = parse_publish(publish)
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind((port.host_address, port.host_port))
        except OSError:
            return False
    return True


def foreground(root):
    return [method for method in root.list_methods() if method not in IN_BACKGROUND]


def assert_nothing_is_left(root, bridge, wish):
    """Of the guest: on the host, in the names, of its ports."""
    assert root.guests == {}
    assert root.published == {}
    assert root.up == []
    assert bridge.names.addresses == {}
    assert bridge.names.forwarding == set()
    assert all(is_free(f"{port.host_port}:80/{port.protocol}") for port in wish.publish)


def make_runtime(number, tap):
    return VmRuntime(
        backend="fake", pid=number, start_time=number, agent_socket="", control_socket="", accelerator="",
        network_mode=NetworkMode.BRIDGE, tap=tap, address=f"10.209.0.{number + 1}", ssh_port=22,
    )  # fmt: skip


def render(root):
    """The published ports of the host as the guests' addresses by port."""
    return {f"{number}/{protocol}": to[0] for (protocol, _, number), to in root.published.items()}


def lose_tables(root):
    """As `nft flush ruleset` does."""
    root.policy = None
    root.guests.clear()
    root.published.clear()


async def lose_bridge(root):
    """As `ip link del` does: what was on it is on nothing."""
    await root.call(DeleteTaps(taps=tuple(root.taps)))
    lose_tables(root)
    root.bridge = root.address = root.zone = ""
