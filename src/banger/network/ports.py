"""Ports of the host that a VMM is about to listen on.

Owns nothing: between the look and the VMM's own bind another process may take the port. A start then fails
with `conflict`, and the caller asks for another port; that is the only way without a race.
"""

import socket

from banger.network.user import LOOPBACK


def is_port_free(port: int, address: str = LOOPBACK) -> bool:
    """Whether a TCP server could listen there now."""
    return _try_bind(port, address) is not None


def find_port(preferred: int | None = None, address: str = LOOPBACK) -> int:
    """The preferred port while it is free, so that it stays the VM's across restarts; else any."""
    if preferred is not None and is_port_free(preferred, address):
        return preferred
    port = _try_bind(0, address)
    assert port is not None, "the kernel has no free port"
    return port


def _try_bind(port: int, address: str) -> int | None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as QEMU does: TIME_WAIT is no obstacle
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError:
            return None
        bound = probe.getsockname()[1]
        assert isinstance(bound, int)
        return bound
