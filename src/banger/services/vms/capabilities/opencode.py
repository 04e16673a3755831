"""opencode, a coding agent that some images serve on a port of the guest: whoever starts a VM may wait for it."""

from banger.base.problem import Code, Problem
from banger.base.progress import stage
from banger.model.config import Config
from banger.services.vms.capabilities.contract import Capability, Started

_WAIT_S = 120.0


class OpenCode(Capability):
    name = "opencode"

    def __init__(self, config: Config) -> None:
        self._wait = config.opencode.wait
        self._port = config.opencode.port

    async def started(self, started: Started) -> None:
        if not (self._wait or started.wants.opencode):
            return
        with stage(started.progress, "wait for opencode"):
            if not await started.agent.wait_port(self._port, timeout_s=_WAIT_S):
                raise Problem(
                    Code.UNAVAILABLE,
                    f"opencode does not listen on port {self._port} of {started.vm.name} after {_WAIT_S:.0f} s",
                    hint=f"banger vm exec {started.vm.name} -- opencode --version",
                )
