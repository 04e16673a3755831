"""A way out of a machine for the package mirrors: connections to them there are made from here."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.host.installation.machine import Machine

PORT = 80
_LISTEN = """
import socket, sys
listeners = [socket.create_server((address, int(sys.argv[2]))) for address in sys.argv[3:]]
channel = socket.socket(fileno=int(sys.argv[1]))
socket.send_fds(channel, [b"x"], [listener.fileno() for listener in listeners])
"""


@contextmanager
def relayed(machine: Machine, *hosts: str) -> Iterator[None]:
    """Programs in the machine reach these hosts, at port 80, under their own names."""
    addresses = {f"127.0.1.{number}": host for number, host in enumerate(hosts, start=1)}
    lines = [f"{address} {host}\n" for address, host in addresses.items()]
    machine.at("/etc/hosts").write_text("127.0.0.1 localhost\n" + "".join(lines))
    listeners = _listen(machine, *addresses)
    with ExitStack() as undo:
        for listener, host in zip(listeners, hosts, strict=True):
            undo.enter_context(listener)
            server = threading.Thread(target=_serve, args=(listener, host))
            server.start()
            undo.callback(server.join)
            undo.callback(listener.shutdown, socket.SHUT_RDWR)  # ends accept
        yield


def _listen(machine: Machine, *addresses: str) -> list[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = str(theirs.fileno())
        inside = ("nsenter", f"--net=/proc/{machine.pid}/ns/net", sys.executable, "-c", _LISTEN, channel)
        subprocess.run((*inside, str(PORT), *addresses), check=True, pass_fds=(theirs.fileno(),), timeout=30)
        _, descriptors, _, _ = socket.recv_fds(ours, 1, len(addresses))
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]


def _serve(listener: socket.socket, host: str) -> None:
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            threading.Thread(target=_relay, args=(near, host), daemon=True).start()


def _relay(near: socket.socket, host: str) -> None:
    with near, suppress(OSError), socket.create_connection((host, PORT), timeout=60) as far:
        back = threading.Thread(target=_copy, args=(far, near), daemon=True)
        back.start()
        _copy(near, far)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(1 << 16):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
