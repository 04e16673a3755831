"""Whether a VM is in use right now: what runs in it for somebody, and who is logged in by SSH. Owns no state."""

from collections.abc import Awaitable, Callable

from banger.model.vm import VmRecord


class GuestActivity:
    def __init__(
        self,
        is_at_work: Callable[[str], bool],
        count_connections: Callable[[VmRecord], Awaitable[int]],
    ) -> None:
        """`is_at_work` knows of commands and sessions. `count_connections` asks the guest for established connections
        to its sshd. Raises Problem."""
        self._is_at_work = is_at_work
        self._count_connections = count_connections

    async def is_busy(self, vm: VmRecord) -> bool:
        """A guest is asked only where the daemon does not know already."""
        return self._is_at_work(vm.id) or await self._count_connections(vm) > 0
