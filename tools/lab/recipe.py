"""What the lab is made of, as data, and the digest of all that decides it. Pure but for reading `inside/`.

It is an ordinary Debian host: systemd, udev and kmod load what a host loads, nothing is prepared for banger. Left
out is only what takes room or boot time and is nobody's subject here.
"""

import hashlib
from pathlib import Path

from banger.images.archive import MOUNT_POINTS, AddedFile, TreeEdit

INSIDE = Path(__file__).parent / "inside"
SUITE = "bookworm"
PYTHON = "3.11"  # the suite's own: which wheels the payload has
KERNEL_PACKAGE = "linux-image-cloud-amd64"
OWNER, OTHER = "alice", "bob"
OWNER_ID = 1000
PACKAGES = (
    "busybox-static",
    "curl",
    "dbus",
    "dmsetup",
    "e2fsprogs",
    "git",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libpam-systemd",
    "login",
    "nftables",
    "openssh-client",
    "procps",
    "python3",
    "python3-venv",
    "qemu-system-x86",
    "strace",
    "sudo",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
    "uidmap",
)
# Never unpacked.
EXCLUDED_PATHS = (
    "/lib/udev/hwdb.d/*",
    "/usr/bin/qemu-storage-daemon",
    "/usr/lib/ipxe/*",
    "/usr/libexec/qemu-system-i386",
    "/usr/lib/x86_64-linux-gnu/gconv/*",
    "/usr/share/doc/*",
    "/usr/share/iso-codes/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/share/qemu/openbios-*",
    "/usr/share/qemu/skiboot.lid",
    "/usr/share/xml/*",
)
# Wanted while packages are set up (usrmerge), not later.
DROPPED_PATHS = ("usr/lib/x86_64-linux-gnu/perl/*", "usr/share/perl/*")
# Of the kernel's modules: hardware that QEMU does not have, file systems that nobody mounts.
DROPPED_MODULES = (
    "drivers/gpu",
    "drivers/infiniband",
    "drivers/net/ethernet",
    "drivers/nvme",
    "drivers/scsi",
    "drivers/target",
    "fs/ceph",
    "fs/cifs",
    "fs/nfs",
    "fs/nfsd",
    "fs/smb",
    "net/ceph",
    "net/sunrpc",
)
BOOT_MODULES = ("virtio_pci", "virtio_blk", "ext4")
MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-machine-id-commit.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-timesyncd.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
)
ROOT_BYTES = 6 * 1024**3  # sparse
HOME_BYTES = 40 * 1024**3  # sparse
# One line of the kernel's each. The time stamp counter's frequency is added when a lab is started.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests random.trust_cpu=on "
    "net.ifnames=0 systemd.show_status=no tsc=reliable no_timer_check"
)
# All that QEMU can emulate, but for five-level paging, which guests of less would share with their host: Firecracker
# wants XSAVE of KVM, and simpler models with it do not boot.
CPU = "max,+svm,-la57"
PROCESSORS = 1
MEMORY_MIB = 3072

_JOURNALD = b"[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\nRateLimitBurst=0\n"
_SYSTEMD = b"[Manager]\nDefaultTimeoutStopSec=20s\n"
_SUDOERS = f"{OWNER} ALL=(ALL) NOPASSWD: ALL\n".encode()


def render_edit() -> TreeEdit:
    """What becomes different between the packages and the root file system."""
    units = "etc/systemd/system/"
    return TreeEdit(
        drop=(*DROPPED_PATHS, "dev/*", "run/*", "tmp/*", "etc/resolv.conf", "var/cache/apt/*", "var/log/*"),
        files={
            "etc/fstab": AddedFile(),
            "etc/hostname": AddedFile(b"lab\n"),
            "etc/hosts": AddedFile(b"127.0.0.1 localhost\n127.0.1.1 lab\n"),
            "etc/machine-id": AddedFile(
                hashlib.md5(b"lab", usedforsecurity=False).hexdigest().encode() + b"\n"
            ),
            "etc/sudoers.d/lab": AddedFile(_SUDOERS, 0o440),
            "etc/systemd/journald.conf.d/lab.conf": AddedFile(_JOURNALD),
            "etc/systemd/system.conf.d/lab.conf": AddedFile(_SYSTEMD),
            "etc/udev/rules.d/60-lab.rules": _read("60-lab.rules"),
            units + "lab-agent.service": _read("lab-agent.service"),
            units + "lab-network.service": _read("lab-network.service"),
            units + "serial-getty@hvc0.service.d/autologin.conf": _read("autologin.conf"),
            "opt/lab/agent.py": _read("agent.py"),
        },
        links={
            "etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
            units + "default.target": "/lib/systemd/system/multi-user.target",
            units
            + "getty.target.wants/serial-getty@hvc0.service": "/lib/systemd/system/serial-getty@.service",
            **{units + unit: "/dev/null" for unit in MASKED_UNITS},
        },
        directories=MOUNT_POINTS,
    )


def plan_users(tree: str) -> str:
    """A hook of mmdebstrap's, with the tree for `$1`: an owner-to-be who may use KVM and sudo, and somebody else."""
    chroot = f'chroot "{tree}"'
    add = f"{chroot} useradd --create-home --shell /bin/bash"
    return f"{add} --uid {OWNER_ID} --groups kvm,sudo {OWNER} && {add} --uid {OWNER_ID + 1} {OTHER}"


def digest_recipe() -> str:
    """Of everything here and below `inside/`."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted(INSIDE.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def _read(name: str) -> AddedFile:
    return AddedFile((INSIDE / name).read_bytes())
