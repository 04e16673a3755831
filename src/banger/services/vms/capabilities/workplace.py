"""Where commands begin in a VM that a repository was brought into, and through what they find their tools."""

import msgspec

from banger.guest.command import ExecRequest
from banger.model.vm import VmRecord
from banger.services.vms.capabilities.contract import Capability
from banger.store.contract import WorkspaceRepository


class Workplace(Capability):
    """Whoever names a directory, or a user who is not root, has a place of their own and gets none of this."""

    name = "workplace"

    def __init__(self, workspaces: WorkspaceRepository) -> None:
        self._workspaces = workspaces

    def command(self, vm: VmRecord, request: ExecRequest) -> ExecRequest:
        workspace = self._workspaces.find(vm.id)
        if workspace is None or request.cwd is not None or request.user not in (None, "root", "0"):
            return request
        return msgspec.structs.replace(
            request,
            cwd=workspace.directory,
            env=(*workspace.environment.items(), *request.env),
        )
