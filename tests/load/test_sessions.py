"""Much output and much nonsense, to the real agent's sessions on the host."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.support.session_fuzz import FuzzingHost
from tests.support.session_guests import MIB, check_slow_reader, start_real_place

pytestmark = [pytest.mark.load, pytest.mark.timeout(900)]

FRAMES = int(os.environ.get("BANGER_FUZZ_SESSION_FRAMES", "100000"))
GIB = 1024 * MIB
ROUND_BYTES = 16 * MIB  # of 12 sessions' scroll-back, and as much again


async def test_a_gigabyte_with_a_slow_reader_stays_in_the_ring() -> None:
    async with start_real_place() as place:
        await check_slow_reader(place, await place.connect(), GIB, MIB)


async def test_any_talk_of_sessions_leaves_the_agent_well() -> None:
    seed = os.environ.get("BANGER_FUZZ_SEED", "same")
    print(f"hunt with: BANGER_FUZZ_SEED=... make test-load; this was {seed}")
    async with start_real_place() as place:
        host = FuzzingHost(place.take_socket(), seed)
        await host.run(FRAMES // 4)
        warm = place.memory_bytes
        await host.run(FRAMES)
        print(f"ends by code: {dict(sorted(host.ends.items()))}; {place.memory_bytes - warm:+} bytes")
        agent = await place.connect()
        for info in await agent.sessions.list():
            await agent.sessions.stop(info.id, 0)
            await agent.sessions.remove(info.id)
        assert await agent.sessions.list() == ()
        assert (await agent.run(["echo", "well"])).stdout == b"well\n"
        assert place.memory_bytes - warm < 2 * ROUND_BYTES
        descriptors = len(list(Path(f"/proc/{place.pid}/fd").iterdir()))
        assert descriptors < 16, subprocess.check_output(["ls", "-l", f"/proc/{place.pid}/fd"], text=True)
