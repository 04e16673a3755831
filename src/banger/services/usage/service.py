"""What VMs use, serve and how they are: the handlers of `vm.stats`, `vm.ports` and `vm.health`.

Owns nothing but its sampler. Nothing here counts as activity of a VM (docs/reference/activity.md); what does, in the
guest, `count_connections` tells.
"""

import asyncio

import msgspec

from banger.api.usage import GuestHealth, GuestPorts, VmHealth, VmPorts, VmStats, VmUsage, VmUsages
from banger.base.problem import Problem, unavailable
from banger.model.vm import LIVE, VmRecord, require_running
from banger.network.user import SSH_PORT
from banger.services.usage.health import DEADLINE_S, ask_health, report_silence
from banger.services.usage.ports import describe_ports
from banger.services.usage.sampling import History, Sampler, Vms

_ANSWER_S = 5.0


class UsageService:
    def __init__(self, vms: Vms, sampler: Sampler) -> None:
        self._vms = vms
        self._sampler = sampler

    async def poll(self, interval_s: float) -> None:
        """For ever, so that the first `vm stats` has something to compare with."""
        await self._sampler.poll(interval_s)

    async def stats(self, request: VmStats) -> VmUsages:
        """Those named in the order of their names, once each; otherwise all that run."""
        if request.vms:
            wanted = list({vm.id: vm for vm in map(self._vms.resolve, request.vms)}.values())
        else:
            wanted = [vm for vm in self._vms.list_rows() if vm.state in LIVE]
        histories = await self._sampler.ensure_fresh(wanted)
        return VmUsages(vms=[await self._describe(vm, histories.get(vm.id)) for vm in wanted])

    async def ports(self, request: VmPorts) -> GuestPorts:
        vm = require_running(self._vms.resolve(request.vm))
        assert vm.runtime is not None
        try:
            async with asyncio.timeout(_ANSWER_S):
                listeners = await self._vms.get_agent(vm).ports()
        except TimeoutError as error:
            raise _silent(vm, _ANSWER_S) from error
        return GuestPorts(vm=vm.name, ports=await describe_ports(vm, vm.runtime, listeners))

    async def health(self, request: VmHealth) -> GuestHealth:
        """A guest that does not answer is no failure of ours: it is what was asked for."""
        vm = require_running(self._vms.resolve(request.vm))
        try:
            return await ask_health(vm.name, self._vms.get_agent(vm))
        except Problem as problem:
            return report_silence(vm.name, problem.brief)
        except TimeoutError:
            return report_silence(vm.name, _silent(vm, DEADLINE_S).brief)

    async def count_connections(self, vm: VmRecord) -> int:
        """Established TCP connections to the guest's sshd. Raises Problem when the guest does not tell: then nobody
        knows whether it is in use."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                usage = await self._vms.get_agent(vm).usage(port=SSH_PORT)
        except TimeoutError as error:
            raise _silent(vm, _ANSWER_S) from error
        return usage.connections or 0

    async def _describe(self, vm: VmRecord, history: History | None) -> VmUsage:
        """A VM that does not run uses its disks and nothing else."""
        known = VmUsage(
            id=vm.id, name=vm.name, state=vm.state, vcpus=vm.spec.vcpus, memory_mib=vm.spec.memory_mib
        )
        if history is None:
            disk_bytes = await asyncio.to_thread(self._sampler.measure_disks, vm)
            return msgspec.structs.replace(known, disk_bytes=disk_bytes)
        return msgspec.structs.replace(
            known,
            **history.last.counters._asdict(),
            cpu_percent=history.cpu_percent,
            disk_bytes=history.last.disk_bytes,
        )


def _silent(vm: VmRecord, seconds: float) -> Problem:
    return unavailable(
        f"the agent in {vm.name} does not answer within {seconds:g} s", hint=f"banger vm logs {vm.name}"
    )
