"""Ports of the host that lead to a guest: on the bridge and in user mode, at the start and while it runs."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from tests.host.world import CREATE, HOST, INTERNET, LAN_HOST, PORT, Resident, World, wait_created
from tests.support.banger import refused

UDP_PORT = 9000
SERVED = (f"tcp:{PORT}", f"udp:{PORT}", f"udp:{UDP_PORT}")
OPEN = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))):
    print("ready", flush=True)
    sys.stdin.read()
"""


def names_reached(world: World, *targets: str, outside: bool = False) -> dict[str, str]:
    """Target to the name of the guest that answered there."""
    answers = world.probe(world.outside if outside else world.host, *targets)
    return {target: said.partition(" sees ")[0] for target, said in answers.items() if " sees " in said}


class Modes(NamedTuple):
    """`p` is on the bridge, `u` in user mode; each has an owner with a daemon of its own."""

    world: World
    owners: dict[str, Resident]


@pytest.fixture(scope="module")
def modes(shared_world: World) -> Iterator[Modes]:
    """Both guests were created with published ports, which are the same up to the first digit. NAT, because without it
    QEMU's own network lets no UDP out of a guest, answers included; and it confuses two ports of the host that lead to
    one UDP port of a guest."""
    world = shared_world
    owners = {"p": world.user, "u": world.open_user("plain", 'network = "user"\n')}
    starts = []
    for digit, (name, user) in enumerate(owners.items(), 1):
        ports = ("--publish", f"{digit}8001:{PORT}", "--publish", f"{digit}8002:{PORT}/udp")
        starts.append(user.start(*CREATE, *ports, "--nat", name, stderr=subprocess.PIPE))
    wait_created(starts)
    for name, user in owners.items():
        user.serve(name, *SERVED)
    yield Modes(world, owners)
    for name, user in owners.items():
        user.delete(name)
    assert owners["u"].leftovers() == []


BOTH = pytest.mark.parametrize(("name", "digit"), [("p", 1), ("u", 2)], ids=["bridge", "user"])


@BOTH
def test_ports_are_published_on_loopback_unless_told_otherwise(modes: Modes, name: str, digit: int):
    world = modes.world
    assert (
        modes.owners[name].json("vm", "show", name)["posture"]["network_mode"]
        == {"p": "bridge", "u": "user"}[name]
    )
    here = [f"tcp:127.0.0.1:{digit}8001", f"udp:127.0.0.1:{digit}8002"]
    assert names_reached(world, *here) == dict.fromkeys(here, name)
    elsewhere = [
        f"{kind}:{address}:{digit}800{last}"
        for kind, last in (("tcp", 1), ("udp", 2))
        for address in (HOST, LAN_HOST)
    ]
    assert names_reached(world, *elsewhere) == {}
    assert names_reached(world, *elsewhere, outside=True) == {}


@BOTH
def test_ports_are_published_and_taken_back_while_the_guest_runs(modes: Modes, name: str, digit: int):
    world, user = modes.world, modes.owners[name]
    texts = [
        f"{HOST}:{digit}8003:{PORT}",
        f"0.0.0.0:{digit}8004:{PORT}",
        f"0.0.0.0:{digit}8005:{UDP_PORT}/udp",
    ]
    for text in texts:
        user.run("vm", "publish", name, text)
    outside = [
        f"tcp:{HOST}:{digit}8003",
        f"tcp:{HOST}:{digit}8004",
        f"tcp:{LAN_HOST}:{digit}8004",
        f"udp:{HOST}:{digit}8005",
    ]
    assert names_reached(world, *outside, outside=True) == dict.fromkeys(outside, name)
    assert names_reached(world, f"tcp:{LAN_HOST}:{digit}8003", outside=True) == {}
    assert names_reached(world, *outside) == dict.fromkeys(outside, name)
    for text in texts:
        user.run("vm", "unpublish", name, text)
    assert names_reached(world, *outside, outside=True) == {}
    for text in texts:
        kind = socket.SOCK_DGRAM if text.endswith("/udp") else socket.SOCK_STREAM
        assert can_bind(world, int(text.split(":")[1]), kind)


def can_bind(world: World, port: int, kind: int) -> bool:
    program = "import socket, sys; socket.socket(socket.AF_INET, int(sys.argv[2])).bind(('0.0.0.0', int(sys.argv[1])))"
    return (
        world.host.run(sys.executable, "-c", program, str(port), str(int(kind)), check=False).returncode == 0
    )


@BOTH
def test_a_port_that_is_taken_is_told_in_one_line(modes: Modes, name: str, digit: int):
    world, user = modes.world, modes.owners[name]
    port = f"{digit}8006"
    argv = world.host.argv(sys.executable, "-c", OPEN, "127.0.0.1", port)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"ready\n"
        before = user.vm(name)["spec"]["publish"]
        refused(
            user,
            "vm",
            "publish",
            name,
            f"{port}:{PORT}",
            status=75,
            words=port,
            hint="hint: ss ",
        )
        assert user.vm(name)["spec"]["publish"] == before
        refused(
            user,
            "vm",
            "create",
            "--publish",
            f"{port}:80",
            "--memory",
            "256M",
            "late",
            status=75,
            words=port,
            hint="hint: ss ",
        )
        holder.communicate()
    assert [vm["name"] for vm in user.json("vm", "list", "--all")["vms"] if vm["name"] == "late"] == []


@BOTH
def test_a_port_of_roots_is_refused(modes: Modes, name: str, digit: int):
    refused(
        modes.owners[name],
        "vm",
        "publish",
        name,
        f"127.0.0.1:{80 + digit}:{PORT}",
        status=77,
        words=f"{80 + digit}",
    )
    assert names_reached(modes.world, f"tcp:127.0.0.1:{80 + digit}") == {}


@BOTH
def test_publishing_to_a_stopped_vm_is_refused_with_what_to_do(modes: Modes, name: str, digit: int):
    world, user = modes.world, modes.owners[name]
    user.run("vm", "create", "--no-start", "idle")
    try:
        refused(
            user,
            "vm",
            "publish",
            "idle",
            f"{digit}8008:80",
            status=69,
            words="idle",
            hint="hint: banger vm start idle",
        )
        assert can_bind(world, int(f"{digit}8008"), socket.SOCK_STREAM)
    finally:
        user.run("vm", "delete", "idle")


@pytest.mark.parametrize(
    "text", ["80", "80:", ":80", "0:80", "65536:80", "1.2.3:80:80", "80:80/sctp", "a:b", "1:2:3:4"]
)
def test_nonsense_is_refused_before_anything_is_touched(modes: Modes, text: str):
    refused(modes.owners["p"], "vm", "publish", "p", text, status=64, words="")


def test_a_guests_published_port_is_no_way_to_its_neighbour(modes: Modes):
    """Not even by the host's address, where the outside gets in."""
    world, user = modes.world, modes.owners["p"]
    user.run("vm", "publish", "p", f"0.0.0.0:18009:{PORT}")
    try:
        assert names_reached(world, f"tcp:{HOST}:18009", outside=True) == {f"tcp:{HOST}:18009": "p"}
        targets = [f"tcp:{address}:18009" for address in (HOST, LAN_HOST, "10.209.0.1")]
        for name in ("a", "b"):
            assert [said for said in user.probe(name, *targets).values() if "sees" in said] == []
    finally:
        user.run("vm", "unpublish", "p", f"0.0.0.0:18009:{PORT}")


def test_two_guests_cannot_have_one_port(modes: Modes):
    refused(modes.owners["p"], "vm", "publish", "b", f"18001:{PORT}", status=75, words="18001")
    assert names_reached(modes.world, "tcp:127.0.0.1:18001") == {"tcp:127.0.0.1:18001": "p"}


def test_a_published_port_works_again_after_a_restart_of_the_guest(modes: Modes):
    world, user = modes.world, modes.owners["p"]
    user.run("vm", "restart", "p")
    user.serve("p", *SERVED)
    here = ["tcp:127.0.0.1:18001", "udp:127.0.0.1:18002"]
    assert names_reached(world, *here) == dict.fromkeys(here, "p")
    assert user.probe("p", f"tcp:{INTERNET}:{PORT}") == {f"tcp:{INTERNET}:{PORT}": f"outside sees {HOST}"}
