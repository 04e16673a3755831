"""The guest's side of a start: what it is told before its first instruction, and the first word of its agent. Owns no
state."""

import asyncio
from pathlib import Path

from banger.base.files import write_atomic
from banger.base.problem import Code, Problem
from banger.guest.bootconfig import BootConfig, render_boot_archive
from banger.guest.link import Link, Welcome
from banger.model.vm import Stage
from banger.services.vms.layout import Layout
from banger.vmm.contract import Handle, Vmm
from banger.vmm.logs import render_tail

AGENT_DEADLINE_S = 120.0
_CONSOLE_LINES = 12
_ENDING_S = 2.0


async def _meet_agent(vmm: Vmm, handle: Handle) -> Link:
    reader, writer = await vmm.connect_agent(handle)
    return await Link.open(reader, writer)


async def wait_welcome(vmm: Vmm, handle: Handle, layout: Layout) -> Link:
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


def write_initramfs(base: Path, config: BootConfig, layout: Layout) -> None:
    """The kernel's base archive with this VM's configuration behind it."""
    layout.ensure_runtime()
    write_atomic(layout.initramfs, base.read_bytes() + render_boot_archive(config))


def guest_stages(welcome: Welcome) -> tuple[Stage, ...]:
    """The guest's own account of its boot: each entry is the uptime at which it was reached."""
    stages: list[Stage] = []
    before = 0.0
    for name, at_us in welcome.stages.items():
        at_ms = at_us / 1000
        stages.append(Stage(name=name, started_ms=before, duration_ms=max(at_ms - before, 0.0)))
        before = at_ms
    return tuple(stages)
