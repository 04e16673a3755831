"""The methods that the daemon answers itself: on its own state and on operations."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import banger
from banger.api import system
from banger.api.method import PROTOCOL_VERSION, Nothing
from banger.base.clock import utc_now
from banger.base.paths import Paths
from banger.daemon.contract import VmCounts
from banger.daemon.dispatch import WatchHandler
from banger.model.operation import Operation
from banger.services.operations.registry import Operations, Running

LISTED_OPERATIONS = 100

OWN = frozenset({
    "daemon.status", "daemon.stop", "daemon.ping",
    "operation.list", "operation.show", "operation.watch", "operation.cancel",
})  # fmt: skip


class OwnMethods:
    """`request_stop` begins the shutdown and returns at once."""

    def __init__(
        self,
        paths: Paths,
        operations: Operations,
        count_vms: Callable[[], VmCounts],
        request_stop: Callable[[], None],
    ) -> None:
        self._paths = paths
        self._operations = operations
        self._count_vms = count_vms
        self._request_stop = request_stop
        self._started_at = utc_now()
        self._began = time.monotonic()

    def render_handlers(self) -> dict[str, Any]:
        return {
            "daemon.status": self.show_status,
            "daemon.stop": self.stop,
            "daemon.ping": self.ping,
            "operation.list": self.list_operations,
            "operation.show": self.show_operation,
            "operation.watch": WatchHandler(self.find_operation),
            "operation.cancel": self.cancel_operation,
        }

    def ping(self, request: system.Ping) -> Nothing:
        return Nothing()

    def show_status(self, request: system.DaemonStatus) -> system.DaemonState:
        vms = self._count_vms()
        return system.DaemonState(
            version=banger.__version__,
            protocol=PROTOCOL_VERSION,
            pid=os.getpid(),
            uid=os.getuid(),
            started_at=self._started_at,
            uptime_s=round(time.monotonic() - self._began, 3),
            socket=self._paths.socket,
            log=self._paths.log,
            vms=vms.total,
            running=vms.running,
            operations=self._operations.running,
            rss_bytes=_read_rss_bytes(),
        )

    def stop(self, request: system.DaemonStop) -> Nothing:
        self._request_stop()
        return Nothing()

    def list_operations(self, request: system.OperationList) -> system.Operations:
        return system.Operations(operations=list(self._operations.list(LISTED_OPERATIONS)))

    def show_operation(self, request: system.OperationShow) -> Operation:
        return self._operations.get(request.operation)

    def find_operation(self, request: system.OperationWatch) -> Running | Operation:
        return self._operations.find_running(request.operation) or self._operations.get(request.operation)

    async def cancel_operation(self, request: system.OperationCancel) -> Operation:
        """Returns when the work is undone; one that has ended already is returned as it is."""
        running = self._operations.find_running(request.operation)
        if running is None:
            return self._operations.get(request.operation)
        running.cancel()
        return await running.wait()


def _read_rss_bytes() -> int:
    resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(resident) * os.sysconf("SC_PAGE_SIZE")
