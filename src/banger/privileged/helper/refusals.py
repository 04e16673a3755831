"""What the helper says when it does not act. Every known error of the kernel becomes one of these at the edge."""

import errno

from banger.privileged.contract.values import Refusal

NFT_HINT = "sudo apt-get install nftables"
DOCTOR_HINT = "banger doctor"
FORWARD_HINT = "sudo sysctl -w net.ipv4.ip_forward=1"
TUN_HINT = "sudo modprobe tun"
BRIDGE_HINT = "sudo modprobe bridge"
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
