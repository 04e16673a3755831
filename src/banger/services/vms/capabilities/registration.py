"""All capabilities, in the order in which their hooks run. A new one is a module here and a line in the list below."""

from collections.abc import Callable, Mapping

from banger.model.config import Config
from banger.services.vms.capabilities.agent import AgentChannel
from banger.services.vms.capabilities.contract import Capability, Check
from banger.services.vms.capabilities.dns import Dns
from banger.services.vms.capabilities.file_sync import FileSync
from banger.services.vms.capabilities.git_identity import GitIdentity
from banger.services.vms.capabilities.nat import Nat
from banger.services.vms.capabilities.opencode import OpenCode
from banger.services.vms.capabilities.ssh import Ssh
from banger.services.vms.capabilities.work_disk import WorkDisk
from banger.services.vms.capabilities.workplace import Workplace
from banger.services.vms.surroundings import Surroundings

_REGISTERED: Mapping[type[Capability], Callable[[Surroundings], Capability]] = {
    AgentChannel: lambda around: AgentChannel(),
    WorkDisk: lambda around: WorkDisk(around.layouts),
    Nat: lambda around: Nat(around.networks),
    Dns: lambda around: Dns(),
    Ssh: lambda around: Ssh(around.owner_key),
    GitIdentity: lambda around: GitIdentity(around.config),
    FileSync: lambda around: FileSync(around.config),
    OpenCode: lambda around: OpenCode(around.config),
    Workplace: lambda around: Workplace(around.workspaces),
}


def make_capabilities(around: Surroundings) -> tuple[Capability, ...]:
    return tuple(make(around) for make in _REGISTERED.values())


def list_checks(config: Config) -> Mapping[str, Check]:
    """What the doctor looks at for them."""
    return {name: check for kind in _REGISTERED for name, check in kind.checks(config).items()}
