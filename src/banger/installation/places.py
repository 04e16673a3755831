"""Every file and directory of a system installation by name. Nothing else is ever written or removed."""

from posixpath import dirname

from banger.base.paths import (
    INSTALL_RECORD,
    ROOT_FIRECRACKER,
    ROOT_PROGRAM,
    ROOT_SOCKET,
    SYSTEM_CONFIG,
    SYSTEM_RUNTIME,
)

HELPER = ROOT_PROGRAM
HELPER_DIRECTORY = dirname(HELPER)
HELPER_UNIT_NAME = "banger-root.service"
DAEMON_UNIT_NAME = "banger.service"
HELPER_UNIT = "/etc/systemd/system/" + HELPER_UNIT_NAME
DAEMON_UNIT = "/etc/systemd/system/" + DAEMON_UNIT_NAME
FORWARDING_FILE = "/etc/sysctl.d/60-banger.conf"
MODULES_FILE = "/etc/modules-load.d/banger.conf"
UDEV_RULES = "/etc/udev/rules.d/59-banger.rules"  # before 60-persistent-storage.rules
CONFIG_DIRECTORY = SYSTEM_CONFIG
CONFIG = CONFIG_DIRECTORY + "/config.toml"
RECORD = INSTALL_RECORD

# In the order in which they are laid down; removed backwards. The record is not among them: it comes first, goes last.
FILES = (HELPER, CONFIG, MODULES_FILE, UDEV_RULES, FORWARDING_FILE, HELPER_UNIT, DAEMON_UNIT)
OWN_DIRECTORIES = (HELPER_DIRECTORY, CONFIG_DIRECTORY)

RUNTIME = SYSTEM_RUNTIME  # the daemon's; belongs to the owner
DAEMON_SOCKET = RUNTIME + "/daemon.sock"
HELPER_SOCKET = ROOT_SOCKET
HELPER_RUNTIME = dirname(HELPER_SOCKET)
HELPER_LOG = HELPER_RUNTIME + "/helper.log"  # without systemd; with it the journal has it

# What `setup firecracker` has brought, by version; goes with a purge.
FIRECRACKER = ROOT_FIRECRACKER
HELPER_STATE = "/var/lib/banger-root"  # jails
CGROUPS = "/sys/fs/cgroup/banger"  # those of jailed VMMs

FORWARDING_SWITCH = "/proc/sys/net/ipv4/ip_forward"
TUN = "/dev/net/tun"
KVM = "/dev/kvm"
# By the device that each makes.
MODULES = {TUN: "tun", "/dev/loop-control": "loop", "/dev/mapper/control": "dm_snapshot"}
INTERFACES = "/sys/class/net"
