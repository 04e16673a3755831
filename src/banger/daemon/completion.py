"""Words for the shell: the names that a command line may go on with."""

from collections.abc import Sequence

from banger.api.system import Complete, Completions
from banger.base.problem import bad_request
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService
from banger.store.contract import Store


class Completion:
    def __init__(
        self, store: Store, images: ImageService, kernels: KernelService, agents: Sequence[str]
    ) -> None:
        self._store, self._images, self._kernels = store, images, kernels
        self._agents = agents

    async def complete(self, request: Complete) -> Completions:
        match request.what:
            case "vm":
                words = [vm.name for vm in self._store.vms.list()]
            case "image":
                words = [image.name for image in await self._images.list_images()]
            case "kernel":
                words = [kernel.name for kernel in await self._kernels.list_kernels()]
            case "operation":
                words = [operation.id for operation in self._store.operations.list(50)]
            case "session":
                words = self._list_sessions()
            case "agent":
                words = list(self._agents)
            case other:
                raise bad_request(f"{other!r} has no names to complete")
        return Completions(words=words)

    def _list_sessions(self) -> list[str]:
        names = {vm.id: vm.name for vm in self._store.vms.list()}
        sessions = self._store.sessions.list()
        return [f"{names[each.vm_id]}/{each.name}" for each in sessions if each.vm_id in names]
