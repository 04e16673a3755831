"""What a VM on the bridge is to its host, its neighbours and the world: addresses, names, NAT, isolation."""

import subprocess

import pytest
from tests.host.world import (
    BRIDGE,
    BRIDGE_ADDRESS,
    FLOW,
    GATEWAY,
    HOST,
    INTERNET,
    LAN,
    LAN_HOST,
    PORT,
    SUBNET,
    Resident,
    World,
    reached,
    wait_until,
)

OUTSIDE = f"outside sees {HOST}"


def all_outside(*kinds: str) -> list[str]:
    return [f"{kind}:{address}:{PORT}" for kind in kinds for address in (INTERNET, GATEWAY, LAN)]


def own_ports() -> list[str]:
    """The host's servers on each of its addresses."""
    return [
        f"{kind}:{address}:{PORT}" for kind in ("tcp", "udp") for address in (BRIDGE_ADDRESS, HOST, LAN_HOST)
    ]


def test_each_vm_has_an_address_and_says_so(guests: World):
    user = guests.user
    addresses = {name: user.address(name) for name in ("a", "b")}
    assert set(addresses.values()) == {"10.209.0.2", "10.209.0.3"}
    for name, nat in (("a", True), ("b", False)):
        shown = user.json("vm", "show", name)
        assert shown["posture"]["network_mode"] == "bridge"
        assert (shown["vm"]["runtime"]["network_mode"], shown["vm"]["runtime"]["address"]) == (
            "bridge",
            addresses[name],
        )
        assert shown["vm"]["runtime"]["tap"] in [link["ifname"] for link in guests.host.links()]
        assert shown["vm"]["spec"]["nat"] is nat
        assert f"{addresses[name]}/24" in user.guest(
            name, "ip", "-4", "-o", "addr", "show", "scope", "global"
        )


def test_ssh_reaches_the_address(guests: World):
    user = guests.user
    shown = user.json("vm", "show", "a")
    ssh = shown["ssh"]
    options = {
        "IdentityFile": ssh["identity_file"],
        "UserKnownHostsFile": ssh["known_hosts_file"],
        "HostKeyAlias": ssh["host_key_alias"],
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
    }
    flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    done = user.call("ssh", "-F", "none", *flags, f"root@{shown['vm']['address']}", "hostname")
    assert (done.returncode, done.stdout) == (0, "a\n"), done.stderr
    assert user.run("vm", "ssh", "b", "--", "hostname").stdout == b"b\n"


def dig(user: Resident, *words: str) -> tuple[str, list[str]]:
    """Status and answers of a query to the bridge's name server."""
    done = user.call("dig", f"@{BRIDGE_ADDRESS}", "+noall", "+comments", "+answer", "+tries=1", *words)
    lines = done.stdout.splitlines()
    (status,) = [line.split("status: ")[1].split(",")[0] for line in lines if "status: " in line]
    return status, [line.split()[-1] for line in lines if line and not line.startswith(";")]


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_the_bridges_name_server_knows_the_vms(guests: World, transport: str):
    user = guests.user
    address = user.address("a")
    assert dig(user, transport, "a.vm") == ("NOERROR", [address])
    assert dig(user, transport, "A.VM") == ("NOERROR", [address])
    assert dig(user, transport, "-x", address) == ("NOERROR", ["a.vm."])
    assert dig(user, transport, "a.vm", "AAAA") == ("NOERROR", [])
    assert dig(user, transport, "nobody.vm") == ("NXDOMAIN", [])
    assert dig(user, transport, "-x", "10.209.0.200") == ("NXDOMAIN", [])


def test_curl_reaches_a_server_in_the_guest_by_its_name(guests: World):
    """As on a host whose resolv.conf names the bridge: the name goes through the C library's resolver."""
    argv = guests.with_resolver(BRIDGE_ADDRESS, "curl", "-sS", "--max-time", "10", f"http://b.vm:{PORT}/")
    assert guests.host.run(*argv).stdout == f"b sees {BRIDGE_ADDRESS}\n"


def test_a_stopped_vm_has_no_name_and_gets_its_address_again(guests: World):
    user = guests.user
    user.create("c", "--nat")
    address = user.address("c")
    assert dig(user, "c.vm") == ("NOERROR", [address])
    user.run("vm", "stop", "c")
    assert dig(user, "c.vm") == ("NXDOMAIN", [])
    assert user.address("c") == address
    user.run("vm", "start", "c")
    assert (user.address("c"), dig(user, "c.vm")) == (address, ("NOERROR", [address]))
    assert reached(user.probe("c", f"tcp:{INTERNET}:{PORT}"))
    user.delete("c")
    assert dig(user, "c.vm") == ("NXDOMAIN", [])


@pytest.mark.parametrize("bridge_netfilter", [1, 0])
def test_nat_leads_to_the_public_network_and_nowhere_else(guests: World, bridge_netfilter: int):
    """Docker turns on what sends bridged traffic through the other tables, too; it must not matter."""
    user = guests.user
    guests.host.set_value("net.bridge.bridge-nf-call-iptables", bridge_netfilter)
    others = [
        f"tcp:{user.address('b')}:{PORT}",
        f"udp:{user.address('b')}:{PORT}",
        f"ping:{user.address('b')}",
    ]
    answers = user.probe("a", *all_outside("tcp", "udp"), f"ping:{INTERNET}", *own_ports(), *others)
    assert reached(answers) == {
        f"tcp:{INTERNET}:{PORT}": OUTSIDE,
        f"udp:{INTERNET}:{PORT}": OUTSIDE,
        f"ping:{INTERNET}": "pong",
    }
    guests.host.set_value("net.bridge.bridge-nf-call-iptables", 1)


@pytest.mark.parametrize("bridge_netfilter", [1, 0])
def test_without_nat_nothing_is_reached(guests: World, bridge_netfilter: int):
    user = guests.user
    guests.host.set_value("net.bridge.bridge-nf-call-iptables", bridge_netfilter)
    others = [
        f"tcp:{user.address('a')}:{PORT}",
        f"udp:{user.address('a')}:{PORT}",
        f"ping:{user.address('a')}",
    ]
    answers = user.probe("b", *all_outside("tcp", "udp"), f"ping:{INTERNET}", *own_ports(), *others)
    assert reached(answers) == {}
    told = {said for target, said in answers.items() if target.startswith("tcp") and target not in others}
    assert told <= {"EHOSTUNREACH", "ECONNREFUSED", "EACCES"}, "refused at once, not by a timeout"
    guests.host.set_value("net.bridge.bridge-nf-call-iptables", 1)


def test_what_guests_do_not_reach_is_there(guests: World):
    """The other tests' negatives mean something: the host itself reaches all of it."""
    user = guests.user
    neighbours = [f"{kind}:{user.address(name)}:{PORT}" for name in ("a", "b") for kind in ("tcp", "udp")]
    targets = [*all_outside("tcp", "udp"), *own_ports(), *neighbours]
    assert set(reached(guests.probe(guests.host, *targets))) == set(targets)


def test_the_outside_does_not_reach_guests(guests: World):
    """It has a route to them, and the host forwards."""
    user = guests.user
    targets = [
        f"{kind}:{user.address(name)}:{port}"
        for name in ("a", "b")
        for kind, port in (("tcp", 22), ("tcp", PORT), ("udp", PORT))
    ]
    pings = [f"ping:{user.address(name)}" for name in ("a", "b")]
    assert SUBNET in guests.outside.run("ip", "route").stdout
    assert reached(guests.probe(guests.outside, *targets, *pings)) == {}


def test_ipv6_leads_nowhere(guests: World):
    """Neither to the host, at the address its bridge would have, nor to the neighbour."""
    user = guests.user
    (bridge,) = [link for link in guests.host.links() if link["ifname"] == BRIDGE]
    (other,) = [line for line in user.guest("a", "ip", "-o", "link").splitlines() if " lo:" not in line]
    nic = user.guest("b", "sh", "-c", "cd /sys/class/net && echo e*").strip()
    user.guest("b", "sh", "-c", f"ip -6 addr replace fe80::b/64 dev {nic} nodad")
    for mac in (bridge["address"], other.split("link/ether ")[1].split()[0]):
        address = render_link_local(mac)
        assert (
            reached(
                user.probe(
                    "b", f"tcp:{address}%{nic}:{PORT}", f"udp:{address}%{nic}:{PORT}", f"ping:{address}%{nic}"
                )
            )
            == {}
        )
    assert reached(user.probe("b", f"ping:fe80::b%{nic}")) == {f"ping:fe80::b%{nic}": "pong"}
    assert guests.host.run("ip", "-6", "addr", "show", "dev", BRIDGE).stdout == ""


def render_link_local(mac: str) -> str:
    """The address that a link with this MAC gives itself (RFC 4291, appendix A)."""
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    interface = bytes((*octets[:3], 0xFF, 0xFE, *octets[3:])).hex()
    return "fe80::" + ":".join(interface[index : index + 4] for index in range(0, 16, 4))


def test_nat_is_switched_while_the_guest_runs(guests: World):
    user = guests.user
    target = f"tcp:{INTERNET}:{PORT}"
    boot = user.boot_id("b")
    user.run("vm", "set", "--nat", "b")
    try:
        assert user.probe("b", target, f"tcp:{LAN}:{PORT}")[target] == OUTSIDE
        assert user.vm("b")["spec"]["nat"] is True
        flow = user.start(
            "vm",
            "exec",
            "b",
            "--",
            "python3",
            "-c",
            FLOW,
            INTERNET,
            str(PORT),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert [flow.stdout.readline() for _ in range(3)] == [b"tick\n"] * 3
    finally:
        user.run("vm", "set", "--no-nat", "b")
    _, said = flow.communicate(timeout=30)
    assert flow.returncode == 1
    assert b"tick" not in said.splitlines()[-1]
    assert reached(user.probe("b", target)) == {}
    assert user.vm("b")["spec"]["nat"] is False
    assert user.boot_id("b") == boot


def resolve(user: Resident, name: str, what: str) -> str:
    """As the guest's C library does."""
    done = user.run("vm", "exec", name, "--", "getent", "ahostsv4", what, check=False)
    return done.stdout.decode().split(" ")[0] if done.returncode == 0 else f"status {done.returncode}"


def test_guests_know_each_others_names_and_the_worlds_with_nat_only(guests: World):
    user = guests.user
    assert resolve(user, "a", "b.vm") == user.address("b")
    assert resolve(user, "b", "a.vm") == user.address("a")
    assert resolve(user, "a", "example.net") == INTERNET
    assert resolve(user, "a", "unknown.example.net") == "status 2"
    assert resolve(user, "b", "example.net") == "status 2"
    user.run("vm", "set", "--nat", "b")
    wait_until(lambda: resolve(user, "b", "example.net") == INTERNET, "names follow NAT")
    user.run("vm", "set", "--no-nat", "b")
    assert resolve(user, "b", "example.net") == "status 2"


def test_a_guest_is_heard_with_its_own_address_only(guests: World):
    """One that nobody else has: without the rule against it, the host would answer."""
    user = guests.user
    nic = user.guest("a", "sh", "-c", "cd /sys/class/net && echo e*").strip()
    ping = ("vm", "exec", "a", "--", "ping", "-n", "-c", "1", "-W", "2", "-I")
    assert "10.209.0.77" not in (user.address("a"), user.address("b"))
    user.guest("a", "ip", "addr", "add", "10.209.0.77/24", "dev", nic)
    try:
        assert user.run(*ping, user.address("a"), BRIDGE_ADDRESS, check=False).returncode == 0
        assert user.run(*ping, "10.209.0.77", BRIDGE_ADDRESS, check=False).returncode == 1
    finally:
        user.guest("a", "ip", "addr", "del", "10.209.0.77/24", "dev", nic)
