"""What is laid down: every file with its content, mode and what happens to it. Pure but for reading the sources."""

import hashlib
from typing import NamedTuple

import banger
from banger.installation import places
from banger.installation.helper_archive import render_archive
from banger.installation.host import Host
from banger.installation.owner import Owner
from banger.installation.programs import Argv
from banger.installation.units import render_daemon_unit, render_helper_unit

FORWARDING = """\
# banger: guests with NAT reach the network through this host.
net.ipv4.ip_forward = 1
"""
MODULES = """\
# banger: the taps of virtual machines.
tun
"""
UDEV_RULES = """\
# banger: what a guest writes to its disks may look like a file system or a volume of this host's. Nobody is to look.
SUBSYSTEM=="block", KERNEL=="loop[0-9]*", ATTR{loop/backing_file}=="*/banger/*", \
  ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}="1", ENV{SYSTEMD_READY}="0"
"""
CONFIG = """\
# banger's configuration. Every key is optional; these are the defaults. After a change:
#   sudo banger system restart
#
# log_level = "info"                    # debug, info, warning, error
# vmm = "auto"                          # auto, firecracker, qemu
# qemu_bin = "/usr/bin/qemu-system-x86_64"
# firecracker_bin = "/opt/firecracker/firecracker"   # default: what banger setup firecracker has brought
# jailer_bin = "/opt/firecracker/jailer"
# jailer_enabled = true                 # false, for debugging: Firecracker runs as the owner, without its jail
# storage_driver = "auto"               # auto, dm-snapshot, qcow2, reflink, copy
# snapshot_limit = "4G"                 # what a VM on dm-snapshot may change of its root; default: no limit
# ssh_key_path = "~/.ssh/banger"        # default: a key of banger's own
# default_image = "debian-bookworm"
# default_kernel = "debian-cloud"
# stats_poll_interval = "10s"           # how often what running VMs use is measured
# auto_stop_stale_after = ""            # "2h": VMs that nobody has used for so long are stopped; default: never
# git_identity = true                   # guests get the owner's git user.name and user.email
#
# network = "auto"                      # auto, bridge, user
# bridge_name = "br-banger"
# bridge_cidr = "10.209.0.1/24"
# tap_pool_size = 4
# allow_networks = ["192.168.1.0/24"]   # what guests with NAT may reach beyond the public network; default: nothing
# allow_host_ports = [5432]             # ports of this host's that guests may reach; default: none
# allow_guests = false                  # whether guests may reach one another
#
# [vm_defaults]
# vcpu = 2
# memory = "2G"
# disk_size = "20G"
# system_overlay_size = "10G"
#
# [limits]                              # default: none, but for the last three
# vms = 50                              # that exist
# running_vms = 10
# vcpus_per_vm = 8
# memory_per_vm = "8G"
# disk_per_vm = "40G"                   # root and work disk together
# vcpus_total = 32                      # of running VMs
# memory_total = "24G"                  # of running VMs
# disk_total = "500G"                   # of all VMs
# memory_overcommit = 2.0               # what running VMs may have, times the memory of this host
# disk_overcommit = 10.0                # what disks may still grow by, times what is free
# disk_reserve = "1G"                   # what VMs leave free
#
# [[file_sync]]                         # copied into each guest when it starts; one such table for each file
# host = "~/.gitconfig"
# guest = "~/.gitconfig"
# mode = "0600"
#
# [agents.claude]                       # a coding agent for vm run --agent claude; opencode is built in
# command = ["claude"]
# install = ["npm", "install", "--global", "@anthropic-ai/claude-code"]
# env = ["ANTHROPIC_API_KEY"]           # variables that whoever starts it passes on: names, never values
#
# [tooling]
# enabled = true                        # vm run PATH installs the tools that the repository wants
# timeout = "15m"                       # how long mise may take
# environment = {}                      # what mise is told: mirrors, proxies
#
# [opencode]
# wait = false                          # creating a VM waits until opencode listens
# port = 4096
"""


class Planned(NamedTuple):
    """`edited` files belong to the administrator once they are there: kept as they are."""

    path: str
    content: bytes
    mode: int = 0o644
    edited: bool = False

    @property
    def digest(self) -> str:
        return digest(self.content)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def plan_files(
    host: Host, owner: Owner, *, helper_python: str, daemon: Argv, forwarding: bool
) -> tuple[Planned, ...]:
    """In the order of `places.FILES`: what others need comes before what starts it."""
    planned = (
        Planned(places.HELPER, render_archive(host.package, helper_python), 0o755),
        Planned(places.CONFIG, CONFIG.encode(), edited=True),
        Planned(places.MODULES_FILE, MODULES.encode()),
        Planned(places.UDEV_RULES, UDEV_RULES.encode()),
        *((Planned(places.FORWARDING_FILE, FORWARDING.encode()),) if forwarding else ()),
        Planned(places.HELPER_UNIT, render_helper_unit(owner).encode()),
        Planned(places.DAEMON_UNIT, render_daemon_unit(owner, daemon).encode()),
    )
    assert [file.path for file in planned] == [
        path for path in places.FILES if path in {f.path for f in planned}
    ]
    return planned


def version() -> str:
    return banger.__version__
