"""What came of an operation whose daemon died while it ran: the rules, and what they are asked with."""

import msgspec
import pytest

from banger.api.vm import DiskUse, Posture, VmDetails
from banger.base.problem import not_found
from banger.daemon.judging import Judging
from banger.model.kernel import KernelManifest
from banger.model.operation import Operation, OperationState, judge_making, judge_vm_operation
from banger.model.vm import VmRecord, VmRuntime, VmSpec, VmState

BEFORE, BEGAN, AFTER = (f"2026-01-01T00:00:0{second}.000Z" for second in (1, 2, 3))
SPEC = VmSpec(image="i", kernel="k", vcpus=1, memory_mib=64, disk_size_bytes=1, system_overlay_size_bytes=1)


def make_vm(state=VmState.STOPPED, name="web", vm_id="0123456789ab"):
    times = {"created_at": BEFORE, "updated_at": BEFORE, "last_touched_at": BEFORE}
    return VmRecord(id=vm_id, name=name, spec=SPEC, state=state, **times)


def make_operation(kind, **changes):
    values = {
        "id": f"op-{kind}",
        "subject": "web",
        "state": OperationState.UNKNOWN,
        "started_at": BEGAN,
        **changes,
    }
    return Operation(kind=kind, **values)


@pytest.mark.parametrize(
    ("started_at", "state"), [(BEFORE, "failed"), (AFTER, "succeeded"), ("", "succeeded")]
)
def test_a_vm_that_runs_since_before_was_not_restarted(started_at, state):
    runtime = VmRuntime(
        backend="fake", pid=1, start_time=1, agent_socket="", control_socket="", accelerator="",
        started_at=started_at,
    )  # fmt: skip
    vm = msgspec.structs.replace(make_vm(VmState.RUNNING), runtime=runtime)
    assert judge_vm_operation(make_operation("vm.restart"), vm, live=True).state.value == state


@pytest.mark.parametrize(
    ("kind", "vm", "live", "state", "why"),
    [
        ("vm.create", VmState.RUNNING, True, "succeeded", "the VM runs"),
        ("vm.create", VmState.CREATED, False, "succeeded", "the VM is there and was not started"),
        ("vm.create", VmState.ERROR, False, "failed", "the VM is there and does not run"),
        ("vm.create", None, False, "failed", "there is no such VM"),
        ("vm.start", VmState.RUNNING, True, "succeeded", "the VM runs"),
        ("vm.start", VmState.STOPPED, False, "failed", "the VM does not run"),
        ("vm.start", None, False, "failed", "the VM is gone"),
        ("vm.restart", VmState.RUNNING, True, "succeeded", "the VM runs"),
        ("vm.restart", VmState.ERROR, False, "failed", "the VM does not run"),
        ("vm.stop", VmState.STOPPED, False, "succeeded", "the VM does not run"),
        ("vm.stop", VmState.RUNNING, True, "failed", "the VM still runs"),
        ("vm.kill", None, False, "succeeded", "the VM does not run"),
        ("vm.delete", None, False, "succeeded", "the VM is gone"),
        (
            "workspace.prepare",
            VmState.RUNNING,
            True,
            "failed",
            "it was cut short; preparing again completes it",
        ),
        (
            "agent.prepare",
            VmState.RUNNING,
            True,
            "failed",
            "it was cut short; what was not put into the guest will be the next time",
        ),
        ("agent.wait", VmState.RUNNING, True, "failed", "nobody waits any more"),
        ("vm.delete", VmState.STOPPED, False, "failed", "the VM is still there"),
        (
            "tooling.install",
            VmState.RUNNING,
            True,
            "failed",
            "mise ended with it; what it had finished stays",
        ),
    ],
)
def test_of_a_vm_its_row_tells(kind, vm, live, state, why):
    found = judge_vm_operation(make_operation(kind), vm and make_vm(vm), live=live)
    assert (found.state.value, found.why) == (state, why)


@pytest.mark.parametrize(
    ("created_at", "state", "why"),
    [
        (AFTER, "succeeded", "the kernel is complete"),
        (BEFORE, "failed", "the kernel is still the one from before"),
        (None, "failed", "there is no complete kernel of this name"),
    ],
)
def test_of_what_was_made_its_manifest_tells(created_at, state, why):
    found = judge_making(make_operation("kernel.pull"), created_at)
    assert (found.state.value, found.why) == (state, why)


def test_what_leaves_no_trace_is_not_judged():
    assert judge_vm_operation(make_operation("vm.dance"), make_vm(), live=True) is None
    assert judge_making(make_operation("vm.start"), AFTER) is None


class TestJudging:
    def make(self, *rows, changing=()):
        async def describe(vm):
            posture = Posture(
                backend="b", accelerator="", accelerator_reason="", network_mode="user", network_reason="",
                storage_driver="copy", memory_backing="file",
            )  # fmt: skip
            return VmDetails(
                vm=vm, posture=posture, disk_use=DiskUse(root_bytes=0, work_bytes=0), directory="/x"
            )

        async def show_image(name):
            raise not_found(f"there is no image {name!r}")

        async def show_kernel(name):
            return KernelManifest(
                name=name,
                release="r",
                architecture="a",
                source="s",
                recipe_digest="d",
                created_at=AFTER,
                vmlinux_sha256="0",
            )

        return Judging(lambda: rows, changing.__contains__, describe, show_image, show_kernel)

    async def test_by_id_where_it_is_known_for_a_name_may_have_gone_to_another(self):
        other = make_vm(VmState.RUNNING, vm_id="f" * 12)
        known = make_operation("vm.start", object_id="0123456789ab")
        assert (await self.make(other).judge([known]))[known.id].why == "the VM is gone"
        unknown = make_operation("vm.start")
        assert (await self.make(other).judge([unknown]))[unknown.id].why == "the VM runs"

    @pytest.mark.parametrize(
        ("state", "changing"),
        [(VmState.STARTING, ()), (VmState.STOPPING, ()), (VmState.RUNNING, ("0123456789ab",))],
    )
    async def test_not_while_recovery_is_still_at_it(self, state, changing):
        judging = self.make(make_vm(state), changing=changing)
        assert await judging.judge([make_operation("vm.stop")]) == {}

    async def test_with_the_result_that_the_method_would_have_had(self):
        judging = self.make(make_vm(VmState.RUNNING))
        created, deleted, pulled, built = (
            make_operation(kind) for kind in ("vm.create", "vm.delete", "kernel.pull", "image.build")
        )
        judged = await judging.judge([created, deleted, pulled, built, make_operation("vm.dance")])
        assert judged[created.id].result["vm"]["name"] == "web"
        assert judged[deleted.id].result is None
        assert judged[pulled.id].result["name"] == "web"
        assert judged[built.id].state is OperationState.FAILED
        assert len(judged) == 4
        gone = await self.make().judge([deleted])
        assert gone[deleted.id].result == {}
