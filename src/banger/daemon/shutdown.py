"""How the daemon ends: asked once, it ends in order; asked twice, it hurries.

Asked by a signal with `keep_vms`, as a system service is, or by a request that says so, it leaves the VMs running:
its successor takes them over.
When the whole host goes down, its unit asks it to stop them first (`banger.installation.host_shutdown`).

Order: no new connections or calls; operations cancelled and undone; calls cancelled; VMs stopped. Connections
stay open to the end, so that who asked for the stop sees when it is over.
"""

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from banger.base.problem import Code, Outcome, Problem
from banger.daemon.contract import Services
from banger.daemon.dispatch import Dispatch
from banger.daemon.server import Server
from banger.services.operations.registry import Operations

OPERATIONS_DEADLINE_S = 30.0
VMS_DEADLINE_S = 90.0  # the services have a deadline of their own; this one only keeps a bug from hanging us

log = logging.getLogger(__name__)


class Shutdown:
    """Whether the daemon is to end, whether to hurry, and whether VMs run on."""

    def __init__(self, *, keep_vms: bool = False) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()
        self._keep_vms = keep_vms
        self._leaves_vms = False

    def ask(self, keep_vms: bool = False, /) -> None:
        """The first who asks says whether VMs run on."""
        if not self.asked.is_set():
            self._leaves_vms = keep_vms
        self.asked.set()

    def ask_by_signal(self) -> None:
        """The first signal asks, the second hurries."""
        if self.asked.is_set():
            self.hurry.set()
        self.ask(self._keep_vms)

    @property
    def leaves_vms(self) -> bool:
        return self._leaves_vms

    @contextmanager
    def handle_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask_by_signal)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


async def end_work(
    shutdown: Shutdown, server: Server, dispatch: Dispatch, operations: Operations, services: Services
) -> None:
    """Everything between being asked and the closing of the store."""
    log.info("shutting down")
    dispatch.refusal = Problem(Code.UNAVAILABLE, "the daemon is shutting down", outcome=Outcome.NOT_STARTED)
    server.stop_listening()
    await _close_operations(shutdown, operations)
    server.cancel_calls()
    if shutdown.leaves_vms:
        log.info("the VMs run on")
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(VMS_DEADLINE_S):
            await services.stop_vms(shutdown.hurry)
            return
    log.error("the VMs did not stop in time")


async def _close_operations(shutdown: Shutdown, operations: Operations) -> None:
    async with asyncio.TaskGroup() as group:
        closing = group.create_task(operations.close(OPERATIONS_DEADLINE_S))
        hurrying = group.create_task(shutdown.hurry.wait())
        await asyncio.wait({closing, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        hurrying.cancel()
