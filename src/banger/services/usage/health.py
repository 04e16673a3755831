"""How a guest is, by its agent's word, and what of it deserves attention.

Unhealthy is a guest whose agent does not answer in time, or one of whose file systems is full. All else that is out of
the ordinary is a warning.
"""

import asyncio
import time

from banger.api.usage import GuestFileSystem, GuestHealth
from banger.base.problem import Code, Problem
from banger.guest.agent import Agent
from banger.guest.entries import FileSystem, Health
from banger.network.user import SSH_PORT

DEADLINE_S = 5.0
CLOCK_OFFSET_MAX_S = 1.0
_FULL, _NEARLY_FULL, _SHORT_OF_MEMORY = 0.01, 0.1, 0.05  # what is left, of the whole


async def ask_health(name: str, agent: Agent) -> GuestHealth:
    """Raises TimeoutError when the agent does not answer all questions in time, and Problem."""
    async with asyncio.timeout(DEADLINE_S):
        begun = time.perf_counter()
        health = await agent.health()
        agent_ms = round((time.perf_counter() - begun) * 1000, 1)
        clock_offset_s = await _measure_clock(agent)
        file_systems = await _list_file_systems(agent)
        ssh = await agent.wait_port(SSH_PORT, timeout_s=0)
    problems = [f"{each.path} is full" for each in file_systems if _left(each) < _FULL]
    return GuestHealth(
        vm=name,
        healthy=not problems,
        agent_ms=agent_ms,
        uptime_s=health.uptime_us / 1e6,
        load1=health.load1,
        memory_total_bytes=health.memory_total_bytes,
        memory_available_bytes=health.memory_available_bytes,
        file_systems=[_describe(each) for each in file_systems],
        init_mode=health.init_mode,
        clock_offset_s=clock_offset_s,
        ssh=ssh,
        problems=problems,
        warnings=_list_warnings(health, file_systems, clock_offset_s),
    )


def report_silence(name: str, why: str) -> GuestHealth:
    return GuestHealth(vm=name, healthy=False, problems=[why])


async def _measure_clock(agent: Agent) -> float:
    """How far the guest's clock is ahead; half the way there and back is counted out."""
    before_ns = time.time_ns()
    guest_ns = await agent.clock()
    return round((guest_ns - (before_ns + time.time_ns()) / 2) / 1e9, 3)


async def _list_file_systems(agent: Agent) -> tuple[FileSystem, ...]:
    """None of a guest that was started by a banger which did not ask for them yet."""
    try:
        return (await agent.usage()).file_systems
    except Problem as problem:
        if problem.code is Code.UNKNOWN_METHOD:
            return ()
        raise


def _list_warnings(health: Health, file_systems: tuple[FileSystem, ...], clock_offset_s: float) -> list[str]:
    warnings = [f"{each.path} is nearly full" for each in file_systems if _FULL <= _left(each) < _NEARLY_FULL]
    if health.memory_available_bytes < health.memory_total_bytes * _SHORT_OF_MEMORY:
        warnings.append("the guest has hardly any memory left")
    if abs(clock_offset_s) > CLOCK_OFFSET_MAX_S:
        side = "ahead of" if clock_offset_s > 0 else "behind"
        warnings.append(f"the guest's clock is {abs(clock_offset_s):.1f} s {side} the host's")
    return warnings


def _left(system: FileSystem) -> float:
    return system.available_bytes / system.size_bytes if system.size_bytes else 1.0


def _describe(system: FileSystem) -> GuestFileSystem:
    return GuestFileSystem(
        path=system.path,
        size_bytes=system.size_bytes,
        used_bytes=max(system.size_bytes - system.free_bytes, 0),
        available_bytes=system.available_bytes,
    )
