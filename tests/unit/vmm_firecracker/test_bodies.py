"""What Firecracker is told, body for body."""

import json

import msgspec
import pytest

from banger.base.problem import Code, Problem
from banger.model.machine import Disk, DiskFormat, Machine, TapNetwork
from banger.network.user import plan_user_network
from banger.vmm.firecracker.argv import is_ours, render_argv
from banger.vmm.firecracker.bodies import (
    plan_calls,
    plan_links,
    render_guest_disks,
    render_kernel_arguments,
    validate_for_firecracker,
)

MACHINE = Machine(
    id="0123-ab",
    name="calm-otter",
    vcpus=2,
    memory_mib=512,
    kernel="/k/vmlinux",
    initramfs="/s/initramfs",
    kernel_arguments=("console=ttyS0", "quiet"),
    disks=(
        Disk(serial="root", path="/s/root.img"),
        Disk(serial="modules-1", path="/k/modules.ext4", read_only=True),
    ),
    network=TapNetwork(mac="06:00:0a:d1:00:02", tap="bng-abc"),
    agent_channel="banger.agent",
)

SNAPSHOT = Disk(serial="root", path="/dev/mapper/banger-0123", format=DiskFormat.SNAPSHOT)

GOLDEN = """
PUT /machine-config {"vcpu_count": 2, "mem_size_mib": 512}
PUT /boot-source {"kernel_image_path": "kernel", "initrd_path": "initramfs", \
"boot_args": "console=ttyS0 quiet reboot=k pci=off"}
PUT /drives/disk0 {"drive_id": "disk0", "path_on_host": "disk0", "is_root_device": false, \
"is_read_only": false, "cache_type": "Writeback"}
PUT /drives/disk1 {"drive_id": "disk1", "path_on_host": "disk1", "is_root_device": false, \
"is_read_only": true, "cache_type": "Unsafe"}
PUT /vsock {"guest_cid": 3, "uds_path": "s/agent.sock"}
PUT /entropy {}
PUT /network-interfaces/eth0 {"iface_id": "eth0", "guest_mac": "06:00:0a:d1:00:02", "host_dev_name": "bng-abc"}
"""


def changed(**changes) -> Machine:
    return msgspec.structs.replace(MACHINE, **changes)


def test_the_calls_of_a_machine():
    calls = [f"{call.method} {call.path} {json.dumps(call.body)}" for call in plan_calls(MACHINE)]
    assert "\n".join(calls) == GOLDEN.strip()


def test_nothing_of_the_host_but_the_tap_is_in_the_bodies():
    for call in plan_calls(MACHINE):
        assert "/" not in json.dumps(call.body).replace("s/agent.sock", "")


def test_every_name_in_the_bodies_has_a_link():
    named = {"kernel", "initramfs", "disk0", "disk1"}
    assert plan_links(MACHINE) == {
        "kernel": "/k/vmlinux",
        "initramfs": "/s/initramfs",
        "disk0": "/s/root.img",
        "disk1": "/k/modules.ext4",
    }
    assert named <= set(json.dumps([call.body for call in plan_calls(MACHINE)]).split('"'))


def test_a_machine_without_disks_and_network():
    paths = [call.path for call in plan_calls(changed(disks=(), network=None))]
    assert paths == ["/machine-config", "/boot-source", "/vsock", "/entropy"]


def test_disks_are_found_by_their_order_for_want_of_serials():
    assert render_guest_disks(MACHINE) == {"root": "/dev/vda", "modules-1": "/dev/vdb"}


def test_the_machines_own_arguments_win():
    assert render_kernel_arguments(changed(kernel_arguments=("reboot=t", "pci=off"))) == "reboot=t pci=off"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"disks": (Disk(serial="root", path="/s/r", format=DiskFormat.QCOW2),)}, "/s/r is qcow2"),
        ({"disks": (SNAPSHOT,)}, "which only a jailed Firecracker is given"),
        ({"network": plan_user_network("0", nat=False, ssh_port=22, published=())}, "no user network"),
        ({"id": "a_b"}, "'a_b' is no id"),
        ({"id": "a" * 65}, "at most 64"),
        ({"vcpus": 33}, "33 virtual CPUs"),
    ],
)
def test_what_firecracker_cannot_do_is_a_bad_request(changes, told):
    with pytest.raises(Problem, match=told) as caught:
        validate_for_firecracker(changed(**changes), jailed=False)
    assert caught.value.code is Code.BAD_REQUEST


def test_a_device_of_roots_is_for_jails():
    validate_for_firecracker(changed(disks=(SNAPSHOT,)), jailed=True)
    with pytest.raises(Problem, match="qcow2"):
        disk = Disk(serial="root", path="/s/r", format=DiskFormat.QCOW2)
        validate_for_firecracker(changed(disks=(disk,)), jailed=True)


def test_the_command_line_is_known_again_by_what_is_in_it():
    argv = render_argv(MACHINE, program="/f")
    assert " ".join(argv) == (
        "/f --id 0123-ab --api-sock s/api.sock --log-path s/vmm.log --level Info --metrics-path s/metrics.fifo"
    )
    assert is_ours("\0".join((*argv, "")).encode())
    assert not is_ours(b"/f\0--api-sock\0/run/api.sock\0")
