"""The names in a VM's runtime directory, which is Firecracker's working directory while it runs outside a jail.

Owns which files are there and that none is left. Everything is relative to that directory, so the bodies of the
requests (`bodies`) name nothing of the host, and no name is too long for a socket.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from banger.vmm.contract import Place
from banger.vmm.firecracker.bodies import AGENT_PORT, INITRAMFS, KERNEL
from banger.vmm.firecracker.sockets import AGENT_SOCKET, API_SOCKET, DIRECTORY, METRICS, VMM_LOG

KNOCK_SOCKET = f"{AGENT_SOCKET}_{AGENT_PORT}"  # Firecracker's own rule: uds_path, underscore, port
_LINKS = re.compile("|".join((re.escape(KERNEL), re.escape(INITRAMFS), r"disk\d+")))
_SOCKETS = (API_SOCKET, AGENT_SOCKET, KNOCK_SOCKET, METRICS, VMM_LOG)


def sockets_directory(place: Place) -> Path:
    return Path(place.runtime) / DIRECTORY


def prepare_place(place: Place, links: dict[str, str]) -> None:
    """An empty working directory with its links, the pipe for metrics, and the log where it is kept. A socket that a
    boot before has left would be «Address in use»."""
    clear_place(place.runtime)
    for name, target in links.items():
        (Path(place.runtime) / name).symlink_to(target)
    sockets = sockets_directory(place)
    sockets.mkdir(mode=0o700, exist_ok=True)
    os.mkfifo(sockets / METRICS, 0o600)
    (sockets / VMM_LOG).symlink_to(Path(place.state) / VMM_LOG)


def clear_place(runtime: str) -> None:
    """Removes what is ours. Idempotent; links are removed, never followed."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in list(os.scandir(runtime)):
            if _LINKS.fullmatch(entry.name):
                _remove(Path(entry.path))
    sockets = Path(runtime) / DIRECTORY
    for name in _SOCKETS:
        _remove(sockets / name)
    with suppress(OSError):  # somebody else's files stay, and their directory with them
        sockets.rmdir()


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        path.unlink()
