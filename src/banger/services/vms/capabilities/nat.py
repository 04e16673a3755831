"""The way out of a guest, changed while it runs where that can be done. A start asks for it with its place on the
network."""

from banger.base.problem import conflict
from banger.model.vm import LIVE, NetworkMode, VmRecord, VmSpec
from banger.services.hostnet.service import HostNetwork
from banger.services.vms.capabilities.contract import Capability


class Nat(Capability):
    name = "NAT"

    def __init__(self, networks: HostNetwork) -> None:
        self._networks = networks

    async def change(self, vm: VmRecord, after: VmSpec) -> None:
        """Of a VM that runs on the bridge, at once. QEMU's user network cannot be changed while it runs."""
        if vm.state not in LIVE or vm.runtime is None or after.nat == vm.spec.nat:
            return
        if vm.runtime.network_mode is NetworkMode.USER:
            raise conflict(
                f"NAT of {vm.name} cannot be changed while it runs in user mode",
                hint=f"banger vm stop {vm.name}, then set and start it",
            )
        await self._networks.set_nat(vm, after.nat)
