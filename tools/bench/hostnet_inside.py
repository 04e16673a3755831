"""The measuring half of `hostnet`: first process of a network, mount and PID namespace of its own.

`python -m tools.bench.hostnet_inside H1 H2 H3` prints the samples, in milliseconds, as JSON. Asserts what noise
does not touch: no process and no thread is begun for a guest, and on its way in and on its way out one call of the
helper is waited for.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from ipaddress import IPv4Interface
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar

from banger.base.process import get_tool
from banger.base.tasks import Supervisor
from banger.model.vm import NetworkMode
from banger.network.bridge import PRIVATE, BridgePlan
from banger.privileged.client import HelperClient
from banger.privileged.contract.base import DESCRIPTORS_MAX, Privileged, Reply, Request
from banger.privileged.contract.network import (
    AdmitGuest,
    ApplyGuests,
    CreateTaps,
    DeleteTaps,
    EnsureBridge,
    ReleaseGuest,
    RemoveBridge,
)
from banger.privileged.contract.values import Guest, Policy
from banger.services.hostnet.bridge import Allowances, BridgeNetwork
from banger.services.hostnet.contract import Wish
from banger.services.hostnet.pool import TapPool
from banger.services.hostnet.service import HostNetwork

R = TypeVar("R")
Samples = dict[str, list[float]]

PRESENT = (20, 500)
ROUNDS = 31
CONCURRENT_ROUNDS = 11
CONCURRENT = 50
ALONE = 5
POOL = 4  # as by default
PLAN = BridgePlan("br-banger", IPv4Interface("10.209.0.1/20"))
_OWNER = 65534
_GROUP = 77
_BACKGROUND = ("refill taps", "delete surplus taps")


def main() -> None:
    wanted = set(sys.argv[1:])
    _furnish()
    with tempfile.TemporaryDirectory(prefix="bb") as work:
        print(json.dumps(asyncio.run(_measure(wanted, Path(work)))))


def _furnish() -> None:
    """A host that forwards. Nothing of the machine's /run is within reach, systemd-resolved least of all."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


async def _measure(wanted: set[str], work: Path) -> dict[str, Samples]:
    measured: dict[str, Samples] = {}
    with _open_helper(work) as path:
        if wanted & {"H1", "H2"}:
            for present in PRESENT:
                privileged, tasks = HelperClient(path), _Background()
                async with tasks:
                    measured[str(present)] = await _OneMore(privileged, tasks, work, present).run()
                await privileged.close()
        if "H3" in wanted:
            tasks = _Background()
            async with tasks:
                measured["concurrent"] = await _Concurrent(HelperClient(path), tasks, work).run()
    return measured


@contextmanager
def _open_helper(work: Path) -> Iterator[Path]:
    """Root's helper for an ordinary user, its log in a file; it says by itself when it serves."""
    path, log = work / "root" / "root.sock", work / "helper.log"
    argv = [sys.executable, "-m", "banger.privileged.helper", "--owner", str(_OWNER), "--socket", str(path)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, log.open("wb") as stderr:
        ready.bind(str(work / "ready"))
        ready.settimeout(20)
        environment = os.environ | {"NOTIFY_SOCKET": str(work / "ready")}
        helper = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=stderr)
        try:
            while b"READY=1" not in ready.recv(4096):
                pass
            yield path
        except BaseException:
            print(log.read_text()[-2000:], file=sys.stderr)
            raise
        finally:
            helper.send_signal(signal.SIGTERM)
            helper.wait(timeout=20)


class _OneMore:
    """A bridge with many guests, and one more that comes and goes by each of the ways."""

    def __init__(self, privileged: Privileged, tasks: "_Background", work: Path, present: int) -> None:
        self._privileged = privileged
        self._tasks = tasks
        self._pool = TapPool(privileged, PLAN.name, POOL, tasks)
        self._script = _Script(work)
        self._guest_number = present

    async def run(self) -> Samples:
        ways = (self._pooled, self._created, self._scripted)
        async with _open_bridge(self._privileged, self._guest_number):
            self._pool.fill()
            try:
                await _take_turns(1, ways)  # warm
                samples = await _take_turns(ROUNDS, ways)
                await self._assert_counts()
            finally:
                await self._pool.close()
        return samples

    async def _assert_counts(self) -> None:
        before = _find_last_pid()
        for _ in range(ROUNDS):
            await self._pooled()
        begun = _find_last_pid() - before
        assert begun == 0, f"{begun} processes or threads were begun for {ROUNDS} guests"

    async def _pooled(self) -> dict[str, float]:
        await self._tasks.wait_idle()
        began = time.perf_counter()
        async with self._pool.lease() as tap:
            leased = time.perf_counter()
            guest = _make_guest(self._guest_number, tap.name)
            await self._privileged.call(AdmitGuest(bridge=PLAN.name, guest=guest))
            admitted = time.perf_counter()
            await self._privileged.call(ReleaseGuest(bridge=PLAN.name, guest=guest))
        await self._tasks.wait_idle()
        return {"lease": _ms(leased - began), "admit": _ms(admitted - leased)}

    async def _created(self) -> dict[str, float]:
        began = time.perf_counter()
        reply = await self._privileged.call(CreateTaps(bridge=PLAN.name, count=1))
        created = time.perf_counter()
        await _delete(self._privileged, [tap.name for tap in reply.result.taps], reply.descriptors)
        return {"create": _ms(created - began)}

    async def _scripted(self) -> dict[str, float]:
        self._script.write(self._guest_number)
        ip_ms, nft_ms = self._script.run(self._guest_number)
        self._script.undo([self._guest_number])
        return {"ip": ip_ms, "nft": nft_ms}


class _Script:
    """What a tutorial runs for a guest, without a shell, and with the elements of our own tables."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._ip, self._nft = get_tool("ip", package="iproute2"), get_tool("nft", package="nftables")

    def write(self, number: int) -> None:
        guest = _make_guest(number, _name_tap(number))
        self._file(number).write_text(
            f"add element bridge banger guests {{ {guest.tap} . {guest.mac} . {guest.address} }}\n"
            f"add element inet banger nat {{ {guest.address} }}\n"
        )

    def run(self, number: int) -> tuple[float, float]:
        """Milliseconds for the tap and for its admission."""
        tap = _name_tap(number)
        began = time.perf_counter()
        _spawn(self._ip, "tuntap", "add", "dev", tap, "mode", "tap")
        _spawn(self._ip, "link", "set", tap, "master", PLAN.name)
        _spawn(self._ip, "link", "set", tap, "up")
        there = time.perf_counter()
        _spawn(self._nft, "-f", str(self._file(number)))
        return _ms(there - began), _ms(time.perf_counter() - there)

    def undo(self, numbers: Iterable[int]) -> None:
        numbers = tuple(numbers)
        links, elements = self._work / "links", self._work / "elements.nft"
        links.write_text("".join(f"link set {_name_tap(number)} group {_GROUP}\n" for number in numbers))
        elements.write_text(
            "".join(self._file(number).read_text() for number in numbers).replace("add", "delete")
        )
        _spawn(self._ip, "-batch", str(links))
        _spawn(self._ip, "link", "delete", "group", str(_GROUP))
        _spawn(self._nft, "-f", str(elements))

    def _file(self, number: int) -> Path:
        return self._work / f"{number}.nft"


class _Concurrent:
    """Fifty guests at once through the service, one alone between them, and fifty scripts at once."""

    def __init__(self, privileged: Privileged, tasks: "_Background", work: Path) -> None:
        self._calls = _Recorded(privileged)
        self._tasks = tasks
        bridge = BridgeNetwork(self._calls, PLAN, Allowances(), pool_target=POOL, tasks=tasks)
        self._network = HostNetwork("bridge", bridge, None, tasks)
        self._script = _Script(work)

    async def run(self) -> Samples:
        self._network.open()
        await self._network.choose()
        samples: Samples = {}
        try:
            await self._come_and_go(1), await self._come_and_go(CONCURRENT)  # warm
            await self._assert_counts()
            for _ in range(CONCURRENT_ROUNDS):
                for name, value in (await self._run_round()).items():
                    samples.setdefault(name, []).append(value)
        finally:
            await self._network.close()
        return samples

    async def _run_round(self) -> dict[str, float]:
        alone = [await self._come_and_go(1) for _ in range(ALONE)]
        leases, releases = await self._come_and_go(CONCURRENT)
        return {
            "lease alone": median(lease for (lease,), _ in alone),
            "release alone": median(release for _, (release,) in alone),
            "lease of 50": _percentile_95(leases),
            "release of 50": _percentile_95(releases),
            "script of 50": _percentile_95(await self._run_scripts()),
        }

    async def _run_scripts(self) -> list[float]:
        """In as many threads as asyncio thinks right; few more than there are cores."""
        for number in range(CONCURRENT):
            self._script.write(number)
        times = await _time_all(asyncio.to_thread(self._script.run, number) for number in range(CONCURRENT))
        self._script.undo(range(CONCURRENT))
        return times

    async def _come_and_go(self, count: int) -> tuple[list[float], list[float]]:
        """Milliseconds of each lease and of each release, from when all were asked for."""
        await self._tasks.wait_idle()
        stacks = [AsyncExitStack() for _ in range(count)]
        leases = await _time_all(
            stack.enter_async_context(self._network.lease(_make_wish(number), NetworkMode.BRIDGE))
            for number, stack in enumerate(stacks)
        )
        await self._tasks.wait_idle()
        return leases, await _time_all(stack.aclose() for stack in stacks)

    async def _assert_counts(self) -> None:
        await self._tasks.wait_idle()
        self._calls.awaited.clear()
        before = _find_last_pid()
        await self._come_and_go(1)
        calls = " ".join(self._calls.awaited)
        assert calls == "admit_guest release_guest", f"waited for: {calls}"
        assert _find_last_pid() == before, "a process or thread was begun for a guest"


class _Recorded:
    """`Privileged` that remembers what somebody waited for; what the pool does in the background is not on the path."""

    def __init__(self, privileged: Privileged) -> None:
        self._privileged = privileged
        self.kind = privileged.kind
        self.awaited: list[str] = []

    async def call(self, request: Request[R], descriptors: Sequence[int] = ()) -> Reply[R]:
        task = asyncio.current_task()
        assert task is not None
        if task.get_name() not in _BACKGROUND:
            self.awaited.append(request.method)
        return await self._privileged.call(request, descriptors)

    async def close(self) -> None:
        await self._privileged.close()


class _Background(Supervisor):
    async def wait_idle(self) -> None:
        """Nothing is refilled, deleted or released any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)


@asynccontextmanager
async def _open_bridge(privileged: Privileged, present: int) -> AsyncIterator[None]:
    """Guests on taps of their own, up and admitted, every second with NAT."""
    names: list[str] = []
    descriptors: list[int] = []
    await privileged.call(EnsureBridge(bridge=PLAN.name, address=PLAN.cidr))
    await privileged.call(ApplyGuests(bridge=PLAN.name, policy=Policy(denied=PRIVATE), guests=()))
    while (missing := present - len(names)) > 0:
        reply = await privileged.call(CreateTaps(bridge=PLAN.name, count=min(missing, DESCRIPTORS_MAX)))
        names += [tap.name for tap in reply.result.taps]
        descriptors += reply.descriptors
    for number, name in enumerate(names):
        guest = _make_guest(number, name, nat=number % 2 == 0)
        await privileged.call(AdmitGuest(bridge=PLAN.name, guest=guest))
    yield
    await _delete(privileged, names, descriptors)
    await privileged.call(RemoveBridge(bridge=PLAN.name))


async def _delete(privileged: Privileged, names: Sequence[str], descriptors: Sequence[int]) -> None:
    await privileged.call(DeleteTaps(taps=tuple(names)))
    for descriptor in descriptors:
        os.close(descriptor)


def _make_guest(number: int, tap: str, *, nat: bool = True) -> Guest:
    mac = f"02:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"
    return Guest(tap=tap, mac=mac, address=_address(number), nat=nat)


def _name_tap(number: int) -> str:
    """The script's."""
    return f"script{number}"


def _make_wish(number: int) -> Wish:
    return Wish(vm_id=f"{number:012x}", name=f"vm{number}", nat=True, publish=(), address=_address(number))


def _address(number: int) -> str:
    return str(PLAN.interface.ip + 1 + number)


async def _take_turns(rounds: int, works: Sequence[Callable[[], Awaitable[dict[str, float]]]]) -> Samples:
    """All in every round, the order alternating."""
    samples: Samples = {}
    for number in range(rounds):
        for work in works if number % 2 == 0 else reversed(works):
            for name, value in (await work()).items():
                samples.setdefault(name, []).append(value)
    return samples


async def _time_all(works: Iterable[Coroutine[Any, Any, object]]) -> list[float]:
    """Begun together. Milliseconds from then to the end of each."""
    began = time.perf_counter()

    async def time_one(work: Coroutine[Any, Any, object]) -> float:
        await work
        return _ms(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(time_one(work)) for work in works]
    return [task.result() for task in tasks]


def _percentile_95(times: Sequence[float]) -> float:
    return quantiles(times, n=20)[-1]


def _spawn(*argv: str) -> None:
    pid = os.posix_spawn(argv[0], argv, {})
    _, status = os.waitpid(pid, 0)
    assert status == 0, argv


def _find_last_pid() -> int:
    """Of this PID namespace: processes and threads, whoever has begun them (proc(5), loadavg)."""
    return int(Path("/proc/loadavg").read_text().split()[-1])


def _ms(seconds: float) -> float:
    return seconds * 1000


if __name__ == "__main__":
    main()
