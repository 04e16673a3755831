"""Which mode a VM gets, when the bridge is tried again, and what is said of it."""

import asyncio
import logging
import socket

import pytest
from tests.unit.hostnet.places import (
    PLAN,
    REFUSED,
    free_ports,
    is_free,
    make_bridge,
    make_runtime,
    make_wish,
    settle,
)

from banger.base.problem import Code, Outcome, Problem, unavailable
from banger.model.machine import TapNetwork, UserNetwork
from banger.model.ports import parse_publish
from banger.model.vm import NetworkMode, VmRecord, VmRuntime, VmSpec, VmState
from banger.privileged.calls import close_all
from banger.privileged.contract.network import CreateTaps, EnsureBridge, Route
from banger.services.hostnet.contract import Standing
from banger.services.hostnet.service import HostNetwork

ABSENCE = unavailable("no root helper is installed", hint="sudo banger system install")
USER_RUNTIME = VmRuntime(
    backend="fake", pid=1, start_time=1, agent_socket="", control_socket="", accelerator="", ssh_port=2222
)  # fmt: skip


@pytest.fixture
async def network(root, tasks):
    """On the bridge, not open yet."""
    made = HostNetwork("auto", make_bridge(root, tasks), None, tasks)
    yield made
    root.missing.clear()
    root.before.clear()
    await made.close()


def make_vm(number=1, *, nat=False, runtime=None, state=None):
    spec = VmSpec(
        image="", kernel="", vcpus=1, memory_mib=64, disk_size_bytes=1, system_overlay_size_bytes=1, nat=nat
    )  # fmt: skip
    return VmRecord(
        id=make_wish(number).vm_id, name=f"vm{number}", spec=spec, created_at="", updated_at="",
        last_touched_at="", runtime=runtime, state=state or (VmState.RUNNING if runtime else VmState.STOPPED),
    )  # fmt: skip


# The choice


@pytest.mark.parametrize("wanted", ["auto", "bridge"])
async def test_where_root_can_be_had_it_is_the_bridge(root, tasks, wanted):
    network = HostNetwork(wanted, make_bridge(root, tasks), None, tasks)
    network.open()
    assert root.begun == []  # in the background
    assert await network.choose() == Standing(NetworkMode.BRIDGE, "")
    assert root.bridge == "br-banger"
    await network.close()


async def test_who_asks_first_opens_it(network, root):
    assert (await network.choose()).mode is NetworkMode.BRIDGE
    assert root.bridge == "br-banger"


async def test_a_bridge_that_is_open_costs_a_choice_nothing(network, root):
    await network.choose()
    await settle()
    root.forget()
    await network.choose()
    assert root.begun == []


async def test_many_who_ask_while_it_opens_wait_for_one_opening(network, root):
    root.before["ensure_bridge"] = gate = asyncio.Event()
    network.open()
    asking = [asyncio.create_task(network.choose()) for _ in range(5)]
    await settle()
    assert not any(task.done() for task in asking)
    asking.pop().cancel()  # one leaves, the others get it
    gate.set()
    assert {standing.mode for standing in await asyncio.gather(*asking)} == {NetworkMode.BRIDGE}
    assert root.count("ensure_bridge") == 1


async def test_where_it_cannot_be_had_it_is_user_mode_with_the_reason_and_what_to_do(tasks):
    network = HostNetwork("auto", None, ABSENCE, tasks)
    network.open()
    expected = Standing(NetworkMode.USER, "no root helper is installed", "sudo banger system install")
    assert await network.choose() == network.standing() == expected
    assert network.bridge is None
    await network.close()


async def test_user_mode_by_choice_has_no_hint(tasks):
    network = HostNetwork("user", None, unavailable('the configuration says network = "user"'), tasks)
    assert await network.choose() == (NetworkMode.USER, 'the configuration says network = "user"', "")


async def test_who_insists_on_the_bridge_in_vain_is_refused(tasks):
    network = HostNetwork("bridge", None, ABSENCE, tasks)
    with pytest.raises(Problem) as caught:
        await network.choose()
    problem = caught.value
    assert (problem.code, problem.outcome) == (Code.UNAVAILABLE, Outcome.NOT_STARTED)
    assert "no root helper is installed" in problem.brief
    assert problem.hint == "sudo banger system install"


async def test_a_bridge_that_fails_is_user_mode_and_is_tried_again_at_the_next_start(network, root, caplog):
    root.missing["ensure_bridge"] = REFUSED
    with caplog.at_level(logging.WARNING):
        network.open()
        assert await network.choose() == Standing(NetworkMode.USER, "not today", "try tomorrow")
    assert [record.why for record in caplog.records if record.message == "no bridge"] == ["not today"]
    assert root.count("ensure_bridge") == 1
    assert (await network.choose()).mode is NetworkMode.USER
    assert root.count("ensure_bridge") == 2
    del root.missing["ensure_bridge"]
    assert await network.choose() == Standing(NetworkMode.BRIDGE, "")
    assert network.standing().mode is NetworkMode.BRIDGE


async def test_who_insists_is_refused_until_it_works(root, tasks):
    network = HostNetwork("bridge", make_bridge(root, tasks), None, tasks)
    root.fail_next("hello", REFUSED)
    with pytest.raises(Problem, match="not today") as caught:
        await network.choose()
    assert caught.value.hint == "try tomorrow"
    assert (await network.choose()).mode is NetworkMode.BRIDGE
    await network.close()


async def test_an_overlapping_subnet_says_which_one_is_free(root, tasks):
    root.routes = [*root.routes, Route(destination="10.209.0.0/16", device="wg0", gateway="")]
    network = HostNetwork("auto", make_bridge(root, tasks), None, tasks)
    standing = await network.choose()
    assert standing.mode is NetworkMode.USER
    assert "10.209.0.0/16 on wg0" in standing.reason
    assert standing.hint == 'set bridge_cidr = "10.210.0.1/24" in config.toml'
    await network.close()


# Addresses


async def test_a_vm_keeps_its_address_while_the_subnet_has_it(network):
    assert network.reserve_address("10.209.0.77", {"10.209.0.2"}) == "10.209.0.77"
    assert network.reserve_address("", {"10.209.0.2"}) == "10.209.0.3"
    assert network.reserve_address("10.8.0.2", set()) == "10.209.0.4"  # not again what somebody had just now
    assert network.reserve_address(PLAN.host, set()) == "10.209.0.5"


# Leases


async def test_the_lease_is_of_the_mode_that_was_chosen(network, root):
    await network.choose()
    async with network.lease(make_wish(), NetworkMode.BRIDGE) as lease:
        assert isinstance(lease.network, TapNetwork)
        assert list(root.guests) == [lease.tap]
    async with network.lease(make_wish(), NetworkMode.USER) as lease:
        assert isinstance(lease.network, UserNetwork)
        assert root.guests == {}


async def test_a_lease_of_user_mode_says_everything_that_vmm_and_guest_need(tasks):
    network = HostNetwork("auto", None, ABSENCE, tasks)
    wish = make_wish(publish=free_ports(1))
    async with network.lease(wish, NetworkMode.USER) as lease:
        assert (lease.mode, lease.tap, lease.tap_descriptor) == (NetworkMode.USER, "", None)
        assert (lease.guest_address, lease.gateway, lease.dns) == ("10.0.2.15/24", "10.0.2.2", "10.0.2.3")
        assert lease.address == "127.0.0.1"
        assert [forward.guest_port for forward in lease.network.forwards] == [22, 80]
        assert lease.network.forwards[0].host_port == lease.ssh_port
        assert lease.network.restricted
        assert is_free(f"{lease.ssh_port}:22")  # the VMM will listen there


async def test_in_user_mode_the_ssh_port_stays_the_vms_while_it_is_free(tasks):
    network = HostNetwork("auto", None, ABSENCE, tasks)
    (port,) = free_ports(1)
    number = int(port.partition(":")[0])
    wish = make_wish()._replace(ssh_port=number)
    async with network.lease(wish, NetworkMode.USER) as lease:
        assert lease.ssh_port == number
    with socket.create_server(("127.0.0.1", number)):
        async with network.lease(wish, NetworkMode.USER) as lease:
            assert lease.ssh_port != number


async def test_in_user_mode_ssh_gets_no_port_that_is_published(tasks):
    network = HostNetwork("auto", None, ABSENCE, tasks)
    (port,) = free_ports(1)
    wish = make_wish(publish=[port])
    wish = wish._replace(ssh_port=wish.publish[0].host_port)
    async with network.lease(wish, NetworkMode.USER) as lease:
        assert lease.ssh_port != wish.publish[0].host_port


async def test_in_user_mode_a_published_port_that_is_taken_is_refused_before_the_vmm_starts(tasks):
    network = HostNetwork("auto", None, ABSENCE, tasks)
    with socket.create_server(("127.0.0.1", 0)) as server:
        wish = make_wish(publish=[*free_ports(1), f"{server.getsockname()[1]}:80"])
        with pytest.raises(Problem, match="is taken") as caught:
            network.lease(wish, NetworkMode.USER)
    assert caught.value.code is Code.CONFLICT
    assert "ss -ltnp" in caught.value.hint
    assert is_free(f"{wish.publish[0].host_port}:80")


# VMs that run already


async def test_an_adopted_guest_of_the_bridge_is_told_when_it_opens_and_goes_when_it_ends(network, root):
    async with network.adopt(make_wish(), make_runtime(1, "bng-00000001")):
        await network.choose()
        assert list(root.guests) == ["bng-00000001"]
    assert root.guests == {}


async def test_an_adopted_guest_of_user_mode_is_not_the_bridges(network, root):
    async with network.adopt(make_wish(), USER_RUNTIME):
        await network.choose()
        assert root.guests == {}


async def test_a_guest_of_a_bridge_that_we_cannot_have_any_more_is_let_be(tasks):
    network = HostNetwork("user", None, unavailable("by choice"), tasks)
    async with network.adopt(make_wish(), make_runtime(1, "bng-00000001")):
        pass
    vm = make_vm(runtime=make_runtime(1, "bng-00000001"))
    for change in (network.set_nat(vm, True), network.publish(vm, ()), network.unpublish(vm, ())):
        with pytest.raises(Problem, match="vm1 cannot be changed: by choice") as caught:
            await change
        assert caught.value.code is Code.UNAVAILABLE


async def test_changes_wait_until_the_bridge_is_open(network, root):
    """Told before, they would be lost with the tables that opening replaces."""
    await root.call(EnsureBridge(bridge=PLAN.name, address=PLAN.cidr))
    made = await root.call(CreateTaps(bridge=PLAN.name, count=1))
    vm = make_vm(runtime=make_runtime(1, made.result.taps[0].name))
    (port,) = free_ports(1)
    async with network.adopt(make_wish(), vm.runtime):
        root.before["apply_guests"] = gate = asyncio.Event()
        network.open()
        await settle()
        changes = [
            asyncio.create_task(network.set_nat(vm, True)),
            asyncio.create_task(network.publish(vm, (parse_publish(port),))),
        ]
        await settle()
        assert not {"admit_guest", "publish_ports"} & set(root.begun)
        gate.set()
        await asyncio.gather(*changes)
        assert root.guests[vm.runtime.tap].nat
        assert len(root.published) == 1
        await network.unpublish(vm, (parse_publish(port),))
        assert root.published == {}
    close_all(made.descriptors)  # its VMM ends


# Words


async def test_what_a_vm_on_the_bridge_has(network):
    await network.choose()
    vm = make_vm(nat=True, runtime=make_runtime(1, "bng-00000001"))
    standing = network.explain(vm)
    assert (standing.mode, standing.hint) == (NetworkMode.BRIDGE, "")
    assert standing.reason == "br-banger, NAT: the public network"


@pytest.mark.parametrize(
    ("nat", "words"), [(True, "10.0.2.2, this host's loopback"), (False, "nothing goes out")]
)
async def test_what_a_vm_in_user_mode_has_and_why_not_more(tasks, nat, words):
    network = HostNetwork("auto", None, ABSENCE, tasks)
    for vm in (make_vm(nat=nat), make_vm(nat=nat, runtime=USER_RUNTIME)):
        standing = network.explain(vm)
        assert standing.mode is NetworkMode.USER
        assert standing.reason.startswith("no root helper is installed: ")
        assert words in standing.reason
        assert standing.hint == "sudo banger system install"


async def test_a_vm_that_was_started_before_the_bridge_could_be_used_says_so(network):
    await network.choose()
    standing = network.explain(make_vm(runtime=USER_RUNTIME))
    assert standing.mode is NetworkMode.USER
    assert "before the bridge could be used" in standing.reason


async def test_a_vm_on_the_bridge_stays_there_when_the_bridge_fails_later(network, root):
    await network.choose()
    root.fail_next("apply_guests", REFUSED)
    network.open()
    await settle()
    assert network.standing().mode is NetworkMode.USER
    assert network.explain(make_vm(runtime=make_runtime(1, "bng-1"))).mode is NetworkMode.BRIDGE
    stopped = network.explain(make_vm())
    assert (stopped.mode, stopped.hint) == (NetworkMode.USER, "try tomorrow")
    assert stopped.reason.startswith("not today: ")


async def test_of_a_vm_that_does_not_run_it_is_what_it_would_get(network):
    await network.choose()
    vm = make_vm(runtime=USER_RUNTIME, state=VmState.ERROR)  # a runtime that is history
    assert network.explain(vm).mode is NetworkMode.BRIDGE


# The end


@pytest.mark.parametrize("method", ["hello", "ensure_bridge", "apply_guests", "open_dns"])
async def test_closing_during_the_opening_leaves_nothing(root, tasks, method):
    network = HostNetwork("auto", make_bridge(root, tasks), None, tasks)
    root.before[method] = asyncio.Event()
    network.open()
    await settle()
    assert root.begun[-1] in (method, "create_taps")
    await network.close()
    assert (root.bridge, root.taps) == ("", {})
