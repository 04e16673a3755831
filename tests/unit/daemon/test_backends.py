"""What is said about a VM's back end: before anything was tried, after it, of running VMs and of others."""

from types import SimpleNamespace

from daemon_harness import make_vm

from banger.base.problem import unavailable
from banger.daemon.backends import Backends
from banger.model.vm import NetworkMode, VmRuntime, VmState
from banger.services.hostnet.contract import Standing
from banger.vmm.contract import Capability


def explain_network(vm):
    return Standing(NetworkMode.BRIDGE, "br-banger, no NAT")


class FakeQemu:
    name = "qemu"

    def __init__(self, obstacle="", failure=None):
        self.obstacle = obstacle
        self.failure = failure

    async def capabilities(self):
        if self.failure:
            raise self.failure
        return frozenset() if self.obstacle else frozenset({Capability.HARDWARE})

    async def probe(self):
        if self.failure:
            raise self.failure
        return SimpleNamespace(qemu="/bin/qemu", qemu_version="7.2", kvm_reason=self.obstacle)


def running(accelerator):
    runtime = VmRuntime(
        backend="qemu", pid=1, start_time=1, agent_socket="", control_socket="", accelerator=accelerator,
        memory="/dev/shm",
    )  # fmt: skip
    return make_vm(state=VmState.RUNNING, runtime=runtime)


def runs_on(backends, vm):
    posture = backends.explain(vm)
    return posture.backend, posture.accelerator, posture.accelerator_reason


async def test_after_a_restart_the_reason_is_known_without_a_start():
    backends = Backends("auto", FakeQemu("no /dev/kvm"), explain_network)
    await backends.learn()
    assert runs_on(backends, running("tcg")) == ("qemu", "tcg", "no /dev/kvm")
    assert backends.explain(running("tcg")).memory_backing == "/dev/shm"


async def test_of_a_stopped_vm_it_is_what_would_be_chosen_now():
    backends = Backends("auto", FakeQemu("no /dev/kvm"), explain_network)
    await backends.learn()
    assert runs_on(backends, make_vm()) == ("qemu", "tcg", "no /dev/kvm")
    backends = Backends("auto", FakeQemu(), explain_network)
    assert await backends.choose() is backends.by_name("qemu")
    assert runs_on(backends, make_vm()) == ("qemu", "kvm", "")


async def test_hardware_needs_no_reason_and_what_is_weaker_than_it_could_be_has_one():
    backends = Backends("auto", FakeQemu(), explain_network)
    await backends.learn()
    assert runs_on(backends, running("kvm")) == ("qemu", "kvm", "")
    assert "banger vm restart web" in runs_on(backends, running("tcg"))[2]


async def test_before_anything_was_learned_nothing_is_claimed():
    backends = Backends("auto", FakeQemu(), explain_network)
    assert runs_on(backends, make_vm()) == ("", "", "")
    assert runs_on(backends, running("tcg")) == ("qemu", "tcg", "")


async def test_where_no_vmm_runs_the_reason_is_told():
    backends = Backends(
        "auto", FakeQemu(failure=unavailable("QEMU is not installed", hint="apt")), explain_network
    )
    await backends.learn()
    assert runs_on(backends, make_vm()) == ("", "", "QEMU is not installed")
    assert await backends.try_vmm() == (False, "QEMU is not installed", "apt")


async def test_the_network_s_part_comes_from_the_network():
    posture = Backends("auto", FakeQemu(), explain_network).explain(make_vm())
    assert (posture.network_mode, posture.network_reason) == ("bridge", "br-banger, no NAT")
