"""The daemon's own service for the bridge, as an ordinary user, with guests that come and go and never boot.

`churn.py SOCKET COUNT`. Each guest has a tap, NAT, a published port and a name. Prints `open`, `lease N` for each,
`idle`; waits for a line on stdin after `open` and after `idle`. What is refused is tried again: the helper may be dead.
"""

import asyncio
import sys
from ipaddress import IPv4Interface
from pathlib import Path

from banger.base.problem import Problem
from banger.base.tasks import Supervisor
from banger.model.machine import PortForward
from banger.model.network import DEFAULT_BRIDGE, DEFAULT_CIDR
from banger.network.bridge import BridgePlan
from banger.privileged.client import HelperClient
from banger.services.hostnet.bridge import Allowances, BridgeNetwork
from banger.services.hostnet.contract import Wish

AT_ONCE = 8
POOL = 4


def say(line: str) -> None:
    print(line, flush=True)


async def come_and_go(network: BridgeNetwork, number: int) -> None:
    wish = Wish(
        vm_id=f"vm{number}",
        name=f"vm{number}",
        nat=number % 2 == 0,
        publish=(
            PortForward(protocol="tcp", host_address="127.0.0.1", host_port=20000 + number, guest_port=80),
        ),
        address=f"10.209.0.{2 + number % 250}",
    )
    async with network.lease(wish):
        await network.set_nat(wish.vm_id, not wish.nat)
        say(f"lease {number}")


async def insist(network: BridgeNetwork, numbers: "asyncio.Queue[int]") -> None:
    while not numbers.empty():
        number = numbers.get_nowait()
        while True:
            try:
                await come_and_go(network, number)
            except Problem as problem:
                say(f"refused {number}: {problem.brief}")
                await asyncio.sleep(0.05)
            else:
                break


async def wait_line() -> None:
    assert await asyncio.to_thread(sys.stdin.readline), "nobody is there any more"


async def main() -> None:
    socket, count = sys.argv[1:]
    numbers: asyncio.Queue[int] = asyncio.Queue()
    for number in range(int(count)):
        numbers.put_nowait(number)
    async with Supervisor() as tasks:
        plan = BridgePlan(DEFAULT_BRIDGE, IPv4Interface(DEFAULT_CIDR))
        privileged = HelperClient(Path(socket))
        network = BridgeNetwork(privileged, plan, Allowances(), pool_target=POOL, tasks=tasks)
        await network.open()
        say("open")
        await wait_line()
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(insist(network, numbers))
        say("idle")
        await wait_line()
        await network.close()


asyncio.run(main())
