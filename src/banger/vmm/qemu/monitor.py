"""One QMP connection: commands to QEMU, and how it says that the guest ended.

Owns the client of the `qemu.qmp` library and translates its errors. QEMU serves one connection at a time
and takes the next when this one ends, so a restarted daemon gets in.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Any

from qemu.qmp import (
    ConnectError,
    EventListener,
    ExecInterruptedError,
    ExecuteError,
    QMPClient,
    QMPError,
    Runstate,
    StateError,
)
from qemu.qmp.qmp_client import GreetingError, NegotiationError

from banger.base.problem import Code, Outcome, Problem

_DRAIN_S = 1.0
_NEGOTIATIONS = 3
_SHUTDOWN = "SHUTDOWN"
_PANICKED = "GUEST_PANICKED"

# The library logs every lost connection with a trace; losing it is how a guest ends here.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


class Monitor:
    """A connected and negotiated QMP session. Made by `connect` only."""

    def __init__(self, client: QMPClient, ends: EventListener) -> None:
        self._client = client
        self._ends = ends

    @classmethod
    async def connect(cls, path: str) -> "Monitor":
        """Waits until QEMU has built its machine and greets. Raises ConnectionError when it ends or never
        listened; the caller sets the deadline."""
        for attempt in range(1, _NEGOTIATIONS + 1):
            client = QMPClient("banger")
            ends = EventListener((_SHUTDOWN, _PANICKED))
            client.register_listener(ends)
            try:
                await client.connect(path)
            except ConnectError as error:
                # The library takes an event that slips in before greeting or reply for it; QEMU lets us in again.
                if attempt == _NEGOTIATIONS or not isinstance(error.exc, (GreetingError, NegotiationError)):
                    raise ConnectionError(str(error)) from error
            except BaseException:
                await _let_go(client)
                raise
            else:
                return cls(client, ends)
        raise AssertionError("unreachable")

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """The command's return value. Raises Problem, with an unknown outcome if QEMU went meanwhile."""
        try:
            return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise Problem(Code.OPERATION_FAILED, f"QEMU refuses {command}: {error}") from error
        except (ExecInterruptedError, StateError) as error:
            raise Problem(
                Code.NOT_RUNNING, f"QEMU ended during {command}", outcome=Outcome.UNKNOWN
            ) from error

    async def wait_end_reason(self) -> str | None:
        """Why QEMU ended (QMP's ShutdownCause, or `guest-panic`), for a process known to have gone:
        what it said last is still in the socket. None when it had no time to say anything."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while self._client.runstate is Runstate.RUNNING:
                    await self._client.runstate_changed()
        await self.close()
        reason = None
        for event in self._ends.clear():
            if event["event"] == _PANICKED:
                return "guest-panic"
            data = event["data"]
            assert isinstance(data, dict), event
            reason = str(data["reason"])
        return reason

    async def close(self) -> None:
        await _let_go(self._client)


async def _let_go(client: QMPClient) -> None:
    """Disconnects; that the other side went first is no failure here."""
    with suppress(QMPError, OSError, EOFError):
        await client.disconnect()
