"""One boot of a VM: named, timed steps on an AsyncExitStack, each pushing its undo.

Success hands the running VM to the caller; failure or cancellation at any step runs the undos in reverse,
so that no process, socket or file of this boot is left. Stopping is for `service`.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from banger.base.files import write_atomic
from banger.base.problem import Code, Problem
from banger.base.progress import Progress, stage
from banger.guest.agent import Agent
from banger.guest.bootconfig import BootConfig, render_boot_archive
from banger.guest.link import Link, Welcome
from banger.model.kernel import KernelManifest
from banger.model.machine import Machine
from banger.model.vm import Stage, VmRuntime
from banger.services.hostnet.contract import Lease
from banger.services.vms.layout import Layout
from banger.vmm.contract import Handle, Vmm
from banger.vmm.logs import render_tail

AGENT_DEADLINE_S = 120.0
_CONSOLE_LINES = 12
_ENDING_S = 2.0


class BootPlan(NamedTuple):
    """Everything a boot needs, decided before anything is done."""

    machine: Machine
    guest: BootConfig
    kernel: KernelManifest
    kernel_directory: Path
    layout: Layout
    lease: Lease


class Booted(NamedTuple):
    vmm: Vmm
    handle: Handle
    agent: Agent
    runtime: VmRuntime
    welcome: Welcome


Record = Callable[[VmRuntime], None]


async def boot(plan: BootPlan, vmm: Vmm, record: Record, progress: Progress) -> Booted:
    """Boots and waits for the agent. `record` writes the VMM's identity before it is relied on."""
    async with AsyncExitStack() as undo:
        with stage(progress, "configure guest"):
            plan.layout.ensure_runtime()
            await asyncio.to_thread(_write_initramfs, plan)
        with stage(progress, "start vmm"):
            handle = await vmm.start(plan.machine, plan.layout.place, plan.lease.tap_descriptor)
            undo.push_async_callback(vmm.kill, handle)
            runtime = _runtime(handle, plan)
            record(runtime)
        with stage(progress, "boot guest"):
            link = await _wait_welcome(vmm, handle, plan.layout)
            undo.push_async_callback(link.aclose)
        undo.pop_all()
    runtime = msgspec.structs.replace(runtime, boot_id=link.welcome.boot_id)
    return Booted(vmm, handle, Agent(link), runtime, link.welcome)


async def _meet_agent(vmm: Vmm, handle: Handle) -> Link:
    reader, writer = await vmm.connect_agent(handle)
    return await Link.open(reader, writer)


async def _wait_welcome(vmm: Vmm, handle: Handle, layout: Layout) -> Link:
    """The agent's welcome, or a Problem as soon as the VMM ends or the deadline passes."""
    meeting = asyncio.create_task(_meet_agent(vmm, handle))
    ending = asyncio.create_task(vmm.wait_exit(handle))
    link: Link | None = None
    try:
        await asyncio.wait((meeting, ending), timeout=AGENT_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        if meeting.done() and meeting.exception() is not None:  # most likely because the VMM is ending
            await asyncio.wait((ending,), timeout=_ENDING_S)
        if ending.done():
            raise _failed(f"the VMM ended before the guest was ready: {ending.result().reason}", layout)
        if not meeting.done():
            raise _failed(f"the guest's agent did not answer within {AGENT_DEADLINE_S:.0f} s", layout)
        link = meeting.result()
        return link
    finally:
        for task in (meeting, ending):
            task.cancel()
        await asyncio.wait((meeting, ending))
        if link is None and not meeting.cancelled() and meeting.exception() is None:
            await meeting.result().aclose()


def _failed(brief: str, layout: Layout) -> Problem:
    return Problem(Code.OPERATION_FAILED, brief, detail=_console_tail(layout), hint="banger doctor")


def _console_tail(layout: Layout) -> str | None:
    """The last lines that the guest wrote to its serial console, for the text of a failure."""
    return render_tail(layout.log("serial"), _CONSOLE_LINES) or None


def _write_initramfs(plan: BootPlan) -> None:
    """The kernel's base archive with this VM's configuration behind it."""
    base = (plan.kernel_directory / plan.kernel.base_initramfs).read_bytes()
    write_atomic(plan.layout.initramfs, base + render_boot_archive(plan.guest))


def _runtime(handle: Handle, plan: BootPlan) -> VmRuntime:
    lease = plan.lease
    return VmRuntime(
        **msgspec.structs.asdict(handle),
        network_mode=lease.mode,
        tap=lease.tap,
        address=lease.address,
        ssh_port=lease.ssh_port,
    )


def guest_stages(welcome: Welcome) -> tuple[Stage, ...]:
    """The guest's own account of its boot: each entry is the uptime at which it was reached."""
    stages: list[Stage] = []
    before = 0.0
    for name, at_us in welcome.stages.items():
        at_ms = at_us / 1000
        stages.append(Stage(name=name, started_ms=before, duration_ms=max(at_ms - before, 0.0)))
        before = at_ms
    return tuple(stages)
