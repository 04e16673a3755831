"""Which method is served by what: the table that dispatch checks against `api.registry`. No adapters here."""

from typing import Any

from banger.daemon.completion import Completion
from banger.daemon.contract import OperationHandler
from banger.daemon.material_calls import MaterialCalls
from banger.services.access.service import AccessService
from banger.services.agents.service import AgentService
from banger.services.checks.service import CheckService
from banger.services.disk.service import DiskService
from banger.services.sessions.service import SessionService
from banger.services.tooling.service import ToolingService
from banger.services.transfer.service import TransferService
from banger.services.usage.service import UsageService
from banger.services.vms.service import VmService
from banger.services.workspaces.outgoing import OutgoingService
from banger.services.workspaces.service import WorkspaceService


def make_handlers(
    vms: VmService,
    material: MaterialCalls,
    checks: CheckService,
    completion: Completion,
    usage: UsageService,
    disk: DiskService,
    access: AccessService,
    agents: AgentService,
    sessions: SessionService,
    transfer: TransferService,
    workspaces: WorkspaceService,
    outgoing: OutgoingService,
    tooling: ToolingService,
) -> dict[str, Any]:
    return {
        "vm.list": vms.list_vms,
        "vm.show": vms.show,
        "vm.logs": vms.logs,
        "vm.create": OperationHandler(vms.create, vms.subject_of_create),
        "vm.start": OperationHandler(vms.start, vms.subject),
        "vm.stop": OperationHandler(vms.stop, vms.subject),
        "vm.restart": OperationHandler(vms.restart, vms.subject),
        "vm.kill": OperationHandler(vms.kill, vms.subject),
        "vm.delete": OperationHandler(vms.delete, vms.subject),
        "vm.set": vms.set,
        "vm.rename": vms.rename,
        "vm.publish": vms.publish,
        "vm.unpublish": vms.unpublish,
        "vm.prune": vms.prune,
        "vm.stats": usage.stats,
        "vm.ports": usage.ports,
        "vm.health": usage.health,
        "vm.ssh": vms.ssh,
        "vm.exec": vms.execute,
        "vm.put": transfer.put,
        "vm.get": transfer.get,
        "ssh.settings": access.show_settings,
        "agent.list": agents.list_agents,
        "agent.show": agents.show,
        "agent.prepare": OperationHandler(agents.prepare, agents.subject),
        "agent.wait": OperationHandler(agents.wait, agents.subject),
        "session.start": sessions.start,
        "session.list": sessions.list_sessions,
        "session.show": sessions.show,
        "session.attach": sessions.attach,
        "session.logs": sessions.logs,
        "session.send": sessions.send,
        "session.resize": sessions.resize,
        "session.stop": sessions.stop,
        "session.kill": sessions.kill,
        "session.remove": sessions.remove,
        "workspace.plan": workspaces.plan,
        "workspace.prepare": OperationHandler(workspaces.prepare, workspaces.subject),
        "workspace.status": workspaces.status,
        "workspace.export": outgoing.export,
        "workspace.diff": outgoing.diff,
        "workspace.pull": OperationHandler(outgoing.pull, outgoing.subject),
        "tooling.plan": tooling.plan,
        "tooling.install": OperationHandler(tooling.install, tooling.subject),
        "image.list": material.list_images,
        "image.show": material.show_image,
        "image.build": OperationHandler(material.build_image, material.subject_of_build),
        "image.delete": material.delete_image,
        "kernel.list": material.list_kernels,
        "kernel.show": material.show_kernel,
        "kernel.pull": OperationHandler(material.pull_kernel, lambda request: request.kernel),
        "kernel.delete": material.delete_kernel,
        "disk.usage": disk.show_usage,
        "doctor.run": checks.run,
        "complete": completion.complete,
    }
