"""The names in a VM's runtime directory, which is Firecracker's working directory while it runs outside a jail.

Owns which files are there and that none is left. Everything is relative to that directory, so the bodies of the
requests (`bodies`) name nothing of the host.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from banger.base.problem import bad_request
from banger.vmm.contract import Place
from banger.vmm.firecracker.bodies import AGENT_PORT, AGENT_SOCKET, INITRAMFS, KERNEL

API_SOCKET = "api.sock"
KNOCK_SOCKET = f"{AGENT_SOCKET}_{AGENT_PORT}"  # Firecracker's own rule: uds_path, underscore, port
METRICS = "metrics.fifo"
_SUN_PATH_MAX_BYTES = 107  # unix(7), without the final NUL
_OURS = re.compile(
    "|".join(
        (*map(re.escape, (API_SOCKET, AGENT_SOCKET, KNOCK_SOCKET, METRICS, KERNEL, INITRAMFS)), r"disk\d+")
    )
)


def agent_socket_path(place: Place) -> str:
    return f"{place.runtime}/{AGENT_SOCKET}"


def api_socket_path(place: Place) -> str:
    return f"{place.runtime}/{API_SOCKET}"


def prepare_place(place: Place, links: dict[str, str]) -> None:
    """An empty working directory with its links and the pipe for metrics. A socket that a boot before has left
    would be «Address in use». Raises `bad_request` when the directory's name is too long for sockets."""
    longest = f"{place.runtime}/{KNOCK_SOCKET}"
    if len(os.fsencode(longest)) > _SUN_PATH_MAX_BYTES:
        raise bad_request(
            f"the socket path {longest} exceeds {_SUN_PATH_MAX_BYTES} bytes",
            hint="export BANGER_RUNTIME_DIR=/tmp/banger-$(id -u)",
        )
    clear_place(place.runtime)
    directory = Path(place.runtime)
    for name, target in links.items():
        (directory / name).symlink_to(target)
    os.mkfifo(directory / METRICS, 0o600)


def clear_place(runtime: str) -> None:
    """Removes what is ours. Idempotent; links are removed, never followed."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in list(os.scandir(runtime)):
            if _OURS.fullmatch(entry.name):
                with suppress(FileNotFoundError, IsADirectoryError):
                    Path(entry.path).unlink()
