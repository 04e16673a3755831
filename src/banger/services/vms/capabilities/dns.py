"""Names: the guest's resolver, its own address included. Its name on the host comes and goes with its lease."""

import msgspec

from banger.guest.bootconfig import BootConfig
from banger.services.vms.capabilities.contract import Capability, GuestBoot


class Dns(Capability):
    name = "DNS"

    def guest(self, boot: GuestBoot, config: BootConfig) -> BootConfig:
        return msgspec.structs.replace(config, dns=(boot.lease.dns,))
