"""What the back end asks of root and makes of its answers, before any process begins."""

import msgspec
import pytest

from banger.base.problem import Code, Problem, unavailable
from banger.privileged.contract.base import Reply
from banger.privileged.contract.machines import Launched, MachineSupport
from banger.vmm.contract import Capability, Handle, Place
from banger.vmm.firecracker import backend, jailed, probe
from banger.vmm.firecracker.backend import FirecrackerVmm
from banger.vmm.firecracker.sockets import Sockets

WORKS = {
    "snapshot_reason": "",
    "snapshot_hint": "",
    "jail_reason": "",
    "jail_hint": "",
    "firecracker": "/usr/local/lib/banger/firecracker/1.12.1/firecracker",
    "firecracker_version": "1.12.1",
}


class ScriptedRoot:
    """`Privileged` that answers as told, one answer after the other, the last one again and again."""

    kind = "scripted"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []

    async def call(self, request, descriptors=()):
        self.calls.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Problem):
            raise answer
        return Reply(MachineSupport(**(WORKS | answer)))

    async def close(self):
        pass


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A host with a KVM and a program that root has found, which runs the trial guest."""
    program = tmp_path / "firecracker"
    program.touch(mode=0o755)
    (tmp_path / "kvm").touch()
    (tmp_path / "kvm_amd").touch()
    monkeypatch.setattr(probe, "_DEVICE", str(tmp_path / "kvm"))
    monkeypatch.setattr(probe, "_MODULES", (str(tmp_path / "kvm_amd"),))
    trials = []

    async def try_guest(path):
        trials.append(path)

    monkeypatch.setattr(probe, "_try_guest", try_guest)
    monkeypatch.setitem(WORKS, "firecracker", str(program))
    return trials


async def test_a_jail_that_works_is_a_capability_and_asked_for_once(host):
    root = ScriptedRoot({})
    vmm = FirecrackerVmm(jail=root)
    for _ in range(2):
        assert await vmm.capabilities() == {
            Capability.HARDWARE,
            Capability.PAUSE,
            Capability.JAIL,
            Capability.SNAPSHOT_DISKS,
        }
    assert [call.method for call in root.calls] == ["inspect_machines"]
    assert host == [WORKS["firecracker"]]
    assert (await vmm.probe()).firecracker_version == "1.12.1"


async def test_a_jail_that_does_not_work_makes_it_unavailable_never_weaker_and_is_asked_for_again(host):
    root = ScriptedRoot(
        {"jail_reason": "this host has cgroups of version 1 only", "jail_hint": "do that"}, {}
    )
    vmm = FirecrackerVmm(jail=root, program=WORKS["firecracker"])
    with pytest.raises(
        Problem, match="cannot be jailed here: this host has cgroups of version 1 only"
    ) as caught:
        await vmm.capabilities()
    assert (caught.value.code, caught.value.hint) == (Code.UNAVAILABLE, "do that")
    assert Capability.JAIL in await vmm.capabilities()


async def test_without_a_program_of_roots_the_hint_brings_one(host):
    with pytest.raises(Problem, match="no Firecracker") as caught:
        await FirecrackerVmm(jail=ScriptedRoot({"firecracker": ""})).capabilities()
    assert caught.value.hint == "sudo banger setup firecracker"


async def test_a_root_that_cannot_be_asked_is_no_reason_to_go_without(host):
    with pytest.raises(Problem, match="gone"):
        await FirecrackerVmm(
            jail=ScriptedRoot(unavailable("gone")), program=WORKS["firecracker"]
        ).capabilities()


async def test_a_daemon_without_a_right_to_kvm_trusts_what_is_to_be_seen(host, monkeypatch):
    monkeypatch.setattr(probe, "_may_use_kvm", lambda: False)
    assert Capability.JAIL in await FirecrackerVmm(jail=ScriptedRoot({})).capabilities()
    assert host == []
    monkeypatch.setattr(probe, "_MODULES", ())
    with pytest.raises(Problem, match="neither kvm_intel nor kvm_amd"):
        await FirecrackerVmm(jail=ScriptedRoot({})).capabilities()


async def test_a_verdict_that_was_seen_is_not_taken_for_one_that_was_tried(host, monkeypatch, tmp_path):
    cache = tmp_path / "cache" / "probe.json"
    with monkeypatch.context() as patch:
        patch.setattr(probe, "_may_use_kvm", lambda: False)
        await FirecrackerVmm(jail=ScriptedRoot({}), cache=cache).capabilities()
    for _ in range(2):
        await FirecrackerVmm(jail=ScriptedRoot({}), cache=cache).capabilities()
    assert len(host) == 1


HANDLE = Handle(
    backend="firecracker",
    pid=1,
    start_time=1,
    agent_socket="agent.sock",
    control_socket="api.sock",
    accelerator="kvm",
    jail="0123456789ab",
)


async def test_a_jailed_vm_is_not_adopted_without_root(tmp_path):
    vmm = FirecrackerVmm()
    for attempt in (vmm.adopt, vmm.kill, vmm.wait_exit, vmm.pause):
        with pytest.raises(Problem, match="no way to root"):
            await attempt(HANDLE)


async def test_where_new_vmms_begin_outside_those_in_jails_are_found_all_the_same(host, monkeypatch):
    root = ScriptedRoot(Problem(Code.NOT_FOUND, "no jail"))
    vmm = FirecrackerVmm(jail=root, unjailed=True)
    assert (await vmm.adopt(HANDLE)).value == "gone"
    assert [call.method for call in root.calls] == ["enter_jail"]
    monkeypatch.setattr(backend, "probe_host", probe_outside)
    assert await vmm.capabilities() == {Capability.HARDWARE, Capability.PAUSE}
    assert [call.method for call in root.calls] == ["enter_jail"]


async def probe_outside(configured, directory, cache, *, any_kvm):
    return probe.Verdict(key="", firecracker="fc", firecracker_version="1.12.1", kvm=True, kvm_reason="")


async def test_a_root_that_cannot_be_asked_does_not_make_a_vm_gone():
    vmm = FirecrackerVmm(jail=ScriptedRoot(unavailable("gone")))
    with pytest.raises(Problem, match="gone"):
        await vmm.adopt(HANDLE)


async def test_a_jail_that_is_not_there_is_a_vm_that_is_gone():
    vmm = FirecrackerVmm(jail=ScriptedRoot(Problem(Code.NOT_FOUND, "no jail")))
    assert (await vmm.adopt(HANDLE)).value == "gone"
    assert not (await vmm.kill(msgspec.structs.replace(HANDLE, pid=2))).clean


async def test_who_lives_at_a_place_without_a_handle_is_found_by_the_places_name(tmp_path):
    root = ScriptedRoot({})
    vmm = FirecrackerVmm(jail=root)
    for name in ("0123456789ab", "not-a-vm"):
        (tmp_path / name).mkdir()
        await vmm.evict(Place(runtime=str(tmp_path / name), state=str(tmp_path)))
    assert [(call.method, call.vm) for call in root.calls] == [("remove_jail", "0123456789ab")]


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ({}, ["signal_vmm"]),
        (Problem(Code.UNAUTHORIZED, "not ours"), ["signal_vmm", "remove_jail"]),
    ],
)
async def test_a_vmm_of_another_uid_is_ended_by_root(monkeypatch, answer, asked):
    def refuse(pidfd):
        raise PermissionError

    monkeypatch.setattr(jailed, "kill_process", refuse)
    root = ScriptedRoot(answer, {})
    home = jailed.VmmJail(root, "0123456789ab", Launched(pid=9, start_time=8, uid=7), Sockets(-1, 7))
    await home.kill(-1)
    assert [call.method for call in root.calls] == asked


async def test_a_root_that_is_away_does_not_end_a_vmm_and_says_so(monkeypatch):
    def refuse(pidfd):
        raise PermissionError

    monkeypatch.setattr(jailed, "kill_process", refuse)
    root = ScriptedRoot(unavailable("gone"))
    home = jailed.VmmJail(root, "0123456789ab", Launched(pid=9, start_time=8, uid=7), Sockets(-1, 7))
    with pytest.raises(Problem, match="gone"):
        await home.kill(-1)
    await home.clear()
