"""Which VMM boots a VM here, and what a VM runs on and why, in words for people.

Owns what was learned of this host, so that `explain` need not wait. The VMM itself comes from wiring and is known
by its contract only. Firecracker will stand beside QEMU here.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from banger.api.vm import Posture
from banger.base.problem import Problem
from banger.model.vm import LIVE, VmRecord
from banger.services.checks.contract import Verdict
from banger.services.hostnet.contract import Standing
from banger.vmm.choose import choose_vmm
from banger.vmm.contract import Capability, Vmm

_HARDWARE, _EMULATION = "kvm", "tcg"


class Trial(Protocol):
    """What a trial of the VMM on this host has found."""

    @property
    def qemu(self) -> str: ...

    @property
    def qemu_version(self) -> str: ...

    @property
    def kvm_reason(self) -> str: ...


class TriedVmm(Vmm, Protocol):
    """A VMM that can say what it found on this host. Raises `unavailable` where it cannot run at all."""

    async def probe(self) -> Trial: ...


class _Learned(NamedTuple):
    """What would be chosen now; no backend where none can run, and the reason for that."""

    backend: str = ""
    accelerator: str = ""
    reason: str = ""


class Backends:
    def __init__(self, wanted: str, qemu: TriedVmm, explain_network: Callable[[VmRecord], Standing]) -> None:
        self._wanted = wanted
        self._qemu = qemu
        self._explain_network = explain_network
        self._learned = _Learned()

    async def choose(self) -> Vmm:
        vmm = await choose_vmm(self._wanted, {self._qemu.name: self._qemu})
        await self.learn()
        return vmm

    def by_name(self, name: str) -> Vmm:
        assert name == self._qemu.name, name
        return self._qemu

    async def learn(self) -> None:
        """Has the host tried (once; the verdict is remembered). Who cannot run anything learns the reason."""
        try:
            hardware = Capability.HARDWARE in await self._qemu.capabilities()
            reason = (await self._qemu.probe()).kvm_reason
        except Problem as problem:
            self._learned = _Learned(reason=problem.brief)
        else:
            accelerator = _HARDWARE if hardware else _EMULATION
            self._learned = _Learned(self._qemu.name, accelerator, "" if hardware else reason)

    def explain(self, vm: VmRecord) -> Posture:
        """Of a VM that does not run, backend and accelerator are those that it would get now."""
        runtime = vm.runtime if vm.state in LIVE else None
        backend, accelerator, reason = self._learned
        if runtime is not None:
            if accelerator == _HARDWARE:
                reason = f"it was started before KVM could be used: banger vm restart {vm.name}"
            backend, accelerator = runtime.backend, runtime.accelerator
        network = self._explain_network(vm)
        return Posture(
            backend=backend,
            accelerator=accelerator,
            accelerator_reason="" if accelerator == _HARDWARE else reason,
            network_mode=network.mode.value,
            network_reason=network.reason,
            storage_driver="qcow2 overlay, raw work disk",
            memory_backing=runtime.memory if runtime else "",
        )

    async def try_vmm(self) -> Verdict:
        try:
            trial = await self._qemu.probe()
        except Problem as problem:
            return Verdict(False, problem.brief, problem.hint)
        return Verdict(True, f"QEMU {trial.qemu_version} at {trial.qemu}")

    async def try_accelerator(self) -> Verdict | None:
        """None where there is no VMM to try it with."""
        try:
            hardware = Capability.HARDWARE in await self._qemu.capabilities()
            reason = (await self._qemu.probe()).kvm_reason
        except Problem:
            return None
        return Verdict(hardware, "a probe guest ran on KVM" if hardware else reason)
