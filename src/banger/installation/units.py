"""The two units as text. Pure; `systemd-analyze verify` and `security` read them in the tests.

Every capability and every hole in the sandbox has its reason beside it, in the file that an administrator reads.
`KillMode=process` and `RuntimeDirectoryPreserve` are what lets VMs outlive a restart of either unit.
"""

import banger
from banger.client.wire import Failure
from banger.installation import places
from banger.installation.owner import Owner
from banger.installation.programs import Argv

_WRITTEN = f"# Written by banger {banger.__version__}; replaced by: sudo banger system install"

_HELPER = """\
{written}
[Unit]
Description=banger's root helper: bridge, taps, nftables, names, disks and jails of VMs
# Who loads a ruleset of their own when they start flushes ours if they come later.
After=network-pre.target nftables.service firewalld.service ufw.service systemd-resolved.service
# Root disks of VMs. Before the start, as DeviceAllow= below knows only what the kernel has then; modprobe@.service does
# not fail where there is no such module.
Wants=modprobe@loop.service modprobe@dm_snapshot.service
After=modprobe@loop.service modprobe@dm_snapshot.service
Before={daemon_unit}

[Service]
Type=notify
ExecStart={exec_start}
Restart=on-failure
RestartSec=1
# Wrong configuration and wrong owner do not heal.
RestartPreventExitStatus=64 77
KillMode=process
RuntimeDirectory=banger-root
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
# Jails, by VM.
StateDirectory=banger-root
StateDirectoryMode=0700
UMask=0077

# All of what follows holds for the jailed VMMs, too, which come from here; on top of what their jailer and they
# themselves take away. Only DevicePolicy= and limits of the control group do not: each VMM has a group of its own.
NoNewPrivileges=yes
# CAP_NET_ADMIN         bridge, taps, addresses, nftables, switches of our own interfaces
# CAP_NET_BIND_SERVICE  port 53 of the bridge's address
# CAP_CHOWN             the socket becomes the owner's, files and devices in a jail its VMM's
# CAP_KILL              signals to VMMs, which run as the owner or as a uid of their own
# CAP_SETUID            subordinate ids for image builds, as the daemon can run no newuidmap; and to act as the owner
#                       meanwhile, so that the kernel judges whose namespace it is (user_namespaces(7)); and a
#                       jailed VMM's own uid
# CAP_SETGID            subordinate groups; a jailed VMM's own group
# CAP_SYS_ADMIN         device-mapper, loop devices; the jailer's mount namespace and its pivot_root
# CAP_MKNOD             a VM's disks, KVM and TUN in its jail
# CAP_DAC_OVERRIDE      to make control groups (their root directory is read-only by its mode); to enter and remove
#                       what belongs to a jailed VMM
# CAP_SYS_PTRACE        the tap's descriptor out of a jailed VMM (pidfd_getfd(2))
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_CHOWN CAP_KILL CAP_SETUID CAP_SETGID
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_MKNOD CAP_DAC_OVERRIDE CAP_SYS_PTRACE
AmbientCapabilities=
ProtectSystem=strict
# Switches of the bridge and its taps are in /proc/sys/net; all others stay read-only.
ProtectKernelTunables=yes
ReadWritePaths=/proc/sys/net
ProtectHome=yes
PrivateTmp=yes
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
# Root disks: made here, and as nodes (m) in the jails.
DeviceAllow=/dev/loop-control rw
DeviceAllow=/dev/mapper/control rw
DeviceAllow=block-loop rwm
DeviceAllow=block-device-mapper rwm
ProtectKernelModules=yes
ProtectKernelLogs=yes
# Control groups of jailed VMMs are below /sys/fs/cgroup/banger.
ProtectControlGroups=no
ProtectClock=yes
ProtectHostname=yes
# The jailer's.
RestrictNamespaces=mnt
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
KeyringMode=private
# No IPAddressDeny: it would hold for the DNS sockets, too, which are made here and used by the daemon.
RestrictAddressFamilies=AF_UNIX AF_INET AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @keyring @memlock @setuid
SystemCallFilter=@chown
# The effective uid alone, and back; glibc's seteuid is this call.
SystemCallFilter=setresuid capset
# The jailer's: its root, then its VMM's ids (it would go on with root's groups where it may not drop them).
SystemCallFilter=mount umount2 pivot_root setuid setgid setgroups
# The tap's descriptor.
SystemCallFilter=pidfd_getfd
# Firecracker's own filters, on top of these.
SystemCallFilter=seccomp
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""

_DAEMON = """\
{written}
[Unit]
Description=banger's daemon: the virtual machines of {owner}
# D-Bus, because ExecStop asks systemd there whether the host goes down.
After=network.target dbus.socket dbus.service {helper_unit}
Wants={helper_unit}
RequiresMountsFor={home}

[Service]
Type=exec
User={owner}
ExecStart={exec_start}
# Stops the VMs in order when, and only when, the whole host goes down.
ExecStop={exec_stop}
Environment=BANGER_RUNTIME_DIR={runtime} BANGER_CONFIG_DIR={config}
WorkingDirectory=/
Restart=on-failure
RestartSec=1
# Wrong configuration and wrong owner do not heal.
RestartPreventExitStatus=64 77
KillMode=process
TimeoutStopSec=150
# A VM that the kernel ends for want of memory takes nobody else along.
OOMPolicy=continue
RuntimeDirectory=banger
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
UMask=0077

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
# The owner's own home, and nobody else's.
ProtectHome=tmpfs
BindPaths={home}
# Not PrivateTmp: the owner names files there (banger image build --from-tar /tmp/root.tar).
ReadWritePaths=/tmp /var/tmp
DevicePolicy=closed
DeviceAllow=/dev/kvm rw
# Firecracker without a jail opens its tap by name (jailer_enabled = false).
DeviceAllow=/dev/net/tun rw
# /proc and /sys have nothing mounted over them, for then no namespace below may have a /proc of its own
# (mount_namespaces(7)), which image builds need; to an ordinary user they are read-only anyway.
ProtectKernelModules=yes
ProtectControlGroups=yes
ProtectClock=yes
RestrictNamespaces=user mnt pid uts ipc
RestrictRealtime=yes
# Images hold set-user-ID programs: no RestrictSUIDSGID.
LockPersonality=yes
# QEMU's emulation writes the code that it runs: no MemoryDenyWriteExecute.
KeyringMode=private
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap
# The tap's descriptor, of a Firecracker without a jail.
SystemCallFilter=pidfd_getfd
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def render_helper_argv(
    owner: Owner, *, helper: str = places.HELPER, socket: str = places.HELPER_SOCKET
) -> Argv:
    return (helper, "--owner", str(owner.uid), "--socket", socket)


def render_helper_unit(owner: Owner) -> str:
    return _HELPER.format(
        written=_WRITTEN,
        daemon_unit=places.DAEMON_UNIT_NAME,
        exec_start=quote_command(render_helper_argv(owner)),
    )


def render_daemon_unit(owner: Owner, daemon: Argv) -> str:
    """`daemon` is how the daemon is executed, without its flags."""
    python = daemon[0]
    return _DAEMON.format(
        written=_WRITTEN,
        owner=owner.name,
        home=quote(owner.home),
        helper_unit=places.HELPER_UNIT_NAME,
        exec_start=quote_command((*daemon, "--foreground", "--keep-vms")),
        exec_stop=quote_command((python, "-P", "-m", "banger.installation.host_shutdown")),
        runtime=places.RUNTIME,
        config=places.CONFIG_DIRECTORY,
    )


def quote(word: str) -> str:
    """A word as unit files have it: specifiers doubled, and quoted where that is needed (systemd.syntax(7))."""
    assert word.isprintable(), word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if escaped == word and not set(word) & set(" ';") else f'"{escaped}"'


def quote_command(argv: Argv) -> str:
    """Exec lines expand variables, too, but not in the program's path (systemd.service(5)). That may hold neither
    quotes nor backslashes: `validate_program`."""
    program, *words = argv
    return " ".join([quote(program), *(quote(word).replace("$", "$$") for word in words)])


def validate_program(path: str) -> None:
    if not path.isprintable() or set(path) & set("\"'\\"):
        raise Failure(
            "bad_request",
            f"systemd runs no program with quotes or backslashes in its path: {path!r}",
            hint="install banger at a plainer place, for example below /opt",
        )
