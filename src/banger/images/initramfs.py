"""The base initramfs of a kernel: the guest program as /init and the boot modules in load order. Pure.

Two archives that follow one another, so that a new guest program costs no new look at the modules:
init's, then the modules'. The daemon appends a third for each VM (guest-agent/protocol.md, "Boot configuration").
"""

import stat
from collections.abc import Iterable

from banger.base.cpio import CpioEntry, render_archive

_DIRECTORY = stat.S_IFDIR | 0o755
_MOUNT_POINTS = ("dev", "proc", "root", "run", "sys", "tmp")


def render_init_archive(guest_program: bytes) -> bytes:
    """/init, the console it writes to before devtmpfs is there, and the directories it mounts on."""
    return render_archive(
        [
            *(CpioEntry(name, _DIRECTORY) for name in _MOUNT_POINTS),
            # The kernel opens /dev/console for PID 1 before init could mount anything.
            CpioEntry("dev/console", stat.S_IFCHR | 0o600, device_major=5, device_minor=1),
            CpioEntry("init", stat.S_IFREG | 0o755, content=guest_program),
        ]
    )


def render_modules_archive(
    early: Iterable[tuple[str, bytes]], late: Iterable[tuple[str, bytes]] = ()
) -> bytes:
    """/modules/NNN-name.ko and /modules/late/NNN-name.ko: NNN is the place in the load order, from 000."""
    entries = []
    for directory, modules in (("modules", early), ("modules/late", late)):
        entries.append(CpioEntry(directory, _DIRECTORY))
        for place, (name, content) in enumerate(modules):
            entries.append(
                CpioEntry(f"{directory}/{place:03d}-{name}.ko", stat.S_IFREG | 0o644, content=content)
            )
    return render_archive(entries)
