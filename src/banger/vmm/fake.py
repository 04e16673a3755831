"""A VMM without machines: the contract's semantics in one process, for tests of what stands above it.

Owns a `FakeHost`, on which "processes" outlive the `FakeVmm` that started them, as they outlive a daemon. A
guest is a coroutine behind a real Unix socket; it passes the conformance suite that QEMU passes.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from banger.base.problem import Code, Problem, unavailable
from banger.model.machine import Machine, PortForward, validate_machine
from banger.vmm.boot_files import verify_disk, verify_initramfs, verify_kernel
from banger.vmm.contract import Capability, Exit, GuestView, Handle, Liveness, Place
from banger.vmm.exits import KILLED, POWER_OFF, UNKNOWN

# Files that pass verification: an ELF header with one empty segment, and an archive's beginning.
FAKE_KERNEL = bytes.fromhex(
    "7f454c4602010100000000000000000002003e0001000000000000000000000040000000000000000000000000000000"
    "00000000400038000100000000000000"
    + "01000000" + "00" * 52
)  # fmt: skip
FAKE_INITRAMFS = b"070701"

_FIRST_PID = 10_000_000  # above the kernel's PID_MAX_LIMIT: never a real process
_CHUNK = 65536

PowerOff = Callable[..., None]  # power_off(reason="power-off")
GuestFactory = Callable[[asyncio.StreamReader, asyncio.StreamWriter, PowerOff], Awaitable[None]]


async def echo_guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, power_off: PowerOff) -> None:
    """The default guest: gives back what it gets; a line `OFF` or `REBOOT` ends it."""
    while line := await reader.readline():
        if line in {b"OFF\n", b"REBOOT\n"}:
            power_off(POWER_OFF if line == b"OFF\n" else "reboot")
            return
        writer.write(line)
        await writer.drain()


class FakeFaults(msgspec.Struct):
    """What goes wrong. Change it between calls."""

    missing: bool = False  # as if the VMM were not installed
    fail_start: Problem | None = None
    hang_start: bool = False
    die_after_start: bool = False


class FakeProcess:
    """One running guest: its socket, whether it runs, and how it ended."""

    def __init__(self, handle: Handle, guest: GuestFactory) -> None:
        self.handle = handle
        self.running = asyncio.Event()
        self.running.set()
        self.exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.forwards: set[PortForward] = set()
        self._guest = guest
        self._one_at_a_time = asyncio.Lock()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        Path(self.handle.agent_socket).unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.handle.agent_socket)

    def end(self, verdict: Exit) -> None:
        if self.exit.done():
            return
        self.exit.set_result(verdict)
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        Path(self.handle.agent_socket).unlink(missing_ok=True)

    def _power_off(self, reason: str = POWER_OFF) -> None:
        self.end(Exit(clean=True, reason=reason))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            async with self._one_at_a_time:
                await self._run_guest(reader, writer)
        except asyncio.CancelledError:
            if not self.exit.done():
                raise  # else: the process ended, and this connection with it
        finally:
            self._connections.discard(task)
            writer.close()

    async def _run_guest(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Bytes pass through gates that a pause closes, so that a paused guest is silent, not gone."""
        inner = asyncio.StreamReader()
        with suppress(ConnectionError):
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(self._pump(reader, inner))
                await self._guest(inner, writer, self._power_off)
                pump.cancel()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamReader) -> None:
        while data := await source.read(_CHUNK):
            await self.running.wait()
            target.feed_data(data)
        target.feed_eof()


class FakeHost:
    """Where fake processes live. Give the same one to a second `FakeVmm` to play a restarted daemon."""

    def __init__(self) -> None:
        self.processes: dict[tuple[int, int], FakeProcess] = {}
        self._pids = itertools.count(_FIRST_PID)

    def next_pid(self) -> int:
        return next(self._pids)

    def kill(self, pid: int) -> None:
        """SIGKILL from outside."""
        for process in self.processes.values():
            if process.handle.pid == pid:
                process.end(Exit(clean=False, reason="ended by SIGKILL"))

    def alive(self) -> list[Handle]:
        return [process.handle for process in self.processes.values() if not process.exit.done()]


class FakeVmm:
    """The contract on a `FakeHost`. `guest` makes the other end of each agent connection."""

    def __init__(
        self, *, host: FakeHost | None = None, guest: GuestFactory = echo_guest, name: str = "fake"
    ) -> None:
        self.host = host or FakeHost()
        self.faults = FakeFaults()
        self.machines: dict[int, Machine] = {}  # by pid, for assertions
        self._guest = guest
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def capabilities(self) -> frozenset[Capability]:
        if self.faults.missing:
            raise unavailable("the fake VMM is not installed", hint="sudo apt-get install fake")
        return frozenset(
            {Capability.PAUSE, Capability.USER_NETWORK, Capability.POWER_OFF, Capability.QCOW2_DISKS}
        )

    def view_guest(self, machine: Machine) -> GuestView:
        return GuestView(channels=("vsock:1024",), disks={disk.serial: disk.serial for disk in machine.disks})

    async def start(self, machine: Machine, place: Place, tap: int | None = None) -> Handle:
        validate_machine(machine)
        await self.capabilities()
        verify_kernel(Path(machine.kernel))
        verify_initramfs(Path(machine.initramfs))
        for disk in machine.disks:
            verify_disk(Path(disk.path), read_only=disk.read_only)
        if self.faults.fail_start is not None:
            raise self.faults.fail_start
        if self.faults.hang_start:
            await asyncio.Event().wait()
        pid = self.host.next_pid()
        handle = Handle(
            backend=self._name,
            pid=pid,
            start_time=pid,
            agent_socket=f"{place.runtime}/agent.sock",
            control_socket=f"{place.runtime}/control.sock",
            accelerator="fake",
            memory="nowhere",
            serial_log=f"{place.state}/serial.log",
        )
        process = FakeProcess(handle, self._guest)
        try:
            await process.open()
        except BaseException:
            process.end(Exit(clean=False, reason=KILLED))
            raise
        self.machines[pid] = machine
        self.host.processes[pid, pid] = process
        if self.faults.die_after_start:
            process.end(Exit(clean=False, reason="kernel panic: fake"))
        return handle

    async def wait_exit(self, handle: Handle) -> Exit:
        process = self.host.processes.get((handle.pid, handle.start_time))
        if process is None:
            return Exit(clean=False, reason=UNKNOWN)
        return await asyncio.shield(process.exit)

    async def stop(self, handle: Handle, *, deadline_s: float) -> Exit:
        try:
            async with asyncio.timeout(deadline_s):
                return await self.wait_exit(handle)
        except TimeoutError:
            return await self.kill(handle)

    async def kill(self, handle: Handle) -> Exit:
        if process := self._find(handle):
            process.end(Exit(clean=False, reason=KILLED))
        return await self.wait_exit(handle)

    async def evict(self, place: Place) -> None:
        for process in self.host.processes.values():
            if Path(process.handle.agent_socket).parent == Path(place.runtime):
                process.end(Exit(clean=False, reason=KILLED))

    async def adopt(self, handle: Handle) -> Liveness:
        process = self._find(handle)
        if process is None:
            Path(handle.agent_socket).unlink(missing_ok=True)
            return Liveness.GONE
        return Liveness.RUNNING if process.running.is_set() else Liveness.PAUSED

    async def pause(self, handle: Handle) -> None:
        self._get(handle).running.clear()

    async def resume(self, handle: Handle) -> None:
        self._get(handle).running.set()

    async def add_forward(self, handle: Handle, forward: PortForward) -> None:
        self._get(handle).forwards.add(forward)

    async def remove_forward(self, handle: Handle, forward: PortForward) -> None:
        self._get(handle).forwards.discard(forward)

    async def connect_agent(self, handle: Handle) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(handle.agent_socket)
        except OSError as error:
            raise _not_running(handle) from error

    async def close(self) -> None:
        """Guests stay on the host."""

    def _find(self, handle: Handle) -> FakeProcess | None:
        process = self.host.processes.get((handle.pid, handle.start_time))
        return None if process is None or process.exit.done() else process

    def _get(self, handle: Handle) -> FakeProcess:
        process = self._find(handle)
        if process is None:
            raise _not_running(handle)
        return process


def _not_running(handle: Handle) -> Problem:
    return Problem(Code.NOT_RUNNING, f"the fake process {handle.pid} is not running")
