"""Operations that the daemon begins by itself: recorded, watched and cancelled like those of a caller."""

from collections.abc import Awaitable, Callable
from typing import Any

from banger.base.progress import Progress
from banger.daemon.dispatch import mint_operation_id
from banger.services.contract import Perform
from banger.services.operations.registry import Operations


def make_perform(operations: Operations) -> Perform:
    async def perform(kind: str, subject: str, work: Callable[[Progress], Awaitable[Any]]) -> None:
        running = operations.begin(mint_operation_id(), kind, subject, work)
        running.keep()
        await running.wait()

    return perform
