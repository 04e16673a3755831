"""Whether a VM is in use right now: what the daemon streams, and who is logged in by SSH. Owns no state."""

from collections.abc import Awaitable, Callable

from banger.model.vm import VmRecord


class GuestActivity:
    def __init__(
        self,
        is_streaming: Callable[[str], bool],
        count_connections: Callable[[VmRecord], Awaitable[int]],
    ) -> None:
        """`count_connections` asks the guest for established connections to its sshd. Raises Problem."""
        self._is_streaming = is_streaming
        self._count_connections = count_connections

    async def is_busy(self, vm: VmRecord) -> bool:
        """A guest is asked only where the daemon does not know already."""
        return self._is_streaming(vm.id) or await self._count_connections(vm) > 0
