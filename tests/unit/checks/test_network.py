"""What the doctor says of bridge, forwarding and names, on hosts that are invented."""

import pytest
from tests.unit.checks.conftest import open_networks

from banger.base.problem import unavailable
from banger.base.tasks import Supervisor
from banger.model.config import Config
from banger.privileged.contract.network import ForwardDrop, InspectHost, Route
from banger.privileged.fake import FakePrivileged
from banger.services.checks import forwarding, names, network
from banger.services.checks.forwarding import plan_passage
from banger.services.hostnet.service import HostNetwork

CHANGES_NOTHING = {"hello", "inspect_host", "list_routes", "list_taps"}


@pytest.fixture
async def root():
    return FakePrivileged()


@pytest.fixture
async def bridged(around, root):
    """Surroundings with the bridge open on the host `root`."""
    async with open_networks(root) as networks:
        await networks.settle()
        root.calls.clear()
        yield around._replace(config=Config(), networks=networks)


@pytest.fixture
async def rootless(around):
    """Surroundings without any way to be root."""
    async with Supervisor() as tasks:
        absence = unavailable("no root helper is installed", hint="sudo banger system install")
        yield around._replace(config=Config(), networks=HostNetwork("auto", None, absence, tasks))


# network


async def test_the_bridge_passes_with_its_address_and_who_is_root(bridged):
    finding = await network.check(bridged)
    assert finding.verdict == "pass"
    assert finding.text.startswith(
        "bridge br-banger, 10.209.0.1/24, through the root helper (build fake, pid "
    )


async def test_a_check_waits_for_the_bridge_that_is_being_opened(around, root):
    async with open_networks(root) as networks:
        finding = await network.check(around._replace(config=Config(), networks=networks))
    assert finding.text.startswith("bridge br-banger")


async def test_user_mode_for_want_of_a_helper_is_a_warning_with_the_command(rootless):
    finding = await network.check(rootless)
    assert (finding.verdict, finding.fix) == ("warn", "sudo banger system install")
    assert finding.text.startswith(
        "user mode: no root helper is installed; a guest with --nat reaches this host's"
    )


async def test_a_helper_that_came_after_the_daemon_wants_a_new_daemon(rootless):
    rootless.root_socket.touch()
    finding = await network.check(rootless)
    assert "came after this daemon" in finding.text
    assert finding.fix == "banger daemon restart"


async def test_user_mode_by_choice_passes_and_says_what_nat_means_there(around):
    finding = await network.check(around)
    assert finding.verdict == "pass"
    assert finding.text.startswith(
        "user mode, as the configuration says; a guest with --nat reaches this host's"
    )


@pytest.mark.parametrize(("wanted", "verdict"), [("auto", "warn"), ("bridge", "fail")])
async def test_a_bridge_that_cannot_be_had_is_told_with_its_fix(around, root, wanted, verdict):
    root.routes.append(Route(destination="10.209.0.0/16", device="vpn0", gateway=""))
    async with open_networks(root, wanted) as networks:
        finding = await network.check(around._replace(config=Config(network=wanted), networks=networks))
    assert finding.verdict == verdict
    assert "10.209.0.0/16 on vpn0" in finding.text
    assert "set bridge_cidr = " in finding.text


async def test_a_helper_that_has_died_is_a_failure_although_the_bridge_was_open(bridged, root):
    root.missing["hello"] = unavailable("the root helper does not run", hint="sudo banger system status")
    with pytest.raises(Exception, match="does not run"):
        await network.check(bridged)
    finding = await forwarding.check(bridged)
    assert finding.verdict == "pass", "each check asks for itself"


# forwarding


async def test_a_host_that_forwards_and_drops_nothing_passes(bridged):
    assert (await forwarding.check(bridged)).verdict == "pass"


async def test_a_host_that_does_not_forward_is_a_warning_with_the_sysctl(bridged, root):
    root.ip_forward = False
    finding = await forwarding.check(bridged)
    assert (finding.verdict, finding.fix) == ("warn", "sudo sysctl -w net.ipv4.ip_forward=1")


DOCKER = ForwardDrop(family="ip", table="filter", chain="FORWARD", owner="docker")
UFW = ForwardDrop(family="ip", table="filter", chain="FORWARD", owner="ufw")
FIREWALLD = ForwardDrop(family="inet", table="firewalld", chain="filter_FORWARD", owner="firewalld")
UNKNOWN = ForwardDrop(family="inet", table="mine", chain="fwd-all", owner="unknown")
PLAIN = ForwardDrop(family="ip", table="filter", chain="FORWARD", owner="unknown")


@pytest.mark.parametrize(
    ("drop", "who", "commands"),
    [
        (
            DOCKER,
            "docker drops",
            [
                "sudo iptables -I DOCKER-USER -i br-banger -j ACCEPT",
                "sudo iptables -I DOCKER-USER -o br-banger -j ACCEPT",
            ],
        ),
        (
            UFW,
            "ufw drops",
            [
                "sudo ufw route allow in on br-banger",
                "sudo ufw route allow out on br-banger",
                "sudo ufw allow in on br-banger to any port 53",
            ],
        ),
        (
            FIREWALLD,
            "firewalld drops",
            [
                "sudo firewall-cmd --permanent --zone=trusted --add-interface=br-banger",
                "sudo firewall-cmd --reload",
            ],
        ),
        (
            UNKNOWN,
            "a firewall of unknown origin drops",
            [
                "sudo nft insert rule inet mine fwd-all iifname br-banger accept",
                "sudo nft insert rule inet mine fwd-all oifname br-banger accept",
            ],
        ),
        (
            PLAIN,
            "a firewall of unknown origin drops",
            [
                "sudo iptables -I FORWARD -i br-banger -j ACCEPT",
                "sudo iptables -I FORWARD -o br-banger -j ACCEPT",
            ],
        ),
    ],
)
async def test_a_firewall_that_drops_is_named_with_chain_and_commands(bridged, root, drop, who, commands):
    """The commands were tried with the tools themselves, in namespaces: docs/how-to/nat-and-isolation.md."""
    root.drops = (drop,)
    finding = await forwarding.check(bridged)
    assert finding.verdict == "warn"
    assert finding.text.startswith(who)
    assert f"chain {drop.chain} of table {drop.family} {drop.table}" in finding.text
    assert finding.fix == " && ".join(commands)


async def test_all_that_is_wrong_is_told_at_once_and_each_command_once(bridged, root):
    root.ip_forward, root.drops = False, (DOCKER, FIREWALLD, DOCKER)
    finding = await forwarding.check(bridged)
    assert finding.fix.count("sysctl") == 1
    assert finding.fix.count("DOCKER-USER -i") == 1
    assert finding.fix.endswith("firewall-cmd --reload")
    assert {"does not forward", "docker drops", "firewalld drops"} <= {
        words for words in ("does not forward", "docker drops", "firewalld drops") if words in finding.text
    }


def test_commands_name_the_bridge_that_is_configured():
    for drop in (DOCKER, UFW, FIREWALLD, UNKNOWN, PLAIN):
        commands = plan_passage(drop, "br-banger2")
        assert any("br-banger2" in command for command in commands)
        assert all(command.startswith("sudo ") for command in commands)


async def test_forwarding_that_cannot_be_looked_at_is_a_warning(bridged, root):
    root.fail_next(
        InspectHost.method, unavailable("the root helper does not run", hint="sudo banger system status")
    )
    finding = await forwarding.check(bridged)
    assert (finding.verdict, finding.fix) == ("warn", "sudo banger system status")


async def test_forwarding_and_names_do_not_matter_in_user_mode(around, rootless):
    for surroundings in (around, rootless):
        for check in (forwarding.check, names.check):
            finding = await check(surroundings)
            assert (finding.verdict, "user mode" in finding.text) == ("pass", True)


# names


@pytest.fixture
def knowing(monkeypatch):
    """The resolvers that know our zone."""
    known: set[str] = set()

    async def has_zone(server: str) -> bool:
        return server in known

    monkeypatch.setattr(names, "has_zone", has_zone)
    return known


async def test_names_pass_when_the_hosts_own_resolver_knows_them(bridged, knowing):
    bridged.resolv_conf.write_text("# a comment\nnameserver 127.0.0.53\nnameserver 192.0.2.53\n")
    knowing.add("127.0.0.53")
    finding = await names.check(bridged)
    assert finding.verdict == "pass"
    assert "NAME.vm is served at 10.209.0.1, and this host's resolver 127.0.0.53 asks there" in finding.text


async def test_a_resolv_conf_that_names_the_bridge_needs_no_trial(bridged, knowing):
    bridged.resolv_conf.write_text("nameserver 10.209.0.1\n")
    assert (await names.check(bridged)).verdict == "pass"


async def test_without_systemd_resolved_names_are_a_warning_with_the_recipes(around, knowing):
    root = FakePrivileged()
    root.resolved = False
    async with open_networks(root) as networks:
        surroundings = around._replace(config=Config(), networks=networks)
        for text in (None, "nameserver 192.0.2.53\n"):
            if text:
                surroundings.resolv_conf.write_text(text)
            finding = await names.check(surroundings)
            assert finding.verdict == "warn"
            assert "this host has no systemd-resolved" in finding.text
            assert finding.fix.startswith("sudo apt-get install systemd-resolved && ")
            assert names.RECIPES in finding.text
        knowing.add("192.0.2.53")
        assert (await names.check(surroundings)).verdict == "pass", "told by hand, as the recipes say"


async def test_a_resolv_conf_past_systemd_resolved_is_a_warning_unless_the_c_library_asks_it(
    bridged, knowing
):
    bridged.resolv_conf.write_text("nameserver 192.0.2.53\n")
    finding = await names.check(bridged)
    assert (finding.verdict, finding.fix) == ("warn", names.STUB)
    bridged.nsswitch_conf.write_text("passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n")
    assert (await names.check(bridged)).verdict == "pass"
    bridged.nsswitch_conf.write_text("#hosts: resolve\nhosts: files dns\n")
    assert (await names.check(bridged)).verdict == "warn"


async def test_names_that_are_not_served_are_told_with_the_reason(around):
    root = FakePrivileged()
    root.missing["open_dns"] = unavailable("port 53 of 10.209.0.1 is taken by another name server")
    async with open_networks(root) as networks:
        finding = await names.check(around._replace(config=Config(), networks=networks))
    assert (finding.verdict, finding.fix) == ("warn", "sudo ss -lntup 'sport = :53'")
    assert "port 53 of 10.209.0.1 is taken" in finding.text


async def test_no_check_changes_anything_on_the_host(bridged, root, knowing):
    bridged.resolv_conf.write_text("nameserver 192.0.2.53\n")
    for check in (network.check, forwarding.check, names.check):
        await check(bridged)
    assert {call.method for call in root.calls} <= CHANGES_NOTHING
    assert {"hello", "inspect_host"} <= {call.method for call in root.calls}
