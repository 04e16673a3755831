"""What is made before QEMU begins and handed over as descriptors: its sockets and the guest's memory.

Owns the names in a VM's runtime directory. A listening socket that exists before its server takes
connections at once, so nobody polls; memory is a file without a name, so it cannot outlive the process.
"""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from banger.base.problem import Code, Outcome, Problem, bad_request
from banger.base.units import MIB, render_size
from banger.vmm.contract import Place
from banger.vmm.qemu.argv import Descriptors

_SUN_PATH_MAX_BYTES = 107  # unix(7), without the final NUL
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (no name is made there)
_TMPFS_MAGIC = "tmpfs"


def agent_socket_path(place: Place) -> str:
    return f"{place.runtime}/agent.sock"


def control_socket_path(place: Place) -> str:
    return f"{place.runtime}/qmp.sock"


def remove_sockets(paths: Sequence[str]) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            Path(path).unlink()


@contextmanager
def open_descriptors(
    place: Place, memory_mib: int, tap: int | None = None
) -> Iterator[tuple[Descriptors, str]]:
    """Descriptors to inherit (the caller's tap among them) and the directory that holds the memory. They are
    closed at the end of the block: a copy kept here would go on accepting for a QEMU that has gone."""
    with ExitStack() as stack:
        agent = stack.enter_context(_listen(agent_socket_path(place)))
        control = stack.enter_context(_listen(control_socket_path(place)))
        directory = choose_memory_directory((place.runtime, _SHARED_MEMORY, place.state), memory_mib)
        memory = _open_memory(directory, memory_mib)
        stack.callback(os.close, memory)
        yield Descriptors(agent.fileno(), control.fileno(), memory, tap), directory


def _listen(path: str) -> socket.socket:
    """A listening socket at the path; replaces one left by a boot that has gone."""
    if len(os.fsencode(path)) > _SUN_PATH_MAX_BYTES:
        raise bad_request(
            f"the socket path {path} exceeds {_SUN_PATH_MAX_BYTES} bytes",
            hint="export BANGER_RUNTIME_DIR=/tmp/banger-$(id -u)",
        )
    remove_sockets((path,))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(path)
        Path(path).chmod(0o600)
        listener.listen(8)
    except OSError as error:
        listener.close()
        raise Problem(
            Code.OPERATION_FAILED, f"cannot listen on {path}: {error.strerror}", outcome=Outcome.NOT_STARTED
        ) from error
    return listener


def choose_memory_directory(candidates: Sequence[str], memory_mib: int) -> str:
    """The first directory on tmpfs with room for all of the guest's memory, else the last one, on disk.

    A file on tmpfs is memory like any other; one on disk costs writing back. Pages are allocated when the
    guest first touches them, and a full file system kills the VMM then, hence room for all.
    """
    for directory in candidates:
        if _file_system_of(directory) == _TMPFS_MAGIC and _available_mib(directory) >= memory_mib:
            return directory
    fallback = candidates[-1]
    available_mib = _available_mib(fallback)
    if available_mib < memory_mib:
        raise Problem(
            Code.NO_SPACE,
            f"no room for {render_size(memory_mib * MIB)} of guest memory: {fallback} has "
            f"{render_size(available_mib * MIB)}, and no tmpfs has more",
            hint="banger vm run --memory 256M",
            outcome=Outcome.NOT_STARTED,
        )
    return fallback


def _available_mib(directory: str) -> int:
    state = os.statvfs(directory)
    return state.f_bavail * state.f_frsize // MIB


def _file_system_of(directory: str) -> str:
    """The type of the mount that holds the directory (proc(5), mountinfo); empty when unknown."""
    try:
        device = Path(directory).stat().st_dev
    except FileNotFoundError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="replace") as mounts:
        for mount in mounts:
            before, _, after = mount.partition(" - ")
            if before.split(" ", 3)[2] == wanted:
                return after.split(" ", 1)[0]
    return ""


def _open_memory(directory: str, memory_mib: int) -> int:
    """A sparse file without a name. A snapshot can still name it later (linkat(2) from /proc/PID/fd)."""
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR}:
            raise Problem(
                Code.OPERATION_FAILED,
                f"cannot make guest memory in {directory}: {error.strerror}",
                outcome=Outcome.NOT_STARTED,
            ) from error
        descriptor = os.memfd_create("banger-guest-memory", os.MFD_CLOEXEC)  # some overlay and network mounts
    os.ftruncate(descriptor, memory_mib * MIB)
    return descriptor
