"""What a guest has on the bridge, as long as an `async with` block lasts.

Owns the undo of every step that was taken. Leaving finishes it, whoever is cancelled meanwhile.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from banger.base.tasks import Supervisor
from banger.services.hostnet.contract import Lease

Enter = Callable[[AsyncExitStack], Awaitable[Lease]]


class BridgeLease:
    """`enter` takes the steps and pushes the undo of each.

    No generator, for the reason that `TapLease` is none.
    """

    def __init__(self, enter: Enter, vm_id: str, tasks: Supervisor) -> None:
        self._enter = enter
        self._vm_id = vm_id
        self._tasks = tasks
        self._undo = AsyncExitStack()

    async def __aenter__(self) -> Lease:
        try:
            return await self._enter(self._undo)
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.finish(self._undo.aclose(), name=f"release what {self._vm_id} has on the bridge")
