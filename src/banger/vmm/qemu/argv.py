"""What QEMU is told: a machine as an argument vector. Pure; golden tests beside it.

Values that hold paths travel as JSON where QEMU 7.2 reads it (-object, -blockdev, -device, -netdev), so that
a comma in a name cannot become an option; elsewhere commas are doubled (qemu(1)). Sockets and guest memory
are descriptors that the daemon made and QEMU inherits: nothing races for their names.
"""

import json
from enum import Enum
from typing import Any, NamedTuple

from banger.base.process import Argv
from banger.base.units import MIB
from banger.model.machine import Disk, Machine, Network, PortForward, UserNetwork


class Accelerator(Enum):
    KVM = "kvm"
    TCG = "tcg"


class Descriptors(NamedTuple):
    """Numbers QEMU inherits: two listening sockets, the file that is the guest's memory, a tap or none."""

    agent: int
    control: int
    memory: int
    tap: int | None = None

    @property
    def inherited(self) -> tuple[int, ...]:
        return tuple(number for number in self if number is not None)


# Measured (docs, FACTS): `max` costs 15 %, plain Nehalem switches page-table isolation on.
_TCG_CPU = "qemu64,+rdrand,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq"
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
# Room for translated code. A small buffer is flushed over and over and makes logins slow, an unbounded
# one (1 GiB) lets a busy guest take memory that no one asked for.
_TCG_CODE_MIB = 256
# A guest that reboots does so by a triple fault, which the processor itself reports. By default it writes to ACPI's
# reset register, and on nested KVM under emulation that write was lost every second time: the guest hung for ever.
_RESET = "reboot=t"


def render_argv(
    machine: Machine,
    *,
    qemu: str,
    accelerator: Accelerator,
    tsc_khz: int | None,
    descriptors: Descriptors,
    serial_log: str,
) -> Argv:
    """The whole command line. `tsc_khz` is the host's true frequency, used in software emulation only."""
    return (
        qemu,
        *("-name", f"guest={_escape(machine.name)},debug-threads=on"),
        *("-M", "microvm,acpi=on,rtc=on,memory-backend=ram"),
        *_render_accelerator(accelerator),
        *("-smp", str(machine.vcpus)),
        *("-m", f"{machine.memory_mib}M"),
        *_render_memory(machine.memory_mib, descriptors.memory),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-sandbox", _SANDBOX),
        *("-msg", "timestamp=on"),
        *("-kernel", machine.kernel, "-initrd", machine.initramfs),
        *("-append", render_kernel_arguments(machine, accelerator, tsc_khz)),
        *("-global", "virtio-mmio.force-legacy=false"),
        *_render_control(descriptors.control),
        *_render_serial(serial_log),
        *_render_agent(machine.agent_channel, descriptors.agent),
        *("-device", "virtio-rng-device"),
        *(word for index, disk in enumerate(machine.disks) for word in _render_disk(index, disk)),
        *(() if machine.network is None else _render_network(machine.network, descriptors.tap)),
    )


def render_kernel_arguments(machine: Machine, accelerator: Accelerator, tsc_khz: int | None) -> str:
    """The machine's own arguments and what the accelerator adds.

    In software emulation the guest hangs in timer calibration unless it is told the frequency of the time
    stamp counter it sees, which is the host's.
    """
    clock: tuple[str, ...] = ()
    if accelerator is Accelerator.TCG:
        clock = ("no_timer_check",)
        if tsc_khz is not None:
            clock = ("tsc=reliable", "no_timer_check", f"tsc_early_khz={tsc_khz}")
    return " ".join((*machine.kernel_arguments, _RESET, *clock))


def _escape(value: str) -> str:
    return value.replace(",", ",,")


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _render_accelerator(accelerator: Accelerator) -> Argv:
    if accelerator is Accelerator.KVM:
        return ("-accel", "kvm", "-cpu", "host")
    return ("-accel", f"tcg,tb-size={_TCG_CODE_MIB}", "-cpu", _TCG_CPU)


def _render_memory(memory_mib: int, descriptor: int) -> Argv:
    """Shared and in a file from the start: copy-on-write restore maps the same file privately."""
    backend = {
        "qom-type": "memory-backend-file",
        "id": "ram",
        "size": memory_mib * MIB,
        "mem-path": f"/proc/self/fd/{descriptor}",
        "share": True,
        "dump": False,
    }
    return ("-object", _json(backend))


def _render_control(descriptor: int) -> Argv:
    return (
        *("-chardev", f"socket,id=control,fd={descriptor},server=on,wait=off"),
        *("-mon", "chardev=control,mode=control"),
    )


def _render_serial(log: str) -> Argv:
    # append=on: whoever bounds the file may truncate it while QEMU writes (O_APPEND)
    return ("-chardev", f"file,id=serial,path={_escape(log)},append=on", "-serial", "chardev:serial")


def _render_agent(channel: str, descriptor: int) -> Argv:
    port = {"driver": "virtserialport", "chardev": "agent", "name": channel, "id": "agent-port"}
    return (
        *("-device", "virtio-serial-device,max_ports=2"),
        *("-chardev", f"socket,id=agent,fd={descriptor},server=on,wait=off"),
        *("-device", _json(port)),
    )


def _render_disk(index: int, disk: Disk) -> Argv:
    node = f"disk{index}"
    file = {"driver": "file", "filename": disk.path, "discard": "unmap"}
    block: dict[str, Any] = {"driver": disk.format.value, "node-name": node, "file": file}
    if disk.read_only:
        block["read-only"] = True
    else:
        block |= {"discard": "unmap", "detect-zeroes": "unmap"}
    device = {"driver": "virtio-blk-device", "drive": node, "serial": disk.serial, "id": f"{node}-device"}
    return ("-blockdev", _json(block), "-device", _json(device))


def _render_network(network: Network, tap: int | None) -> Argv:
    netdev = _user_netdev(network) if isinstance(network, UserNetwork) else _tap_netdev(tap)
    device = {"driver": "virtio-net-device", "netdev": "net0", "mac": network.mac, "id": "net0-device"}
    return ("-netdev", _json(netdev), "-device", _json(device))


def _tap_netdev(tap: int | None) -> dict[str, Any]:
    assert tap is not None, "a tap's descriptor comes with the start"
    return {"type": "tap", "id": "net0", "fd": str(tap), "vhost": False}


def _user_netdev(network: UserNetwork) -> dict[str, Any]:
    return {
        "type": "user",
        "id": "net0",
        "ipv6": False,
        "net": network.subnet,
        "host": network.gateway,
        "dns": network.dns,
        "restrict": network.restricted,
        "hostfwd": [{"str": _render_forward(network, forward)} for forward in network.forwards],
    }


def _render_forward(network: UserNetwork, forward: PortForward) -> str:
    return (
        f"{forward.protocol}:{forward.host_address}:{forward.host_port}"
        f"-{network.guest_address}:{forward.guest_port}"
    )
