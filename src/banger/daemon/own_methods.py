"""The methods that the daemon answers itself: on its own state and on operations."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

import banger
from banger.api import system
from banger.api.method import PROTOCOL_VERSION, Nothing
from banger.base.clock import utc_now
from banger.base.paths import Paths
from banger.daemon.contract import Services
from banger.daemon.dispatch import WatchHandler
from banger.model.operation import Operation, OperationState, Selection
from banger.services.operations.registry import Operations
from banger.services.operations.running import Running

_RUNNING = frozenset({OperationState.RUNNING})

OWN = frozenset({
    "daemon.status", "daemon.stop", "daemon.ping", "daemon.reconcile",
    "operation.list", "operation.show", "operation.watch", "operation.cancel",
})  # fmt: skip


class OwnMethods:
    """`request_stop` begins the shutdown and returns at once; its argument is whether VMs run on."""

    def __init__(
        self,
        paths: Paths,
        operations: Operations,
        services: Services,
        request_stop: Callable[[bool], None],
    ) -> None:
        self._paths = paths
        self._operations = operations
        self._services = services
        self._request_stop = request_stop
        self._started_at = utc_now()
        self._began = time.monotonic()

    def render_handlers(self) -> dict[str, Any]:
        return {
            "daemon.status": self.show_status,
            "daemon.stop": self.stop,
            "daemon.ping": self.ping,
            "daemon.reconcile": self.reconcile,
            "operation.list": self.list_operations,
            "operation.show": self.show_operation,
            "operation.watch": WatchHandler(self.find_operation),
            "operation.cancel": self.cancel_operation,
        }

    def ping(self, request: system.Ping) -> Nothing:
        return Nothing()

    def show_status(self, request: system.DaemonStatus) -> system.DaemonState:
        vms = self._services.count_vms()
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
        self._request_stop(request.keep_vms)
        return Nothing()

    async def reconcile(self, request: system.DaemonReconcile) -> system.Reconciled:
        reconciled = await self._services.reconcile(request)
        settled = await self.settle_unknown()
        return msgspec.structs.replace(reconciled, operations=settled)

    async def settle_unknown(self) -> list[str]:
        """Asks what came of operations that an earlier daemon did not survive; a line for each that is known now.

        At the start, after reconciling, and when somebody looks: recovery may have ended meanwhile what it could not
        end at once.
        """
        if not (unknown := self._operations.list_unknown()):
            return []
        resolutions = await self._services.judge(unknown)
        resolved = self._operations.resolve(lambda operation: resolutions.get(operation.id))
        return [f"{each.id}, {each.kind} of {each.subject}: {each.resolved}" for each in resolved]

    async def list_operations(self, request: system.OperationList) -> system.Operations:
        await self.settle_unknown()
        selection = Selection(
            states=_RUNNING if request.running else None, kind=request.of_kind, subject=request.subject
        )
        listed = self._operations.list(None if request.all else request.limit, selection)
        return system.Operations(operations=[_shorten(operation) for operation in listed])

    async def show_operation(self, request: system.OperationShow) -> Operation:
        if self._operations.get(request.operation).state is OperationState.UNKNOWN:
            await self.settle_unknown()
        return self._operations.get(request.operation)

    def find_operation(self, request: system.OperationWatch) -> Running | Operation:
        return self._operations.find_running(request.operation) or self._operations.get(request.operation)

    async def cancel_operation(self, request: system.OperationCancel) -> Operation:
        """Asked again while it is being undone it changes nothing; asked too late it is refused."""
        running = self._operations.get_cancellable(request.operation)
        running.cancel()
        return await running.wait() if request.wait else running.snapshot()


def _shorten(operation: Operation) -> Operation:
    """As it is listed: hundreds of them fit a line."""
    error = operation.error and {key: operation.error[key] for key in operation.error if key != "detail"}
    return msgspec.structs.replace(operation, result=None, error=error, stages=())


def _read_rss_bytes() -> int:
    resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(resident) * os.sysconf("SC_PAGE_SIZE")
