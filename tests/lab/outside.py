"""What lies beyond the lab, which leads nowhere itself: a namespace with servers, one hop away from the host.

    guests -- bridge -- host 192.0.2.1 -- 192.0.2.2 outside, which is 203.0.113.7, "the internet", as well

It has no route back to the guests: only what has been masqueraded gets an answer. `example.net` is known there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.machine import OUTSIDE, Machine

HOST, GATEWAY, INTERNET, PORT = "192.0.2.1", "192.0.2.2", "203.0.113.7", 8000
NAME = "example.net"
SERVERS = Path(__file__).parents[1] / "host" / "servers.py"
REACH = f"""
import socket
with socket.create_connection(("{INTERNET}", {PORT}), 20) as connection:
    connection.settimeout(20)
    connection.sendall(b"hello\\n")
    print(connection.recv(100).decode(), end="")
"""  # for a guest's Python; says whom outside sees
_MAKE = f"""
ip netns add {OUTSIDE}
ip link add wan type veth peer name wan netns {OUTSIDE}
ip addr add {HOST}/30 dev wan
ip link set wan up
ip -n {OUTSIDE} addr add {GATEWAY}/30 dev wan
ip -n {OUTSIDE} link set wan up
ip -n {OUTSIDE} addr add {INTERNET}/32 dev lo
ip -n {OUTSIDE} link set lo up
ip route add {INTERNET}/32 via {GATEWAY}
resolvectl dns wan {INTERNET}
resolvectl domain wan '~.'
mkfifo /run/outside-ready
"""


@contextmanager
def open_outside(machine: Machine) -> Iterator[None]:
    machine.sh(_MAKE)
    machine.put("/run/outside.py", SERVERS.read_bytes())
    program = f"exec python3 -I -S /run/outside.py outside tcp:{PORT} dns:53 > /run/outside-ready"
    serving = machine.start(("ip", "netns", "exec", OUTSIDE, "sh", "-c", program), timeout_s=3600)
    assert machine.sh("head -n 1 /run/outside-ready") == "ready\n"
    yield
    serving.signal(15)
    serving.wait()
    machine.sh(f"ip link delete wan; ip netns delete {OUTSIDE}")
