"""The channel of the guest's agent: the machine's part of it and the guest's."""

import msgspec

from banger.guest.bootconfig import BootConfig
from banger.model.machine import Machine
from banger.model.vm import VmRecord
from banger.services.vms.capabilities.contract import Capability, GuestBoot
from banger.services.vms.layout import Layout

PORT_NAME = "banger.agent"


class AgentChannel(Capability):
    name = "agent"

    def machine(self, vm: VmRecord, layout: Layout, machine: Machine) -> Machine:
        return msgspec.structs.replace(machine, agent_channel=PORT_NAME)

    def guest(self, boot: GuestBoot, config: BootConfig) -> BootConfig:
        return msgspec.structs.replace(config, channel=boot.view.channels)
