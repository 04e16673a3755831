"""What the helper says when it does not act. Every known error of the kernel becomes one of these at the edge."""

import errno

from banger.privileged.contract.values import Refusal

NFT_HINT = "sudo apt-get install nftables"
DOCTOR_HINT = "banger doctor"
FORWARD_HINT = "sudo sysctl -w net.ipv4.ip_forward=1"
TUN_HINT = "sudo modprobe tun"
BRIDGE_HINT = "sudo modprobe bridge"
UNIT_HINT = "sudo banger system install"
LOOP_HINT = "sudo modprobe loop"
DEVICE_MAPPER_HINT = "sudo modprobe dm_mod"
FIRECRACKER_HINT = "sudo banger setup firecracker"
UNIFIED_HINT = (
    "add systemd.unified_cgroup_hierarchy=1 to the kernel's command line, or set jailer_enabled = false"
)
IDS_HINT = "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535"


def bridge_missing(bridge: str) -> Refusal:
    return Refusal("not_found", f"there is no bridge {bridge}", DOCTOR_HINT)


def tap_missing(tap: str, bridge: str) -> Refusal:
    return Refusal("not_found", f"there is no tap {tap} on {bridge}")


def tables_missing() -> Refusal:
    """Somebody has flushed the ruleset: guests would speak unfiltered."""
    return Refusal(
        "not_found", "banger's nftables tables are gone: something flushed the ruleset", DOCTOR_HINT
    )


def nft_missing() -> Refusal:
    return Refusal("unavailable", "nftables is not installed", NFT_HINT)


def tun_missing() -> Refusal:
    return Refusal("unavailable", "this host has no TUN device", TUN_HINT)


def forwarding_off() -> Refusal:
    return Refusal("unavailable", "this host does not forward IPv4", FORWARD_HINT)


def process_gone(pid: int) -> Refusal:
    return Refusal("not_found", f"process {pid} is gone")


def process_mistaken(pid: int) -> Refusal:
    return Refusal("unauthorized", f"process {pid} is not the one that was meant")


def process_foreign(pid: int) -> Refusal:
    return Refusal("unauthorized", f"process {pid} is not the owner's")


def namespace_mapped(pid: int) -> Refusal:
    """The host's own namespace is one of these."""
    return Refusal("conflict", f"the user namespace of process {pid} has maps already")


def ids_missing(owner: str, file: str) -> Refusal:
    return Refusal(
        "unavailable", f"{owner} has no range of 65536 subordinate ids in {file}", f"{IDS_HINT} {owner}"
    )


def loop_missing(name: str) -> Refusal:
    return Refusal("unavailable", f"this host has no loop devices: there is no /dev/{name}", LOOP_HINT)


def loop_unopened(name: str) -> Refusal:
    """By a unit of an older banger's, or in a container."""
    return Refusal("unavailable", f"the root helper may not open /dev/{name}", UNIT_HINT)


def device_mapper_missing() -> Refusal:
    return Refusal(
        "unavailable", "this host has no device-mapper: there is no /dev/mapper/control", DEVICE_MAPPER_HINT
    )


def device_mapper_unopened() -> Refusal:
    """By a unit of an older banger's, or in a container."""
    return Refusal("unavailable", "the root helper may not use /dev/mapper/control", UNIT_HINT)


def device_mapper_closed() -> Refusal:
    """systemd resolves the names of device groups when a unit starts: one that started before the module was there."""
    return Refusal(
        "unavailable",
        "the root helper may not open the loop and device-mapper devices that it has made",
        "sudo systemctl restart banger-root",
    )


def target_missing(target: str) -> Refusal:
    return Refusal(
        "unavailable",
        f"this host's device-mapper has no {target} target",
        f"sudo modprobe dm_{target}",
    )


def snapshot_taken(vm: str) -> Refusal:
    """Attached, or left half-made by a helper that was killed, or somebody else's device of this name."""
    return Refusal("conflict", f"device banger-{vm} is there already", _render_removal(vm))


def snapshot_in_use(vm: str) -> Refusal:
    return Refusal("conflict", f"device banger-{vm} is in use", f"sudo dmsetup info banger-{vm}")


def snapshot_full(vm: str) -> Refusal:
    return Refusal(
        "operation_failed",
        f"the root disk of VM {vm} is lost: its layer of changes was full, and the kernel has given it up",
        "banger vm delete NAME, then: banger vm create",
    )


def snapshot_failed(vm: str, error: OSError) -> Refusal:
    return Refusal(
        "operation_failed",
        f"the kernel does not take up the root disk of VM {vm}: {error.strerror}",
        "sudo dmesg",
    )


def firecracker_missing(path: str = "") -> Refusal:
    what = f"there is no {path}" if path else "Firecracker is not installed for root"
    return Refusal("unavailable", what, FIRECRACKER_HINT)


def firecracker_unfit(why: str) -> Refusal:
    return Refusal("unavailable", why, FIRECRACKER_HINT)


def cgroups_missing(why: str, hint: str = UNIFIED_HINT) -> Refusal:
    return Refusal("unavailable", why, hint)


def snapshot_missing(vm: str) -> Refusal:
    return Refusal("not_found", f"VM {vm} has no root disk attached")


def jail_missing(vm: str) -> Refusal:
    return Refusal("not_found", f"VM {vm} has no jail")


def jail_inhabited(vm: str, pid: int) -> Refusal:
    return Refusal("conflict", f"the VMM of VM {vm} runs already, as process {pid}", f"ps -fp {pid}")


def jail_orphaned(vm: str) -> Refusal:
    return Refusal(
        "not_found",
        f"the root helper was restarted while VM {vm} was started: its disks are not certain",
        "banger vm start NAME",
    )


def jail_uid_taken(vm: str, other: str) -> Refusal:
    """One chance in 268 million for two VMs."""
    return Refusal(
        "conflict",
        f"VM {vm} would run as the same uid as VM {other}",
        "banger vm delete NAME, and create it again",
    )


def jail_stubborn(vm: str, pids: str) -> Refusal:
    """In uninterruptible sleep: a disk or a file server does not answer."""
    return Refusal(
        "conflict", f"the VMM of VM {vm} does not end: {pids}", f"ps -o pid,stat,wchan:30,args -p {pids}"
    )


def jail_crowded(vm: str) -> Refusal:
    return Refusal(
        "conflict", f"the jail of VM {vm} holds more than can be removed at once", "banger vm stop NAME"
    )


def _render_removal(vm: str) -> str:
    return f"sudo dmsetup remove banger-{vm} banger-{vm}-base"


def translate(error: OSError) -> Refusal:
    """What nobody nearer to the call has said better."""
    what = f"{error.filename}: " if error.filename else ""
    text = what + (error.strerror or str(error))
    if error.errno in (errno.EPERM, errno.EACCES):
        return Refusal("unavailable", f"the root helper may not do this here: {text}", "banger doctor")
    if error.errno == errno.EROFS:
        return Refusal("unavailable", f"the root helper cannot write here: {text}", "banger doctor")
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
        return Refusal("unavailable", f"the host is out of resources: {text}")
    return Refusal("internal", text)
