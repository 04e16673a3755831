"""What makes a Debian tree a good microVM guest: masks, sshd's manners, nothing of the build host. Data only.

Vendor links below /usr that a package upgrade may bring back are dropped, never masked, where the unit itself
is wanted on demand (dbus, logind).
"""

from banger.images.archive import MOUNT_POINTS, AddedFile, TreeEdit

# Nothing here has work in a microVM: no console to log in on, no fstab, no ACPI pstore, no encrypted disks.
# Our init has mounted what must be mounted and configured the only NIC.
MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "cryptsetup.target",
    "dev-hugepages.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "getty-static.service",
    "getty@tty1.service",
    "integritysetup.target",
    "remote-cryptsetup.target",
    "remote-veritysetup.target",
    "serial-getty@ttyS0.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-initctl.socket",
    "systemd-journal-flush.service",
    "systemd-journald-audit.socket",
    "systemd-machine-id-commit.service",
    "systemd-networkd-wait-online.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-repart.service",
    "systemd-sysusers.service",
    "systemd-udev-settle.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "veritysetup.target",
)

_SSHD_CONFIG = """\
# The host key is made on the host, one for each VM, and put here at boot.
HostKey /etc/ssh/ssh_host_ed25519_key
KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org,sntrup761x25519-sha512@openssh.com
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
"""

# Debian's unit with two changes: no second reading of the configuration (sshd -t), and no waiting for
# sysinit.target, which sshd does not need once our init has mounted the root and brought the NIC up.
_SSH_SERVICE = """\
[Unit]
Description=OpenBSD Secure Shell server
Documentation=man:sshd(8) man:sshd_config(5)
DefaultDependencies=no
After=-.mount
Conflicts=shutdown.target
Before=shutdown.target
ConditionPathExists=!/etc/ssh/sshd_not_to_be_run

[Service]
EnvironmentFile=-/etc/default/ssh
ExecStart=/usr/sbin/sshd -D $SSHD_OPTS
ExecReload=/usr/sbin/sshd -t
ExecReload=/bin/kill -HUP $MAINPID
KillMode=process
Restart=on-failure
RestartPreventExitStatus=255
Type=notify
RuntimeDirectory=sshd
RuntimeDirectoryMode=0755

[Install]
WantedBy=multi-user.target
Alias=sshd.service
"""

_JOURNALD_CONFIG = """\
[Journal]
Storage=volatile
RuntimeMaxUse=16M
"""

# PID 1 loads these by itself, each from the modules disk. An explicit modprobe and iptables still find them.
_MODPROBE_CONFIG = """\
blacklist ip_tables
blacklist qemu_fw_cfg
"""

_SYSTEM_CONFIG = """\
[Manager]
ShowStatus=no
DefaultTimeoutStopSec=15s
"""

_WANTS = "*/systemd/system/"

DEBIAN_EDIT = TreeEdit(
    drop=(
        # Of the build host, or of the one boot that never was.
        "etc/ssh/ssh_host_*",
        "etc/resolv.conf",
        "etc/hostname",
        "run/*",
        "tmp/*",
        "var/cache/apt/*.bin",
        "var/log/*.log",
        "var/log/apt/*",
        # On demand only, see above.
        _WANTS + "getty.target.wants/*",
        _WANTS + "multi-user.target.wants/dbus.service",
        _WANTS + "multi-user.target.wants/getty.target",
        _WANTS + "multi-user.target.wants/remote-fs.target",
        _WANTS + "multi-user.target.wants/systemd-logind.service",
        _WANTS + "multi-user.target.wants/e2scrub_reap.service",
        _WANTS + "sysinit.target.wants/systemd-pstore.service",
        _WANTS + "timers.target.wants/apt-daily*.timer",
        _WANTS + "timers.target.wants/dpkg-db-backup.timer",
        _WANTS + "timers.target.wants/e2scrub_all.timer",
    ),
    files={
        # Empty, not missing: systemd then makes an id for this VM without taking the boot for a first one.
        "etc/machine-id": AddedFile(b"", 0o444),
        "etc/fstab": AddedFile(),
        "etc/motd": AddedFile(),
        "etc/default/locale": AddedFile(b"LANG=C.UTF-8\n"),
        "etc/modprobe.d/10-banger.conf": AddedFile(_MODPROBE_CONFIG.encode()),
        "etc/ssh/sshd_config.d/10-banger.conf": AddedFile(_SSHD_CONFIG.encode()),
        "etc/systemd/system/ssh.service": AddedFile(_SSH_SERVICE.encode()),
        "etc/systemd/journald.conf.d/10-banger.conf": AddedFile(_JOURNALD_CONFIG.encode()),
        "etc/systemd/system.conf.d/10-banger.conf": AddedFile(_SYSTEM_CONFIG.encode()),
    },
    links={
        "etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target",
        # No login prompt on the serial console, which carries the kernel's log.
        "etc/systemd/system-generators/systemd-getty-generator": "/dev/null",
        # The NIC keeps the kernel's name, should udev be installed later.
        "etc/systemd/network/99-default.link": "/dev/null",
        **{f"etc/systemd/system/{unit}": "/dev/null" for unit in MASKED_UNITS},
    },
    directories=MOUNT_POINTS,
)
