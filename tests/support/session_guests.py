"""Two guests with sessions, for one suite: the fake one, and the real agent on the host. Either can be left and met again.

`BANGER_TEST_AGENT` names another build of the agent, with sanitizers for example.
"""

import asyncio
import os
import platform
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

import banger.guest
from banger.guest.agent import Agent
from banger.guest.command import ExecRequest
from banger.guest.fake import FakeGuest
from banger.guest.link import Link
from banger.guest.session_records import RecordKind, StartSession

MIB = 1024 * 1024
PROGRAM = Path(banger.guest.__file__).parent / "bin" / f"banger-init-{platform.machine()}"


class Guest(Protocol):
    """A guest that stays while hosts come and go."""

    name: str

    async def connect(self) -> Agent:
        """Meets the guest; the agent of an earlier call has lost it."""
        ...

    @property
    def memory_bytes(self) -> int:
        """What the agent has in memory; 0 where that cannot be said."""
        ...


class FakePlace:
    name = "fake"
    memory_bytes = 0

    def __init__(self, guest: FakeGuest, stack: AsyncExitStack, group: asyncio.TaskGroup) -> None:
        self.guest = guest
        self._stack = stack
        self._group = group
        self._link: Link | None = None

    async def connect(self) -> Agent:
        if self._link is not None:
            await self._link.aclose()
        host, other = socket.socketpair()
        self._group.create_task(self.guest.serve(*await asyncio.open_connection(sock=other)))
        self._link = await self._stack.enter_async_context(
            await Link.open(*await asyncio.open_connection(sock=host))
        )
        return Agent(self._link)


class RealPlace:
    name = "agent"

    def __init__(self, host: socket.socket, pid: int, stack: AsyncExitStack) -> None:
        self.pid = pid
        self._host = host
        self._stack = stack
        self._link: Link | None = None

    def take_socket(self) -> socket.socket:
        """For a host that is not ours, until the next `connect`."""
        self._host.setblocking(False)
        return self._host

    async def connect(self) -> Agent:
        """Over the same socket, as over the port of a real guest: the agent sees a HELLO, and no end."""
        if self._link is not None:
            await self._link.aclose()
        streams = await asyncio.open_connection(sock=self._host.dup())
        self._link = await self._stack.enter_async_context(await Link.open(*streams))
        return Agent(self._link)

    @property
    def memory_bytes(self) -> int:
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def start_fake_place(scratch: Path) -> AsyncIterator[FakePlace]:
    guest = FakeGuest(scratch)
    try:
        async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
            yield FakePlace(guest, stack, group)
    finally:
        guest.sessions.lose_all()


@asynccontextmanager
async def start_real_place() -> AsyncIterator[RealPlace]:
    program = Path(os.environ.get("BANGER_TEST_AGENT", PROGRAM))
    if not program.exists():
        pytest.skip(f"{program} is not built")
    host, guest = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        program, "--agent-fd", str(guest.fileno()), pass_fds=(guest.fileno(),)
    )
    guest.close()
    try:
        async with AsyncExitStack() as stack:
            yield RealPlace(host, process.pid, stack)
    finally:
        host.close()
        async with asyncio.timeout(10):
            assert await process.wait() == 0


def shell(
    script: str,
    *,
    session_id: str = "s",
    scrollback_bytes: int = MIB,
    required: tuple[str, ...] = (),
    **request,
) -> StartSession:
    argv = ("/bin/sh", "-c", script)
    return StartSession(
        session_id, ExecRequest(argv=argv, **request), required=required, scrollback_bytes=scrollback_bytes
    )


async def check_slow_reader(guest: Guest, agent: Agent, total: int, scrollback_bytes: int) -> None:
    """A reader that takes nothing until the command has said all."""
    before = guest.memory_bytes
    async with agent.sessions.watch() as watch:
        await agent.sessions.start(
            shell(
                f"read go; head -c {total} /dev/zero; echo end >&2",
                stdin=True,
                scrollback_bytes=scrollback_bytes,
            )
        )
        async with agent.sessions.read("s", follow=True) as reader:
            async with agent.sessions.write("s") as writer:
                await writer.write(b"\n")
            async for info in watch:
                if info.is_over:
                    break
            assert info.end == total + 4
            if guest.memory_bytes:
                assert guest.memory_bytes - before < scrollback_bytes + 2 * MIB
            at = 0
            gaps = []
            async for record in reader:
                if record.kind == RecordKind.GAP:
                    gaps.append((record.sequence, record.end))
                if record.kind != RecordKind.STATE:
                    assert record.sequence == at
                    at = record.end
            assert at == total + 4
            assert len(gaps) == 1
            assert record.kind == RecordKind.STATE
