"""What a VMM finds in its jail: kernel, initramfs, disks, and the directory of sockets.

Owns no state. Files come as descriptors that the owner has opened for reading, and are linked where the VM's uid may
read them and nobody but their owner write to them, else copied; nothing is opened by a name. Refuses what is no
regular file, or neither the owner's nor root's.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from banger.privileged.contract.machines import DISKS_MAX, READ_ONLY, SNAPSHOT, LaunchVmm
from banger.privileged.contract.values import Refusal, refuse
from banger.privileged.helper.jail_place import SOCKETS
from banger.privileged.helper.loop import verify_file

KERNEL, INITRAMFS = "kernel", "initramfs"
METRICS, LOG = "metrics.fifo", "vmm.log"
FILE_BYTES_MAX = 1024**3  # a copy of it is made on root's disk
_COPY_MODE = 0o444
_FICLONE = 0x40049409
_O_PATH = 0o10000000
_UNLINKABLE = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOENT)
_UNCLONABLE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.EBADF, errno.ETXTBSY)
_UNCOPIABLE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


def disk_name(index: int) -> str:
    return f"disk{index}"


def verify_launch(request: LaunchVmm, descriptors: Sequence[int], owner: int) -> None:
    """That all files of a launch are there, are the owner's or root's, and are open as they have to be. Raises
    Refusal."""
    if len(descriptors) != request.files:
        raise refuse(f"this launch needs {request.files} files, and came with {len(descriptors)}")
    kernel, initramfs, console, *disks = descriptors
    _verify_boot_file(KERNEL, kernel, owner)
    _verify_boot_file(INITRAMFS, initramfs, owner)
    _verify_console(console, owner)
    kinds = (kind for kind in request.disks if kind != SNAPSHOT)
    for kind, disk in zip(kinds, disks, strict=True):
        verify_file(disk, read_only=kind == READ_ONLY, owner=owner)


def stage_file(root: int, name: str, descriptor: int) -> None:
    """A verified file, which the VM's uid can read and not change."""
    mode = os.fstat(descriptor).st_mode
    if mode & stat.S_IROTH and not mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID):
        try:
            os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=root, follow_symlinks=True)
        except OSError as error:
            if error.errno not in _UNLINKABLE:
                raise
        else:
            return
    copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _COPY_MODE, dir_fd=root)
    try:
        os.fchmod(copy, _COPY_MODE)  # whatever the umask says
        _copy(descriptor, copy)
    finally:
        os.close(copy)


def stage_disk(root: int, name: str, major: int, minor: int, uid: int) -> int:
    """A descriptor of the device, by this very node: while it is held, the numbers cannot become another device's."""
    os.mknod(name, stat.S_IFBLK | 0o600, os.makedev(major, minor), dir_fd=root)
    device = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    try:
        os.fchown(device, uid, uid)
    except BaseException:
        os.close(device)
        raise
    return device


def retire_disk(device: int) -> None:
    """From now on nobody but root opens the node, whatever other names the VMM has made for it. Who has it open goes
    on."""
    os.fchown(device, 0, 0)
    os.fchmod(device, 0)


def stage_sockets(root: int) -> int:
    """A descriptor of the directory. Owner and VMM write to it: the one by the descriptor, the other by its name.
    Firecracker makes neither its log nor its FIFO itself."""
    os.mkdir(SOCKETS, dir_fd=root)
    sockets = os.open(SOCKETS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    try:
        os.mkfifo(METRICS, dir_fd=sockets)
        os.close(os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=sockets))
        for name in (METRICS, LOG):
            os.chmod(name, 0o666, dir_fd=sockets)  # noqa: S103 (nobody else gets to it)
        os.fchmod(sockets, 0o777)
    except BaseException:
        os.close(sockets)
        raise
    return sockets


def unstage(root: int) -> None:
    """The VMM has opened all that it was given: the names go, and with the last user what they were names of. What it
    may have put in their place stays until its jail is removed."""
    for name in (KERNEL, INITRAMFS, *map(disk_name, range(DISKS_MAX))):
        with suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(name, dir_fd=root)


def has_disks(root: int) -> bool:
    """Whether there are still names of devices."""
    return any(_is_device(root, disk_name(index)) for index in range(DISKS_MAX))


def _verify_boot_file(name: str, descriptor: int, owner: int) -> None:
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        raise refuse(f"the {name} is no regular file")
    if state.st_uid not in (owner, 0):
        raise Refusal("unauthorized", f"the {name} is a file of uid {state.st_uid}, not of uid {owner}")
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    # A descriptor that is only a place (O_PATH) proves no right to read.
    if flags & _O_PATH or flags & os.O_ACCMODE not in (os.O_RDONLY, os.O_RDWR):
        raise refuse(f"the {name} is not open for reading")
    if not 0 < state.st_size <= FILE_BYTES_MAX:
        raise refuse(f"a {name} of {state.st_size} bytes is not possible")


def _verify_console(descriptor: int, owner: int) -> None:
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or state.st_uid not in (owner, 0):
        raise refuse("the console is no regular file of the owner's")
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if flags & _O_PATH or flags & os.O_ACCMODE not in (os.O_WRONLY, os.O_RDWR):
        raise refuse("the console is not open for writing")


def _is_device(root: int, name: str) -> bool:
    try:
        state = os.stat(name, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISBLK(state.st_mode)


def _copy(source: int, target: int) -> None:
    """By reference where the file system can (reflink), else in the kernel. The source's position stays."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _UNCLONABLE:
            raise
    else:
        return
    size = os.fstat(source).st_size
    done = 0
    try:
        while done < size and (count := os.copy_file_range(source, target, size - done, done, done)):
            done += count
    except OSError as error:
        if error.errno not in _UNCOPIABLE:
            raise
    while done < size and (count := _send(source, target, size - done, done)):
        done += count
    if done < size:
        raise Refusal("operation_failed", "a file has become shorter while it was copied to the jail")


def _send(source: int, target: int, size: int, offset: int) -> int:
    """Between file systems."""
    os.lseek(target, offset, os.SEEK_SET)
    return os.sendfile(target, source, offset, size)
