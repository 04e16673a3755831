"""A host or a configuration that will not do: one line with a hint, and whatever can be served is served."""

import json
from collections.abc import Callable, Iterator

import pytest
from tests.host.world import HOST, INTERNET, PORT, Resident, World
from tests.support.banger import refused

Open = Callable[[str], Resident]
HIDE_TUN = "mount -t tmpfs tmpfs /dev/net"
HIDE_NFT = """
for file in $(find /usr /lib -name 'libnftables.so*' -type f) $(readlink -f "$(command -v nft)"); do
    mount --bind /dev/null "$file" || exit
done
"""


@pytest.fixture
def open_user(world: World) -> Iterator[Open]:
    """A user with this configuration; one daemon has the bridge at a time."""
    opened: list[Resident] = []

    def open_one(config: str) -> Resident:
        opened.append(world.open_user(f"user{len(world.users)}", config))
        return opened[-1]

    yield open_one
    for user in opened:
        user.run("daemon", "stop", check=False)
    world.wait_traces(world.pristine)


@pytest.fixture
def crippled(world: World) -> Iterator[Callable[[str], None]]:
    """A helper that sees a host in which something is missing."""

    def start(script: str) -> None:
        world.helper.stop()
        world.helper.start(
            "unshare", "--mount", "--propagation=private", "/bin/sh", "-c", script + '\nexec "$0" "$@"'
        )

    yield start
    world.helper.stop()
    world.helper.start()


def names(user: Resident) -> list[str]:
    return [vm["name"] for vm in user.json("vm", "list", "--all")["vms"]]


def prove_user_mode(user: Resident, *reason: str) -> None:
    """The same commands with less, and `vm show` says why."""
    user.create("plain")
    posture = user.json("vm", "show", "plain")["posture"]
    assert posture["network_mode"] == "user"
    for words in reason:
        assert words in posture["network_reason"]
    assert user.guest("plain", "echo", "here") == "here\n"
    user.delete("plain")


def test_a_subnet_that_overlaps_a_route_of_the_hosts_is_named(world: World, open_user: Open):
    insists = open_user('network = "bridge"\nbridge_cidr = "192.168.77.129/26"\n')
    refused(insists, "vm", "create", "x", status=69, words="192.168.77.0/24", hint="bridge_cidr = ")
    assert names(insists) == []
    insists.run("daemon", "stop")
    prove_user_mode(open_user('bridge_cidr = "192.168.77.129/26"\n'), "192.168.77.0/24", "lan")


def test_a_route_behind_a_gateway_is_in_the_way_as_well(world: World, open_user: Open):
    world.host.batch("route add 10.209.0.128/25 via 192.168.77.1\n")
    try:
        user = open_user('network = "bridge"\n')
        refused(
            user,
            "vm",
            "create",
            "x",
            status=69,
            words="10.209.0.128/25",
            hint='bridge_cidr = "10.210.0.1/24"',
        )
    finally:
        world.host.batch("route del 10.209.0.128/25\n")
    user.create("x")
    assert user.vm("x")["runtime"]["network_mode"] == "bridge"
    user.delete("x")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bridge_cidr", "10.209.0.1"),
        ("bridge_cidr", "10.209.0.0/24"),
        ("bridge_cidr", "10.209.0.1/33"),
        ("bridge_cidr", "10.209.0.1/8"),
        ("bridge_cidr", "192.0.2.1/24"),
        ("bridge_cidr", "fd00::1/64"),
        ("bridge_name", "br0"),
        ("bridge_name", "docker0"),
        ("bridge_name", "eth0"),
        ("bridge_name", "br-banger/../x"),
        ("bridge_name", "br-bangertoolong"),
        ("network", "both"),
    ],
)
def test_a_bad_value_is_refused_with_file_and_line(world: World, key: str, value: str):
    user = world.user
    file = user.configure(f'log_level = "debug"\n{key} = "{value}"\n')
    try:
        refused(user, "vm", "list", status=64, words=f"{file}:2: {key}")
    finally:
        user.configure("")


def test_without_forwarding_a_vm_with_nat_is_refused_and_one_without_runs(world: World, open_user: Open):
    user = open_user("")
    world.host.set_value("net.ipv4.ip_forward", 0)
    try:
        refused(
            user,
            "vm",
            "create",
            "--nat",
            "x",
            status=69,
            words="forward",
            hint="hint: sudo sysctl -w net.ipv4.ip_forward=1",
        )
        assert names(user) == []
        user.create("x")
        refused(
            user,
            "vm",
            "set",
            "--nat",
            "x",
            status=69,
            words="forward",
            hint="hint: sudo sysctl -w net.ipv4.ip_forward=1",
        )
        assert user.vm("x")["spec"]["nat"] is False
    finally:
        world.host.set_value("net.ipv4.ip_forward", 1)
    user.run("vm", "set", "--nat", "x")
    target = f"tcp:{INTERNET}:{PORT}"
    assert user.probe("x", target)[target] == f"outside sees {HOST}"
    user.delete("x")


def test_without_a_tun_device_the_bridge_is_refused_and_user_mode_works(
    world: World, open_user: Open, crippled
):
    crippled(HIDE_TUN)
    insists = open_user('network = "bridge"\n')
    refused(insists, "vm", "create", "x", status=69, words="TUN", hint="hint: sudo modprobe tun")
    assert insists.leftovers() == []
    insists.run("daemon", "stop")
    prove_user_mode(open_user(""), "TUN")


def test_without_nftables_the_bridge_is_refused_and_user_mode_works(world: World, open_user: Open, crippled):
    crippled(HIDE_NFT)
    insists = open_user('network = "bridge"\n')
    refused(insists, "vm", "create", "x", status=69, words="nft", hint="hint: sudo apt-get install nftables")
    assert insists.leftovers() == []
    insists.run("daemon", "stop")
    prove_user_mode(open_user(""), "nft")


def test_without_a_helper_user_mode_works_and_says_why(world: World, open_user: Open):
    world.helper.stop()
    try:
        insists = open_user('network = "bridge"\n')
        refused(insists, "vm", "create", "x", status=69, words="helper", hint="hint: sudo banger system")
        assert insists.leftovers() == []
        insists.run("daemon", "stop")
        prove_user_mode(open_user(""), "helper")
    finally:
        world.helper.start()


def test_one_operation_id_is_in_the_error_and_in_both_logs(world: World, open_user: Open):
    user = open_user("")
    world.host.set_value("net.ipv4.ip_forward", 0)
    try:
        text = refused(user, "vm", "create", "--nat", "x", status=69, words="forward")
    finally:
        world.host.set_value("net.ipv4.ip_forward", 1)
    (error,) = [line for line in text.splitlines() if line.startswith("banger: ")]
    op = error.rsplit("(", 1)[1].removesuffix(")")
    daemon = [json.loads(line) for line in user.log.read_text().splitlines()]
    assert [line for line in daemon if line.get("op") == op and "forward" in json.dumps(line)]
    refusals = [call for call in world.helper.calls() if call.get("op") == op and "code" in call]
    assert [(call["method"], call["code"]) for call in refusals] == [("admit_guest", "unavailable")]
