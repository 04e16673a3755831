"""The QEMU command line, word for word."""

import json

import msgspec
import pytest

from banger.model.machine import Disk, DiskFormat, Machine, PortForward, TapNetwork
from banger.network.user import plan_user_network
from banger.vmm.qemu.argv import Accelerator, Descriptors, render_argv, render_kernel_arguments

MACHINE = Machine(
    id="0123",
    name="calm-otter",
    vcpus=2,
    memory_mib=512,
    kernel="/k/vmlinux",
    initramfs="/s/initramfs",
    kernel_arguments=("console=ttyS0", "quiet"),
    disks=(
        Disk(serial="root", path="/s/root.qcow2", format=DiskFormat.QCOW2),
        Disk(serial="modules", path="/k/modules.ext4", read_only=True),
    ),
    network=plan_user_network(
        "0123",
        nat=False,
        ssh_port=2222,
        published=(PortForward(host_address="0.0.0.0", host_port=80, guest_port=8080),),
    ),
    agent_channel="banger.agent",
)

GOLDEN = """
/usr/bin/qemu-system-x86_64
-name guest=calm-otter,debug-threads=on
-M microvm,acpi=on,rtc=on,memory-backend=ram
-accel tcg,tb-size=256
-cpu qemu64,+rdrand,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq
-smp 2
-m 512M
-object {"qom-type":"memory-backend-file","id":"ram","size":536870912,"mem-path":"/proc/self/fd/9",\
"share":true,"dump":false}
-nodefaults
-no-user-config
-no-reboot
-display none
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-msg timestamp=on
-kernel /k/vmlinux
-initrd /s/initramfs
-append console=ttyS0 quiet reboot=t tsc=reliable no_timer_check tsc_early_khz=2300000
-global virtio-mmio.force-legacy=false
-chardev socket,id=control,fd=8,server=on,wait=off
-mon chardev=control,mode=control
-chardev file,id=serial,path=/s/serial.log,append=on
-serial chardev:serial
-device virtio-serial-device,max_ports=2
-chardev socket,id=agent,fd=7,server=on,wait=off
-device {"driver":"virtserialport","chardev":"agent","name":"banger.agent","id":"agent-port"}
-device virtio-rng-device
-blockdev {"driver":"qcow2","node-name":"disk0","file":{"driver":"file","filename":"/s/root.qcow2",\
"discard":"unmap"},"discard":"unmap","detect-zeroes":"unmap"}
-device {"driver":"virtio-blk-device","drive":"disk0","serial":"root","id":"disk0-device"}
-blockdev {"driver":"raw","node-name":"disk1","file":{"driver":"file","filename":"/k/modules.ext4",\
"discard":"unmap"},"read-only":true}
-device {"driver":"virtio-blk-device","drive":"disk1","serial":"modules","id":"disk1-device"}
-netdev {"type":"user","id":"net0","ipv6":false,"net":"10.0.2.0/24","host":"10.0.2.2","dns":"10.0.2.3",\
"restrict":true,"hostfwd":[{"str":"tcp:127.0.0.1:2222-10.0.2.15:22"},{"str":"tcp:0.0.0.0:80-10.0.2.15:8080"}]}
-device {"driver":"virtio-net-device","netdev":"net0","mac":"02:dd:33:99:ef:38","id":"net0-device"}
"""


def render(
    machine=MACHINE, accelerator=Accelerator.TCG, tsc_khz=2_300_000, serial_log="/s/serial.log", tap=None
):
    return render_argv(
        machine,
        qemu="/usr/bin/qemu-system-x86_64",
        accelerator=accelerator,
        tsc_khz=tsc_khz,
        descriptors=Descriptors(agent=7, control=8, memory=9, tap=tap),
        serial_log=serial_log,
    )


def test_the_command_line_for_software_emulation_is_the_golden_one():
    words = [word for line in GOLDEN.strip().split("\n") for word in line.split(" ", 1)]
    assert list(render()) == words


def test_kvm_gets_the_host_cpu_and_no_clock_arguments():
    argv = render(accelerator=Accelerator.KVM, tsc_khz=None)
    accel = argv.index("-accel")
    assert argv[accel : accel + 4] == ("-accel", "kvm", "-cpu", "host")
    assert argv[argv.index("-append") + 1] == "console=ttyS0 quiet reboot=t"


def test_an_unknown_frequency_is_not_guessed():
    assert (
        render_kernel_arguments(MACHINE, Accelerator.TCG, None)
        == "console=ttyS0 quiet reboot=t no_timer_check"
    )


def test_commas_and_quotes_in_paths_stay_within_their_value():
    disk = Disk(serial="root", path='/a,b="c",readonly=on', format=DiskFormat.QCOW2)
    argv = render(msgspec.structs.replace(MACHINE, name="a,b", disks=(disk,)), serial_log="/s,x/serial.log")
    assert json.loads(argv[argv.index("-blockdev") + 1])["file"]["filename"] == disk.path
    assert "guest=a,,b,debug-threads=on" in argv
    assert "file,id=serial,path=/s,,x/serial.log,append=on" in argv


def test_a_machine_without_network_has_no_network_device():
    argv = render(msgspec.structs.replace(MACHINE, network=None))
    assert "-netdev" not in argv
    assert not any("virtio-net" in word for word in argv)


def test_nat_lifts_the_restriction():
    network = plan_user_network("0123", nat=True, ssh_port=2222)
    argv = render(msgspec.structs.replace(MACHINE, network=network))
    assert json.loads(argv[argv.index("-netdev") + 1])["restrict"] is False


TAPPED = msgspec.structs.replace(MACHINE, network=TapNetwork(mac="02:00:00:00:00:01", tap="bng-0123abcd"))


def test_a_tap_is_a_descriptor_and_its_name_is_not_told():
    """QEMU may not open a tap by itself: it has neither the right nor, in its sandbox, the call."""
    argv = render(TAPPED, tap=10)
    assert json.loads(argv[argv.index("-netdev") + 1]) == {
        "type": "tap",
        "id": "net0",
        "fd": "10",
        "vhost": False,
    }
    assert not any("bng-" in word for word in argv)


def test_on_a_tap_the_device_is_the_same_as_in_user_mode():
    def device(argv):
        (word,) = [word for word in argv if "virtio-net-device" in word]
        return json.loads(word)

    tapped, user = device(render(TAPPED, tap=10)), device(render())
    assert tapped == {**user, "mac": "02:00:00:00:00:01"}


def test_nothing_else_changes_with_the_network():
    def without_network(argv):
        return [word for word in argv if "net0" not in word]

    assert without_network(render(TAPPED, tap=10)) == without_network(render())


def test_a_tap_without_its_descriptor_is_a_mistake_of_ours():
    with pytest.raises(AssertionError):
        render(TAPPED)


def test_what_is_inherited_is_what_is_named():
    assert Descriptors(agent=7, control=8, memory=9).inherited == (7, 8, 9)
    assert Descriptors(agent=7, control=8, memory=9, tap=10).inherited == (7, 8, 9, 10)
    assert Descriptors(agent=7, control=8, memory=9, tap=0).inherited == (7, 8, 9, 0)


def test_a_udp_port_is_forwarded_as_such():
    port = PortForward(host_address="127.0.0.1", host_port=5353, guest_port=53, protocol="udp")
    network = plan_user_network("0123", nat=True, ssh_port=2222, published=(port,))
    argv = render(msgspec.structs.replace(MACHINE, network=network))
    forwards = json.loads(argv[argv.index("-netdev") + 1])["hostfwd"]
    assert forwards[1] == {"str": "udp:127.0.0.1:5353-10.0.2.15:53"}
