"""Which VMM and which root disk a VM gets, and what is said about it: before anything was tried, after it, of running
VMs and of others."""

import pytest
from daemon_harness import make_vm

from banger.base.problem import Code, Problem, unavailable
from banger.daemon.backends import Backends, Candidate, Trial
from banger.model.machine import DiskFormat
from banger.model.storage import StorageDriver
from banger.model.vm import NetworkMode, VmRuntime, VmState, derive_jail_uid
from banger.services.hostnet.contract import Standing
from banger.storage.choose import Storage
from banger.vmm.contract import Capability

BRIDGE = Standing(NetworkMode.BRIDGE, "br-banger, no NAT")
USER = Standing(NetworkMode.USER, "no root helper is installed", "sudo banger system install")
NO_KVM = unavailable("Firecracker needs KVM: no /dev/kvm", hint="banger doctor")
QEMU = {Capability.USER_NETWORK, Capability.POWER_OFF, Capability.QCOW2_DISKS}
FIRECRACKER = {Capability.HARDWARE}
JAIL = {Capability.JAIL, Capability.SNAPSHOT_DISKS}


class Networks:
    def __init__(self, standing):
        self._standing = standing

    async def settle(self):
        return self._standing

    def explain(self, vm):
        return self._standing


class Driver:
    def __init__(self, name, format_, problem=None):
        self.name = name
        self.format = format_
        self.problem = problem

    async def probe(self):
        if self.problem:
            raise self.problem


class Vmm:
    """`found` are capabilities, or why there are none."""

    def __init__(self, name, found):
        self.name = name
        self.found = found

    async def capabilities(self):
        if isinstance(self.found, Problem):
            raise self.found
        return frozenset(self.found)


class Host:
    """What the VMMs and drivers of a host would say; change it between calls."""

    def __init__(
        self,
        *,
        firecracker=NO_KVM,
        qemu=None,
        network=BRIDGE,
        wanted="auto",
        storage="auto",
        unjailed="",
        kvm="no /dev/kvm",
    ):
        self.firecracker = Vmm("firecracker", firecracker)
        self.qemu = Vmm("qemu", QEMU if qemu is None else qemu)
        self.network = network
        self.drivers = {
            StorageDriver.SNAPSHOT: Driver(StorageDriver.SNAPSHOT, DiskFormat.SNAPSHOT),
            StorageDriver.QCOW2: Driver(StorageDriver.QCOW2, DiskFormat.QCOW2),
            StorageDriver.REFLINK: Driver(StorageDriver.REFLINK, DiskFormat.RAW, unavailable("no reflinks", hint="Btrfs")),
            StorageDriver.COPY: Driver(StorageDriver.COPY, DiskFormat.RAW),
        }  # fmt: skip

        async def try_firecracker():
            await self.firecracker.capabilities()
            return Trial("Firecracker 1.12.1 at /fc", "")

        async def try_qemu():
            return Trial(
                "QEMU 7.2 at /qemu", "" if Capability.HARDWARE in await self.qemu.capabilities() else kvm
            )

        candidates = (
            Candidate(self.firecracker, "Firecracker", frozenset({DiskFormat.RAW, DiskFormat.SNAPSHOT}), unjailed, try_firecracker),
            Candidate(self.qemu, "QEMU", frozenset({DiskFormat.RAW, DiskFormat.QCOW2}), "", try_qemu),
        )  # fmt: skip
        self.storage = Storage(storage, self.drivers.values())
        self.backends = Backends(wanted, candidates, self.storage, Networks(network))

    async def driver(self):
        return (await self.backends.choose_driver(self.network)).name

    async def vmm(self, driver=StorageDriver.QCOW2):
        return (await self.backends.choose(make_vm(root_driver=driver), self.network)).name

    async def refusal(self, driver=None):
        with pytest.raises(Problem) as caught:
            await (self.driver() if driver is None else self.vmm(driver))
        assert caught.value.code in {Code.UNAVAILABLE, Code.BAD_REQUEST}
        assert "\n" not in caught.value.brief
        assert caught.value.hint
        return caught.value.brief, caught.value.hint

    async def posture(self, vm=None):
        await self.backends.learn()
        return self.backends.explain(vm or make_vm())


def running(accelerator="tcg", backend="qemu", jail="", driver=StorageDriver.QCOW2):
    runtime = VmRuntime(
        backend=backend, pid=1, start_time=1, agent_socket="", control_socket="", accelerator=accelerator,
        memory="/dev/shm", jail=jail,
    )  # fmt: skip
    return make_vm(state=VmState.RUNNING, runtime=runtime, root_driver=driver)


# What a new VM gets


@pytest.mark.parametrize(
    ("host", "driver", "vmm"),
    [
        (Host(firecracker=FIRECRACKER | JAIL), StorageDriver.SNAPSHOT, "firecracker"),
        (Host(firecracker=FIRECRACKER), StorageDriver.COPY, "firecracker"),
        (Host(), StorageDriver.QCOW2, "qemu"),
        (Host(firecracker=FIRECRACKER | JAIL, network=USER), StorageDriver.QCOW2, "qemu"),
        (Host(firecracker=FIRECRACKER | JAIL, wanted="qemu"), StorageDriver.QCOW2, "qemu"),
        (Host(firecracker=FIRECRACKER | JAIL, storage="qcow2"), StorageDriver.QCOW2, "qemu"),
        (Host(firecracker=FIRECRACKER | JAIL, storage="copy"), StorageDriver.COPY, "firecracker"),
        (Host(storage="copy"), StorageDriver.COPY, "qemu"),
        (Host(firecracker=FIRECRACKER | JAIL, wanted="firecracker"), StorageDriver.SNAPSHOT, "firecracker"),
    ],
)
async def test_a_new_vm_gets_the_best_that_works(host, driver, vmm):
    assert await host.driver() is driver
    assert await host.vmm(driver) == vmm
    assert await host.backends.choose_storage() is driver


async def test_a_jail_without_snapshots_shares_or_copies():
    host = Host(firecracker=FIRECRACKER | JAIL)
    host.drivers[StorageDriver.SNAPSHOT].problem = unavailable("no dm_snapshot", hint="modprobe")
    assert await host.driver() is StorageDriver.COPY
    host.drivers[StorageDriver.REFLINK].problem = None
    assert await host.driver() is StorageDriver.REFLINK


async def test_what_was_named_and_cannot_work_is_refused_with_reason_and_hint():
    assert await Host(storage="reflink").refusal() == ("no reflinks", "Btrfs")
    brief, hint = await Host(storage="dm-snapshot").refusal()
    assert brief == 'storage_driver = "dm-snapshot" needs Firecracker: Firecracker needs KVM: no /dev/kvm'
    assert hint == "banger doctor"
    brief, _ = await Host(storage="dm-snapshot", wanted="qemu").refusal()
    assert 'the configuration says vmm = "qemu"' in brief
    brief, _ = await Host(
        firecracker=FIRECRACKER, storage="dm-snapshot", unjailed="jailer_enabled = false"
    ).refusal()
    assert "without a jail: jailer_enabled = false" in brief
    brief, hint = await Host(firecracker=FIRECRACKER | JAIL, wanted="firecracker", network=USER).refusal()
    assert brief == "Firecracker needs the bridge: no root helper is installed"
    assert hint == "sudo banger system install"
    assert (await Host(wanted="firecracker").refusal())[0] == NO_KVM.brief


async def test_where_no_vmm_runs_the_one_that_needs_least_says_why():
    missing = unavailable("QEMU is not installed", hint="apt")
    brief, hint = await Host(qemu=missing).refusal()
    assert (brief, hint) == ("no VMM can run on this host: QEMU is not installed", "apt")


# What a VM that exists gets


async def test_a_vm_whose_vmm_cannot_be_had_any_more_is_refused_in_one_line():
    brief, _ = await Host().refusal(StorageDriver.SNAPSHOT)
    assert brief == "web (root disk: dm-snapshot) needs Firecracker: Firecracker needs KVM: no /dev/kvm"
    brief, hint = await Host(qemu=unavailable("QEMU is not installed", hint="apt")).refusal(
        StorageDriver.QCOW2
    )
    assert (brief, hint) == ("web (root disk: qcow2) needs QEMU: QEMU is not installed", "apt")
    brief, hint = await Host(wanted="firecracker", firecracker=FIRECRACKER).refusal(StorageDriver.QCOW2)
    assert brief == 'web (root disk: qcow2) needs QEMU, and the configuration says vmm = "firecracker"'
    assert "auto" in hint
    host = Host(firecracker=FIRECRACKER | JAIL, network=USER)
    brief, hint = await host.refusal(StorageDriver.SNAPSHOT)
    assert "Firecracker needs the bridge: no root helper is installed" in brief
    assert hint == "sudo banger system install"


async def test_a_whole_file_goes_wherever_there_is_a_vmm():
    host = Host(firecracker=FIRECRACKER)
    assert await host.vmm(StorageDriver.COPY) == "firecracker"
    host.firecracker.found = NO_KVM
    assert await host.vmm(StorageDriver.COPY) == "qemu"


# What is said


async def test_after_a_restart_the_reason_is_known_without_a_start():
    posture = await Host().posture(running("tcg"))
    assert (posture.backend, posture.accelerator, posture.accelerator_reason) == (
        "qemu",
        "tcg",
        "no /dev/kvm",
    )
    assert posture.memory_backing == "/dev/shm"
    assert posture.storage_driver == "qcow2 root disk, raw work disk"


async def test_it_is_told_why_it_is_not_firecracker():
    new = make_vm(root_driver=StorageDriver.COPY)
    assert (await Host().posture(new)).backend_reason == NO_KVM.brief
    helpless = Host(firecracker=unavailable("no root helper is installed", hint="install"))
    assert (await helpless.posture(new)).backend_reason == "no Firecracker: no root helper is installed"
    able = Host(firecracker=FIRECRACKER | JAIL)
    assert (await able.posture(new)).backend_reason == ""
    reason = (await able.posture(make_vm())).backend_reason
    assert reason == "Firecracker cannot read a root disk on qcow2"
    reason = (await able.posture(running(driver=StorageDriver.COPY))).backend_reason
    assert reason == "it was started before Firecracker could be used: banger vm restart web"
    reason = (await Host(firecracker=FIRECRACKER, network=USER).posture(new)).backend_reason
    assert reason == "Firecracker needs the bridge"
    reason = (await Host(firecracker=FIRECRACKER, wanted="qemu").posture(new)).backend_reason
    assert reason == 'the configuration says vmm = "qemu"'


async def test_of_a_stopped_vm_it_is_what_would_be_chosen_now():
    posture = await Host(qemu=QEMU | {Capability.HARDWARE}).posture()
    assert (posture.backend, posture.accelerator, posture.accelerator_reason) == ("qemu", "kvm", "")
    posture = await Host(firecracker=FIRECRACKER | JAIL).posture(make_vm(root_driver=StorageDriver.SNAPSHOT))
    assert (posture.backend, posture.accelerator, posture.accelerator_reason) == ("firecracker", "kvm", "")


async def test_hardware_needs_no_reason_and_what_is_weaker_than_it_could_be_has_one():
    host = Host(qemu=QEMU | {Capability.HARDWARE})
    assert (await host.posture(running("kvm"))).accelerator_reason == ""
    assert "banger vm restart web" in (await host.posture(running("tcg"))).accelerator_reason


def test_before_anything_was_learned_nothing_is_claimed():
    backends = Host().backends
    for vm, expected in ((make_vm(), ("", "", "", "", "")), (running("tcg"), ("qemu", "", "tcg", ""))):
        posture = backends.explain(vm)
        said = (posture.backend, posture.backend_reason, posture.accelerator, posture.accelerator_reason)
        assert said == expected[:4]


async def test_where_no_vmm_runs_the_reason_is_told():
    host = Host(qemu=unavailable("QEMU is not installed", hint="apt"))
    posture = await host.posture()
    assert (posture.backend, posture.accelerator, posture.backend_reason) == ("", "", "QEMU is not installed")
    assert posture.jail == ""
    assert await host.backends.try_vmm() == (
        False, "no VMM can run on this host: QEMU is not installed", "apt",
    )  # fmt: skip
    assert await host.backends.try_accelerator() is None


async def test_the_network_s_part_comes_from_the_network():
    posture = Host().backends.explain(make_vm())
    assert (posture.network_mode, posture.network_reason) == ("bridge", "br-banger, no NAT")


async def test_the_jail_is_named_or_the_reason_why_there_is_none():
    jailed = running("kvm", "firecracker", jail="0123456789ab", driver=StorageDriver.SNAPSHOT)
    host = Host(firecracker=FIRECRACKER | JAIL)
    assert (await host.posture(jailed)).jail.startswith(f"own uid {derive_jail_uid(jailed.id)}, ")
    assert (await host.posture(make_vm(root_driver=StorageDriver.COPY))).jail.startswith("own uid")
    free = running("kvm", "firecracker", driver=StorageDriver.COPY)
    host = Host(firecracker=FIRECRACKER, unjailed="jailer_enabled = false")
    assert (await host.posture(free)).jail.endswith("jailer_enabled = false")
    assert (await host.posture(running())).jail.startswith("none, QEMU has uid")


async def test_the_doctor_hears_of_what_a_vm_would_get():
    host = Host(firecracker=FIRECRACKER | JAIL)
    assert await host.backends.try_vmm() == (True, "Firecracker 1.12.1 at /fc", None)
    assert await host.backends.try_accelerator() == (True, "a probe guest ran on KVM", None)
    assert await host.backends.try_firecracker() == (True, "Firecracker 1.12.1 at /fc, jailed", None)
    host = Host()
    assert await host.backends.try_vmm() == (True, "QEMU 7.2 at /qemu", None)
    assert await host.backends.try_accelerator() == (False, "no /dev/kvm", None)
    assert await host.backends.try_firecracker() == (False, NO_KVM.brief, NO_KVM.hint)
    host = Host(firecracker=FIRECRACKER, network=USER)
    assert (await host.backends.try_firecracker()).text.startswith("Firecracker needs the bridge")


def test_each_vm_has_a_uid_of_a_range_of_its_own():
    assert derive_jail_uid("0123456789ab") == 0x70000000 + 0x0123456789AB % 0xFFE0000
    assert derive_jail_uid(f"{0xFFE0000 - 1:012x}") == 0x7FFDFFFF
