"""Logs of a VM that are not there, and what to do about it."""

import pytest

from banger.base.problem import Problem
from banger.model.vm import VmRecord, VmRuntime, VmSpec, VmState
from banger.services.vms.layout import Layout
from banger.services.vms.views import read_log

SPEC = VmSpec(image="i", kernel="k", vcpus=1, memory_mib=64, disk_size_bytes=0, system_overlay_size_bytes=0)


def make(state, jail=""):
    runtime = VmRuntime(
        backend="b", pid=1, start_time=1, agent_socket="a", control_socket="c", accelerator="kvm", jail=jail
    )
    return VmRecord(
        id="0123456789ab",
        name="web",
        spec=SPEC,
        state=state,
        created_at="",
        updated_at="",
        last_touched_at="",
        runtime=runtime if state is VmState.RUNNING else None,
    )


@pytest.mark.parametrize(
    ("vm", "brief", "hint"),
    [
        (make(VmState.CREATED), "web has no vmm log yet", "banger vm start web"),
        (
            make(VmState.RUNNING, jail="0123456789ab"),
            "the vmm log of web is in its jail",
            "banger vm stop web",
        ),
    ],
)
def test_a_log_that_is_not_there_is_told_with_the_way_to_it(tmp_path, vm, brief, hint):
    with pytest.raises(Problem) as caught:
        read_log(vm, Layout(tmp_path, tmp_path), "vmm", None)
    assert caught.value.brief.startswith(brief)
    assert caught.value.hint == hint


@pytest.mark.parametrize("jail", ["", "0123456789ab"])
def test_before_tools_were_installed_there_is_no_log_of_that(tmp_path, jail):
    layout = Layout(tmp_path, tmp_path)
    vm = make(VmState.RUNNING, jail=jail)
    with pytest.raises(Problem, match="no tools have been installed in web yet") as caught:
        read_log(vm, layout, "tooling", None)
    assert caught.value.hint == "banger tooling install web"
    layout.log("tooling").write_text("mise said\n")
    assert read_log(vm, layout, "tooling", None).text == "mise said\n"
