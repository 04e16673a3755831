"""VMs that are rows, a host whose files a test writes, and guests that answer over a real link."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from banger.base.problem import not_found, unavailable
from banger.guest.agent import Agent
from banger.guest.fake import FakeGuest
from banger.guest.link import Link
from banger.model.machine import PortForward
from banger.model.vm import NetworkMode, VmRecord, VmRuntime, VmSpec, VmState
from banger.services.usage.host import HostFiles

START_TIME = 4711


def make_vm(
    name: str = "web",
    *,
    pid: int = 100,
    state: VmState = VmState.RUNNING,
    mode: NetworkMode = NetworkMode.USER,
    publish: tuple[PortForward, ...] = (),
    jail: bool = False,
) -> VmRecord:
    bridged = mode is NetworkMode.BRIDGE
    vm_id = f"{pid:012x}"
    runtime = VmRuntime(
        backend="fake",
        pid=pid,
        start_time=START_TIME,
        agent_socket="",
        control_socket="",
        accelerator="",
        jail=vm_id if jail else "",
        network_mode=mode,
        tap=f"bng-{pid:08x}" if bridged else "",
        address="10.209.0.5" if bridged else "127.0.0.1",
        ssh_port=22 if bridged else 40022,
    )
    return VmRecord(
        id=vm_id,
        name=name,
        spec=VmSpec(
            image="debian",
            kernel="debian",
            vcpus=2,
            memory_mib=512,
            disk_size_bytes=1 << 30,
            system_overlay_size_bytes=1 << 30,
            publish=publish,
        ),
        state=state,
        created_at="",
        updated_at="",
        last_touched_at="",
        runtime=runtime if state is VmState.RUNNING else None,
    )


class Vms:
    """The service that owns the VMs, as far as it is asked."""

    def __init__(self, links: AsyncExitStack, scratch: Path) -> None:
        self.rows: list[VmRecord] = []
        self.guests: dict[str, FakeGuest] = {}
        self.asked: list[str] = []
        self._agents: dict[str, Agent] = {}
        self._links = links
        self._scratch = scratch

    def list_rows(self) -> Sequence[VmRecord]:
        return tuple(self.rows)

    def resolve(self, untrusted_reference: str) -> VmRecord:
        for vm in self.rows:
            if untrusted_reference in (vm.name, vm.id):
                return vm
        raise not_found(f"there is no VM {untrusted_reference!r}")

    def get_agent(self, vm: VmRecord) -> Agent:
        self.asked.append(vm.name)
        if vm.id not in self._agents:
            raise unavailable(f"the agent in {vm.name} is not connected")
        return self._agents[vm.id]

    async def add(self, vm: VmRecord, *, guest: bool = True) -> VmRecord:
        self.rows.append(vm)
        if guest:
            self.guests[vm.name] = FakeGuest(self._scratch / vm.id)
            self._agents[vm.id] = await self._connect(self.guests[vm.name])
        return vm

    def stop(self, name: str) -> None:
        vm = self.resolve(name)
        self.rows[self.rows.index(vm)] = msgspec.structs.replace(vm, state=VmState.STOPPED, runtime=None)

    async def _connect(self, guest: FakeGuest) -> Agent:
        host, inside = socket.socketpair()
        streams = await asyncio.open_connection(sock=inside)
        serving = asyncio.create_task(guest.serve(*streams))
        link = await self._links.enter_async_context(
            await Link.open(*await asyncio.open_connection(sock=host))
        )
        self._links.push_async_callback(asyncio.wait, [serving])
        self._links.push_async_callback(link.aclose)
        return Agent(link)


class Host:
    """What the kernel would tell. Times are ticks of 10 ms, as in proc_pid_stat(5)."""

    def __init__(self, root: Path) -> None:
        self.proc, self.interfaces, self.cgroups = root / "proc", root / "net", root / "cgroup"
        self.files = HostFiles(proc=self.proc, interfaces=self.interfaces, cgroups=self.cgroups)

    def spend(self, pid: int, ticks: int, *, start_time: int = START_TIME, state: str = "S") -> None:
        process = self.proc / str(pid)
        process.mkdir(parents=True, exist_ok=True)
        fields = [
            state,
            *["0"] * 10,
            str(ticks - ticks // 3),
            str(ticks // 3),
            *["0"] * 6,
            str(start_time),
            "0",
        ]
        (process / "stat").write_text(f"{pid} (a) b (qemu) {' '.join(fields)}\n")

    def remember(self, pid: int, kib: int) -> None:
        (self.proc / str(pid) / "smaps_rollup").write_text(
            f"00400000-7fff ---p 00000000 00:00 0 [rollup]\nRss: {kib * 2} kB\nPss: {kib} kB\nPss_Anon: 7 kB\n"
        )

    def move_blocks(self, pid: int, read: int, written: int) -> None:
        text = f"rchar: 1\nwchar: 2\nread_bytes: {read}\nwrite_bytes: {written}\ncancelled_write_bytes: 0\n"
        (self.proc / str(pid) / "io").write_text(text)

    def count_packets(self, tap: str, *, received: int, sent: int) -> None:
        """By the guest."""
        counters = self.interfaces / tap / "statistics"
        counters.mkdir(parents=True, exist_ok=True)
        (counters / "tx_bytes").write_text(f"{received}\n")
        (counters / "rx_bytes").write_text(f"{sent}\n")

    def fill_cgroup(self, vm_id: str, anonymous: int, mapped: int) -> None:
        (self.cgroups / vm_id).mkdir(parents=True)
        text = f"anon {anonymous}\nfile 999999\nkernel 5\nanon_thp 1\nfile_mapped {mapped}\n"
        (self.cgroups / vm_id / "memory.stat").write_text(text)
