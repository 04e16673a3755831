"""Which VMM boots a VM here and what its root disk is, and what a VM runs on and why, in words for people.

Owns what was learned of this host, so that `explain` need not wait. The VMMs come from wiring and are known by their
contract only, in order of preference; the last one needs least of a host.
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from banger.api.vm import Posture
from banger.base.problem import Problem, unavailable
from banger.model.machine import DiskFormat
from banger.model.storage import StorageDriver
from banger.model.vm import LIVE, NetworkMode, VmRecord, VmRuntime, derive_jail_uid
from banger.services.checks.contract import Verdict
from banger.services.hostnet.contract import Standing
from banger.storage.choose import Storage
from banger.storage.contract import RootDriver
from banger.vmm.choose import AUTO, choose_vmm
from banger.vmm.contract import Capability, Vmm

_HARDWARE, _EMULATION = "kvm", "tcg"
_NEEDED = {DiskFormat.QCOW2: Capability.QCOW2_DISKS, DiskFormat.SNAPSHOT: Capability.SNAPSHOT_DISKS}


class Trial(NamedTuple):
    """What a trial of a VMM has found: which program, in words, and why guests have no KVM (empty: they have)."""

    program: str
    kvm_reason: str


class Candidate(NamedTuple):
    """A VMM and what is known of it without trying: its name for people, the formats that it may ever read, and why
    it has no jail. `probe` raises `unavailable` where it cannot run at all."""

    vmm: Vmm
    title: str
    formats: frozenset[DiskFormat]
    unjailed: str
    probe: Callable[[], Awaitable[Trial]]


class Networks(Protocol):
    async def settle(self) -> Standing: ...

    def explain(self, vm: VmRecord) -> Standing: ...


class _Found(NamedTuple):
    """One trial of one VMM."""

    capabilities: frozenset[Capability] = frozenset()
    kvm_reason: str = ""
    problem: Problem | None = None


class Backends:
    def __init__(
        self, wanted: str, candidates: Sequence[Candidate], storage: Storage, networks: Networks
    ) -> None:
        self._wanted = wanted
        self._candidates = {candidate.vmm.name: candidate for candidate in candidates}
        self._storage = storage
        self._networks = networks
        self._found: dict[str, _Found] = {}

    # Choosing

    async def choose_driver(self, network: Standing) -> RootDriver:
        named = self._storage.find_wanted()
        subject = f'storage_driver = "{named.name.value}"' if named else ""
        vmm = await self._select(named, subject, network)
        return await self._storage.choose(_formats(await vmm.capabilities()))

    async def choose(self, vm: VmRecord, network: Standing) -> Vmm:
        driver = self._storage.get(vm.root_driver)
        vmm = await self._select(driver, f"{vm.name} (root disk: {driver.name.value})", network)
        await self._learn(self._candidates[vmm.name])
        return vmm

    async def _select(self, driver: RootDriver | None, subject: str, network: Standing) -> Vmm:
        """`subject` is what has this driver, for the text of a refusal."""
        able = [each for each in self._candidates.values() if driver is None or driver.format in each.formats]
        titles = " or ".join(each.title for each in able)
        if self._wanted != AUTO and self._wanted not in {each.vmm.name for each in able}:
            raise unavailable(
                f'{subject} needs {titles}, and the configuration says vmm = "{self._wanted}"',
                hint='set vmm = "auto" in config.toml',
            )
        try:
            return await choose_vmm(
                self._wanted,
                {each.vmm.name: each.vmm for each in able},
                lambda vmm, capabilities: _find_misfit(
                    self._candidates[vmm.name], capabilities, driver, network
                ),
            )
        except Problem as problem:
            if len(able) == len(self._candidates):
                raise
            raise unavailable(
                f"{subject} needs {titles}: {problem.brief}", hint=problem.hint, detail=problem.detail
            ) from problem

    def by_name(self, name: str) -> Vmm:
        return self._candidates[name].vmm

    def list(self) -> Sequence[Vmm]:
        return [candidate.vmm for candidate in self._candidates.values()]

    # Learning

    async def learn(self) -> None:
        """Has the host tried (once; the VMMs remember). Who cannot run anything learns the reason."""
        for candidate in self._candidates.values():
            await self._learn(candidate)

    async def _learn(self, candidate: Candidate) -> None:
        try:
            capabilities = await candidate.vmm.capabilities()
            found = _Found(capabilities, (await candidate.probe()).kvm_reason)
        except Problem as problem:
            found = _Found(problem=problem)
        self._found[candidate.vmm.name] = found

    # Explaining

    def explain(self, vm: VmRecord) -> Posture:
        """Of a VM that does not run, it is what it would get now."""
        network = self._networks.explain(vm)
        obstacles = self._find_obstacles(vm, network)
        runtime = vm.runtime if vm.state in LIVE else None
        backend = runtime.backend if runtime else self._predict(obstacles)
        found = self._found.get(backend, _Found())
        accelerator = runtime.accelerator if runtime else _accelerator(found)
        return Posture(
            backend=backend,
            backend_reason=self._explain_backend(vm, backend, obstacles),
            accelerator=accelerator if backend else "",
            accelerator_reason=_explain_accelerator(vm, accelerator, found) if backend else "",
            network_mode=network.mode.value,
            network_reason=network.reason,
            storage_driver=f"{vm.root_driver.value} root disk, raw work disk",
            memory_backing=runtime.memory if runtime else "",
            jail=self._explain_jail(vm, backend, found, runtime),
        )

    def _find_obstacles(self, vm: VmRecord, network: Standing) -> dict[str, str]:
        """Why each VMM that was tried would not boot the VM now; empty for one that would."""
        driver = self._storage.get(vm.root_driver)
        known = Standing(network.mode, "")  # the reason stands with the network
        obstacles: dict[str, str] = {}
        for name, found in self._found.items():
            problem = found.problem or _find_misfit(self._candidates[name], found.capabilities, driver, known)
            obstacles[name] = problem.brief if problem else ""
        return obstacles

    def _predict(self, obstacles: dict[str, str]) -> str:
        wanted = self._candidates if self._wanted == AUTO else (self._wanted,)
        return next((name for name in wanted if obstacles.get(name) == ""), "")

    def _explain_backend(self, vm: VmRecord, backend: str, obstacles: dict[str, str]) -> str:
        """Why it is not the VMM that is preferred; where there is none, the reason of the last."""
        if not backend:
            last = tuple(self._candidates)[-1] if self._wanted == AUTO else self._wanted
            return obstacles.get(last, "")
        preferred = next(iter(self._candidates))
        if backend == preferred or preferred not in obstacles:
            return ""
        if self._wanted == backend:
            return f'the configuration says vmm = "{backend}"'
        title = self._candidates[preferred].title
        if not (obstacle := obstacles[preferred]):
            return f"it was started before {title} could be used: banger vm restart {vm.name}"
        return obstacle if title in obstacle else f"no {title}: {obstacle}"

    def _explain_jail(self, vm: VmRecord, backend: str, found: _Found, runtime: VmRuntime | None) -> str:
        if not backend:
            return ""
        if runtime.jail if runtime else Capability.JAIL in found.capabilities:
            return f"own uid {derive_jail_uid(vm.id)}, root directory, cgroup and seccomp filter"
        candidate = self._candidates[backend]
        reason = f": {candidate.unjailed}" if candidate.unjailed else ""
        return f"none, {candidate.title} has uid {os.getuid()} and a seccomp filter{reason}"

    # Trying, for the doctor

    async def try_vmm(self) -> Verdict:
        """The one that a new VM would get."""
        try:
            vmm = await self._select(None, "", await self._networks.settle())
            return Verdict(True, (await self._candidates[vmm.name].probe()).program)
        except Problem as problem:
            return Verdict(False, problem.brief, problem.hint)

    async def try_accelerator(self) -> Verdict | None:
        """None where there is no VMM to try it with."""
        try:
            vmm = await self._select(None, "", await self._networks.settle())
            hardware = Capability.HARDWARE in await vmm.capabilities()
            reason = (await self._candidates[vmm.name].probe()).kvm_reason
        except Problem:
            return None
        return Verdict(hardware, "a probe guest ran on KVM" if hardware else reason)

    async def try_firecracker(self) -> Verdict:
        """Whether the VMM that is preferred can start a VM here."""
        candidate = next(iter(self._candidates.values()))
        try:
            capabilities = await candidate.vmm.capabilities()
            misfit = _find_misfit(candidate, capabilities, None, await self._networks.settle())
            if misfit is not None:
                raise misfit
            jailed = "jailed" if Capability.JAIL in capabilities else "unjailed"
            return Verdict(True, f"{(await candidate.probe()).program}, {jailed}")
        except Problem as problem:
            return Verdict(False, problem.brief, problem.hint)

    async def choose_storage(self) -> StorageDriver:
        """Of a VM that is created now. Raises Problem."""
        return (await self.choose_driver(await self._networks.settle())).name


def _find_misfit(
    candidate: Candidate,
    capabilities: frozenset[Capability],
    driver: RootDriver | None,
    network: Standing,
) -> Problem | None:
    """Why one that can run does not suit this network or this root disk."""
    if network.mode is NetworkMode.USER and Capability.USER_NETWORK not in capabilities:
        reason = f": {network.reason}" if network.reason else ""
        return unavailable(f"{candidate.title} needs the bridge{reason}", hint=network.hint or None)
    if driver is None or driver.format in _formats(capabilities):
        return None
    reason = f" without a jail: {candidate.unjailed}" if candidate.unjailed else ""
    return unavailable(
        f"{candidate.title} cannot read a root disk on {driver.name.value}{reason}", hint="banger doctor"
    )


def _formats(capabilities: frozenset[Capability]) -> frozenset[DiskFormat]:
    """What a VMM with these reads."""
    return frozenset(
        format_ for format_ in DiskFormat if format_ not in _NEEDED or _NEEDED[format_] in capabilities
    )


def _accelerator(found: _Found) -> str:
    return _HARDWARE if Capability.HARDWARE in found.capabilities else _EMULATION


def _explain_accelerator(vm: VmRecord, accelerator: str, found: _Found) -> str:
    if accelerator == _HARDWARE:
        return ""
    if Capability.HARDWARE in found.capabilities:
        return f"it was started before KVM could be used: banger vm restart {vm.name}"
    return found.problem.brief if found.problem else found.kvm_reason
