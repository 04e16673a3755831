"""Ports of the host: which are free, and sockets that hold one.

In user mode the VMM listens itself: between the look and its own bind another process may take the port, a start then
fails with `conflict`, and the caller asks for another port. On the bridge the port is held here while the kernel leads
it to the guest.
"""

import errno
import socket

from banger.base.problem import Code, Outcome, Problem, conflict
from banger.model.machine import PortForward
from banger.model.ports import render_publish
from banger.model.vm import LOOPBACK


def find_port(preferred: int | None = None, address: str = LOOPBACK) -> int:
    """A free TCP port: the preferred one if it can be, so that it stays the VM's across restarts; else any."""
    for port in (preferred, 0):
        if port is None:
            continue
        try:
            with _bind(socket.SOCK_STREAM, address, port, reuse=True) as probe:
                bound = probe.getsockname()[1]
        except OSError:
            continue
        assert isinstance(bound, int)
        return bound
    raise AssertionError("the kernel has no free port")


def check_port(forward: PortForward) -> None:
    """Raises a Problem that says why the port could not be listened on now."""
    hold_port(forward, reuse=True).close()


def hold_port(forward: PortForward, *, reuse: bool = False) -> socket.socket:
    """A socket bound to the port, which nobody else can have while it is open. Raises `conflict` when somebody has
    it, `bad_request` and `unauthorized` when this user or host cannot. `reuse` overlooks old connections."""
    kind = socket.SOCK_STREAM if forward.protocol == "tcp" else socket.SOCK_DGRAM
    try:
        return _bind(kind, forward.host_address, forward.host_port, reuse=reuse)
    except OSError as error:
        raise _explain(forward, error) from error


def _bind(kind: int, address: str, port: int, *, reuse: bool) -> socket.socket:
    bound = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    try:
        if reuse and kind == socket.SOCK_STREAM:
            bound.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # as QEMU does: TIME_WAIT is no obstacle
        bound.bind((address, port))
        if reuse and kind == socket.SOCK_STREAM:
            bound.listen(1)  # with SO_REUSEADDR only this finds another listener
    except OSError:
        bound.close()
        raise
    return bound


def _explain(forward: PortForward, error: OSError) -> Problem:
    place = f"{forward.host_address}:{forward.host_port}/{forward.protocol}"
    if error.errno == errno.EADDRINUSE:
        flag = "l" + forward.protocol[0]
        return conflict(
            f"port {place} of the host is taken", hint=f"ss -{flag}np sport = :{forward.host_port}"
        )
    if error.errno == errno.EACCES:
        return Problem(
            Code.UNAUTHORIZED,
            f"port {place} of the host is for root only",
            hint=f"publish another: --publish {render_publish(forward)}".replace(
                f":{forward.host_port}:", f":{forward.host_port + 8000}:"
            ),
            outcome=Outcome.NOT_STARTED,
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return Problem(
            Code.BAD_REQUEST,
            f"{forward.host_address} is no address of this host",
            hint="ip -brief address",
            outcome=Outcome.NOT_STARTED,
        )
    return Problem(
        Code.OPERATION_FAILED,
        f"port {place} of the host cannot be used: {error.strerror}",
        outcome=Outcome.NOT_STARTED,
    )
