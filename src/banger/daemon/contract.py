"""What the daemon's transport needs from wiring: handlers by method, and how the services end.

`banger.daemon.wiring` gives one function, which `main` enters after the directories are verified, the lock
is held and logging is started:

    @asynccontextmanager
    async def open_services(paths: Paths) -> AsyncIterator[Services]

It opens the store, builds adapters and services, and closes them when the block ends. It may raise Problem
(a damaged database, a bad configuration): the daemon then says so and ends with the code's exit status.

`Services.handlers` holds one entry for every method of METHODS except those of `daemon.own_methods.OWN`
(daemon.status/stop/ping/reconcile, operation.list/show/watch/cancel). Its form follows the method's kind and is
checked at start by `dispatch.check_handlers`:

- IMMEDIATE: `def handler(request) -> result`, or `async def` where it waits. The plain form is quicker (no
  task) and right for whatever only reads the store; it runs on the event loop and must not block.
- OPERATION: `OperationHandler(work=async (request, progress) -> result, subject=(request) -> str)`.
  `subject` names what is worked on and may raise Problem: nothing has started then.
- STREAM: `async def handler(request, stream: CommandStream) -> None`, which calls `accept`, then `finish`
  once; a Problem raised instead, before or after `accept`, is sent to the caller.

The first parameter's annotation, when there is one, must be the method's request class. Results are instances
of the result type. Handlers raise Problem; CancelledError means that the caller has gone or the daemon
ends.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from banger.api.system import DaemonReconcile, Reconciled
from banger.base.paths import Paths
from banger.base.progress import Progress
from banger.model.operation import Operation, Resolution
from banger.services.contract import CommandStream, Perform
from banger.store.contract import OperationRepository

ImmediateHandler = Callable[[Any], Any]
StreamHandler = Callable[[Any, CommandStream], Awaitable[None]]


class OperationHandler(NamedTuple):
    """Long work: `work` runs in a task of its own; `subject` is the name shown in `operation list`."""

    work: Callable[[Any, Progress], Awaitable[Any]]
    subject: Callable[[Any], str]


Handler = ImmediateHandler | StreamHandler | OperationHandler
Handlers = Mapping[str, Handler]


class VmCounts(NamedTuple):
    total: int
    running: int


class Services(NamedTuple):
    """All that the daemon needs of the services.

    `stop_vms(hurry)` is awaited once at shutdown, after calls and operations have ended: it stops every
    running VM within its own deadline; when the event `hurry` is set (a second signal) it kills the rest.
    The store must stay open until the block ends: operations are recorded until then.
    `judge` tells, after reconciliation, what came of operations that an earlier daemon did not survive, by their ids.
    `attend(perform)` is called once, when operations can be begun: what services do by themselves begins then.
    """

    handlers: Handlers
    operations: OperationRepository
    count_vms: Callable[[], VmCounts]
    stop_vms: Callable[[asyncio.Event], Awaitable[None]]
    reconcile: Callable[[DaemonReconcile], Awaitable[Reconciled]]
    judge: Callable[[Sequence[Operation]], Awaitable[Mapping[str, Resolution]]]
    attend: Callable[[Perform], None]
    log_level: str = "info"


OpenServices = Callable[[Paths], AbstractAsyncContextManager[Services]]
