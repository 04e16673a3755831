"""What every way to root does, in the same words for each: `privileged/contract` as tests."""

import contextlib
import gc
import json
import logging
import os
import select
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contracts.privileged_places import NOBODY, WAYS, Place

from banger.base.log import JsonFormatter, operation_id
from banger.base.problem import Code, Outcome, Problem
from banger.privileged.contract.base import VERSION
from banger.privileged.contract.network import (
    AdmitGuest,
    ApplyGuests,
    CreateTaps,
    DeleteTaps,
    EnsureBridge,
    InspectHost,
    ListRoutes,
    ListTaps,
    OpenDns,
    PublishPorts,
    ReleaseGuest,
    RemoveBridge,
    RouteNames,
    UnpublishPorts,
    UnrouteNames,
)
from banger.privileged.contract.processes import Hello, MapIds, SignalVmm
from banger.privileged.contract.values import TAP_PATTERN, Guest, Policy, PublishedPort

BRIDGE = "br-banger"
ENSURE = EnsureBridge(bridge=BRIDGE, address="10.209.0.1/24")
REMOVE = RemoveBridge(bridge=BRIDGE)
LIST = ListTaps(bridge=BRIDGE)
NO_GUESTS = ApplyGuests(bridge=BRIDGE, policy=Policy(), guests=())
FIRST, SECOND = "10.209.0.2", "10.209.0.3"


@pytest.fixture(
    params=[
        "fake",
        pytest.param("in-process", marks=pytest.mark.host),
        pytest.param("helper", marks=pytest.mark.host),
    ]
)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    directory = Path(tempfile.mkdtemp(prefix="bt-", dir="/tmp"))  # short, for sockets
    try:
        with WAYS[request.param](directory) as made:
            await made.warm_up()
            gc.collect()  # handlers of a test before are collected with their sockets
            before = len(os.listdir("/proc/self/fd"))
            try:
                yield made
                assert (await made.privileged.call(LIST)).result.taps == (), "the test left taps"
                assert len(os.listdir("/proc/self/fd")) == before, "the test left descriptors open"
            finally:
                await made.privileged.close()
                made.close()
    finally:
        shutil.rmtree(directory)


@pytest.fixture
async def root(place):
    """The way to root, with the bridge and the tables there."""
    await place.privileged.call(ENSURE)
    await place.privileged.call(NO_GUESTS)
    return place.privileged


@contextlib.asynccontextmanager
async def taps_of(root, count=1):
    """Names and descriptors. Deleted first: closing the last descriptor of a tap waits for the kernel."""
    reply = await root.call(CreateTaps(bridge=BRIDGE, count=count))
    names = tuple(tap.name for tap in reply.result.taps)
    try:
        yield names, reply.descriptors
    finally:
        await root.call(DeleteTaps(taps=names))
        for descriptor in reply.descriptors:
            os.close(descriptor)


async def list_taps(root):
    return {tap.name: tap.up for tap in (await root.call(LIST)).result.taps}


async def fail(call):
    with pytest.raises(Problem) as caught:
        await call
    return caught.value


async def refused(call, code):
    problem = await fail(call)
    assert (problem.code, problem.outcome) == (code, Outcome.NOT_STARTED), problem
    return problem


def guest_on(tap, address=FIRST, *, nat=False):
    return Guest(tap=tap, mac="02:00:00:00:00:02", address=address, nat=nat)


def admit(tap, address=FIRST, *, nat=False):
    return AdmitGuest(bridge=BRIDGE, guest=guest_on(tap, address, nat=nat))


def release(tap, address=FIRST):
    return ReleaseGuest(bridge=BRIDGE, guest=guest_on(tap, address))


# Who is there


async def test_hello_tells_version_and_kind(place):
    greeting = (await place.privileged.call(Hello())).result
    assert greeting.version == VERSION
    assert greeting.build
    assert greeting.pid > 1
    assert place.privileged.kind in WAYS


async def test_what_is_not_valid_is_refused_before_anything_is_done(place):
    for request in (
        EnsureBridge(bridge="docker0", address="10.209.0.1/24"),
        EnsureBridge(bridge=BRIDGE, address="1.1.1.1/24"),
        DeleteTaps(taps=("eth0",)),
        SignalVmm(pid=1, start_time=1, signal=9),
        MapIds(pid=1, start_time=1),
        RouteNames(bridge=BRIDGE, zone="../etc"),
        RouteNames(bridge=BRIDGE, zone="com"),  # the host would ask the owner for all of it
    ):
        await refused(place.privileged.call(request), Code.BAD_REQUEST)
    await refused(place.privileged.call(Hello(), (0,)), Code.BAD_REQUEST)


async def test_each_call_leaves_one_line_with_the_op_id(place, caplog):
    caplog.set_level(logging.INFO, "banger.privileged")
    operation_id.set("op-42")
    await place.privileged.call(LIST)
    await fail(place.privileged.call(DeleteTaps(taps=())))
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert [(line["op"], line["way"], line["method"], line.get("code")) for line in lines] == [
        ("op-42", place.privileged.kind, "list_taps", None),
        ("op-42", place.privileged.kind, "delete_taps", "bad_request"),
    ]


async def test_the_hosts_forwarding_is_told(place):
    for wanted in (True, False):
        place.set_forwarding(wanted)
        assert (await place.privileged.call(InspectHost())).result.ip_forward is wanted


async def test_the_hosts_nft_and_resolver_are_told(place):
    state = (await place.privileged.call(InspectHost())).result
    assert state.nft
    assert state.resolved is False
    assert state.drops == ()


# Bridge


async def test_the_bridge_can_be_ensured_and_removed_again_and_again(place):
    for _ in range(2):
        await place.privileged.call(ENSURE)
        await place.privileged.call(ENSURE)
        await place.privileged.call(REMOVE)
        await place.privileged.call(REMOVE)
    await refused(place.privileged.call(CreateTaps(bridge=BRIDGE, count=1)), Code.NOT_FOUND)


async def test_no_bridge_no_taps(place):
    assert (await place.privileged.call(LIST)).result.taps == ()


async def test_the_hosts_routes_are_told_without_our_own(place):
    place.add_route("192.168.77.0/24", "lan0")
    await place.privileged.call(ENSURE)
    routes = (await place.privileged.call(ListRoutes())).result.routes
    assert [route.destination for route in routes if route.device == "lan0"] == ["192.168.77.0/24"]
    assert [route for route in routes if route.device == BRIDGE] == []
    await place.privileged.call(REMOVE)


@pytest.mark.parametrize("destination", ["10.209.0.0/24", "10.209.0.64/26", "10.0.0.0/8"])
async def test_a_subnet_that_the_host_routes_elsewhere_is_a_conflict(place, destination):
    place.add_route(destination, "lan0")
    problem = await refused(place.privileged.call(ENSURE), Code.CONFLICT)
    assert destination in problem.brief
    assert "lan0" in problem.brief
    assert "bridge_cidr" in (problem.hint or "")


async def test_a_bridge_without_taps_moves_to_another_address(root):
    await root.call(EnsureBridge(bridge=BRIDGE, address="10.210.0.1/24"))
    await root.call(NO_GUESTS)
    async with taps_of(root) as ((tap,), _):
        await refused(root.call(admit(tap, FIRST)), Code.BAD_REQUEST)
        await root.call(admit(tap, "10.210.0.2"))
    await root.call(REMOVE)


async def test_a_bridge_with_taps_stays_where_it_is(root):
    async with taps_of(root) as ((tap,), _):
        await refused(root.call(EnsureBridge(bridge=BRIDGE, address="10.210.0.1/24")), Code.CONFLICT)
        await refused(root.call(EnsureBridge(bridge="br-banger2", address="10.210.0.1/24")), Code.CONFLICT)
        await refused(root.call(REMOVE), Code.CONFLICT)
        await root.call(ENSURE)
        await root.call(admit(tap))


@pytest.mark.host
async def test_a_daemon_that_is_root_takes_away_at_its_end_what_no_vm_uses(tmp_path):
    with WAYS["in-process"](tmp_path) as place:
        root = place.privileged
        links = place.namespace.links()
        await root.call(ENSURE)
        held = (await root.call(CreateTaps(bridge=BRIDGE, count=1))).descriptors[0]
        await root.close()
        assert [link["ifname"] for link in place.namespace.links()][-2] == BRIDGE
        successor = place.open_successor()
        assert len((await successor.call(LIST)).result.taps) == 1
        os.close(held)
        await successor.close()
        assert place.namespace.links() == links


# Taps


async def test_taps_are_made_down_each_with_its_descriptor(root):
    async with taps_of(root, 5) as (names, descriptors):
        assert len({*names}) == len({*descriptors}) == 5
        assert all(TAP_PATTERN.fullmatch(name) for name in names)
        assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
        assert await list_taps(root) == dict.fromkeys(names, False)
    assert await list_taps(root) == {}


async def test_a_tap_lives_as_long_as_its_last_descriptor(root):
    reply = await root.call(CreateTaps(bridge=BRIDGE, count=2))
    (first, second), (held, copied) = (tap.name for tap in reply.result.taps), reply.descriptors
    copy = os.dup(copied)
    os.close(held)
    os.close(copied)
    assert await list_taps(root) == {second: False}
    os.close(copy)
    assert await list_taps(root) == {}
    assert first != second


async def test_a_deleted_tap_is_noticed_at_its_descriptor(root):
    async with taps_of(root, 2) as ((first, second), descriptors):
        await root.call(DeleteTaps(taps=(first,)))
        await root.call(DeleteTaps(taps=(first, "bng-ffffffff")))
        assert await list_taps(root) == {second: False}
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, 0)
        assert [descriptor for descriptor, _ in poll.poll(0)] == [descriptors[0]]


# Guests


async def test_an_admitted_guests_tap_is_up_until_it_is_released(root):
    async with taps_of(root, 2) as ((first, second), _):
        for _ in range(2):
            await root.call(admit(first))
            assert await list_taps(root) == {first: True, second: False}
        for _ in range(2):
            await root.call(release(first))
            assert await list_taps(root) == {first: False, second: False}


async def test_a_guest_whose_tap_is_gone_is_released(root):
    async with taps_of(root) as ((tap,), _):
        await root.call(admit(tap))
    await root.call(release(tap))
    await root.call(release(tap))


async def test_an_address_may_pass_from_one_guest_to_the_next(root):
    async with taps_of(root, 2) as ((first, second), _):
        await root.call(admit(first))
        await root.call(release(first))
        await root.call(admit(second))
        assert await list_taps(root) == {first: False, second: True}


@pytest.mark.parametrize("address", ["10.208.0.2", "10.209.0.1", "10.209.0.0", "10.209.0.255", "8.8.8.8"])
async def test_an_address_that_is_no_guests_is_refused(root, address):
    async with taps_of(root) as ((tap,), _):
        await refused(root.call(admit(tap, address)), Code.BAD_REQUEST)
        guests = (guest_on(tap, address),)
        await refused(root.call(ApplyGuests(bridge=BRIDGE, policy=Policy(), guests=guests)), Code.BAD_REQUEST)
        assert await list_taps(root) == {tap: False}


async def test_a_tap_that_is_not_there_cannot_be_admitted(root):
    await refused(root.call(admit("bng-ffffffff")), Code.NOT_FOUND)


async def test_nat_needs_a_host_that_forwards(place, root):
    place.set_forwarding(False)
    async with taps_of(root) as ((tap,), _):
        problem = await refused(root.call(admit(tap, nat=True)), Code.UNAVAILABLE)
        assert problem.hint == "sudo sysctl -w net.ipv4.ip_forward=1"
        assert await list_taps(root) == {tap: False}
        await root.call(admit(tap))
        assert await list_taps(root) == {tap: True}
        place.set_forwarding(True)
        await root.call(admit(tap, nat=True))
        await root.call(admit(tap, nat=False))


async def test_the_tables_can_be_made_anew_under_running_guests(root):
    policy = Policy(
        denied=("10.0.0.0/8", "192.168.0.0/16"), allowed=("192.168.1.0/24",), host_ports=(8080,), guests=True
    )
    async with taps_of(root, 2) as ((first, second), _):
        await root.call(admit(first))
        guests = (guest_on(first), guest_on(second, SECOND))
        for _ in range(2):
            await root.call(ApplyGuests(bridge=BRIDGE, policy=policy, guests=guests))
        assert (await list_taps(root))[first] is True
        await root.call(NO_GUESTS)


# Published ports


@pytest.fixture
def holding(place):
    """A port of the host and the socket that proves that we may have it."""

    @contextlib.contextmanager
    def hold(protocol="tcp", address="127.0.0.1"):
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with place.bind(kind, address) as bound:
            number = bound.getsockname()[1]
            port = PublishedPort(protocol=protocol, host_address=address, host_port=number, guest_port=80)
            yield port, bound.fileno()

    return hold


def publish(*ports, to=FIRST):
    return PublishPorts(bridge=BRIDGE, guest_address=to, ports=ports)


def unpublish(*ports, to=FIRST):
    return UnpublishPorts(bridge=BRIDGE, guest_address=to, ports=ports)


async def test_ports_are_published_and_taken_back_again_and_again(place, root, holding):
    place.set_forwarding(True)
    with (
        holding() as (tcp, held),
        holding("udp") as (udp, also_held),
        holding(address="0.0.0.0") as (wide, third),
    ):
        for _ in range(2):
            await root.call(publish(tcp, udp, wide), (held, also_held, third))
            await root.call(publish(tcp, udp, wide), (held, also_held, third))
            await root.call(unpublish(tcp, udp, wide))
            await root.call(unpublish(tcp, udp, wide))


async def test_a_port_leads_to_one_guest(root, holding):
    with holding() as (port, held):
        await root.call(publish(port), (held,))
        await refused(root.call(publish(port, to=SECOND), (held,)), Code.CONFLICT)
        await root.call(unpublish(port))
        await root.call(publish(port, to=SECOND), (held,))
        await root.call(unpublish(port, to=SECOND))


async def test_ports_are_published_all_or_none(root, holding):
    with holding() as (taken, held), holding() as (free, also_held):
        await root.call(publish(taken, to=SECOND), (held,))
        await refused(root.call(publish(free, taken), (also_held, held)), Code.CONFLICT)
        await root.call(publish(free, to=SECOND), (also_held,))
        await root.call(unpublish(free, taken, to=SECOND))


async def test_who_does_not_hold_a_port_cannot_publish_it(root, holding):
    with (
        holding() as (port, held),
        holding() as (_, other),
        holding("udp") as (_, udp),
        open(os.devnull) as file,
    ):
        for descriptors in ((other,), (udp,), (held, other), (file.fileno(),)):
            problem = await fail(root.call(publish(port), descriptors))
            assert problem.code in (Code.BAD_REQUEST, Code.UNAUTHORIZED)
            assert problem.outcome is Outcome.NOT_STARTED
        await root.call(publish(port, to=SECOND), (held,))
        await root.call(unpublish(port, to=SECOND))


async def test_a_port_cannot_lead_out_of_the_subnet(root, holding):
    with holding() as (port, held):
        await refused(root.call(publish(port, to="8.8.8.8"), (held,)), Code.BAD_REQUEST)


async def test_tables_made_anew_publish_nothing(root, holding):
    with holding() as (port, held):
        await root.call(publish(port), (held,))
        await root.call(NO_GUESTS)
        await root.call(publish(port, to=SECOND), (held,))
        await root.call(unpublish(port, to=SECOND))


async def test_a_released_guests_ports_go_with_it(root, holding):
    async with taps_of(root) as ((tap,), _):
        await root.call(admit(tap))
        with holding() as (port, held):
            await root.call(publish(port), (held,))
            await root.call(release(tap))
            await root.call(publish(port, to=SECOND), (held,))
            await root.call(unpublish(port, to=SECOND))


async def test_ports_beyond_loopback_need_a_host_that_forwards(place, root, holding):
    place.set_forwarding(False)
    with holding() as (near, held), holding(address="0.0.0.0") as (far, also_held):
        await root.call(publish(near), (held,))
        problem = await refused(root.call(publish(far), (also_held,)), Code.UNAVAILABLE)
        assert problem.hint == "sudo sysctl -w net.ipv4.ip_forward=1"
        await root.call(unpublish(near))


# Names


async def test_dns_sockets_are_one_udp_and_one_listening_tcp_at_one_place(root):
    for _ in range(2):
        reply = await root.call(OpenDns(bridge=BRIDGE))
        assert not any(os.get_inheritable(descriptor) for descriptor in reply.descriptors)
        with (
            socket.socket(fileno=reply.descriptors[0]) as udp,
            socket.socket(fileno=reply.descriptors[1]) as tcp,
        ):
            assert (udp.type, tcp.type) == (socket.SOCK_DGRAM, socket.SOCK_STREAM)
            assert udp.getsockname() == tcp.getsockname()
            assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


async def test_a_host_without_resolved_says_so(root):
    await refused(root.call(RouteNames(bridge=BRIDGE, zone="vm")), Code.UNAVAILABLE)
    await root.call(UnrouteNames(bridge=BRIDGE))
    await root.call(UnrouteNames(bridge=BRIDGE))


async def test_nothing_can_be_done_on_a_bridge_that_is_not_there(place, holding):
    with holding() as (port, held):
        for request, descriptors in (
            (CreateTaps(bridge=BRIDGE, count=1), ()),
            (NO_GUESTS, ()),
            (admit("bng-00000001"), ()),
            (publish(port), (held,)),
            (OpenDns(bridge=BRIDGE), ()),
        ):
            await refused(place.privileged.call(request, descriptors), Code.NOT_FOUND)
    for request in (
        release("bng-00000001"),
        DeleteTaps(taps=("bng-00000001",)),
        UnrouteNames(bridge=BRIDGE),
        REMOVE,
    ):
        await place.privileged.call(request)


# Processes


async def test_a_vmm_is_signalled(place):
    process = place.start_vmm()
    await place.privileged.call(place.request_signal(process))
    assert place.is_signalled(process)


async def test_a_process_that_has_the_vmms_pid_by_now_is_left_alone(place):
    process = place.start_vmm()
    meant = place.request_signal(process)
    other = SignalVmm(pid=meant.pid, start_time=meant.start_time - 1, signal=meant.signal)
    await refused(place.privileged.call(other), Code.UNAUTHORIZED)
    assert process.poll() is None


async def test_somebody_elses_process_is_left_alone(place):
    process = place.start_vmm(uid=NOBODY - 1)
    await refused(place.privileged.call(place.request_signal(process)), Code.UNAUTHORIZED)
    assert process.poll() is None


async def test_a_vmm_that_has_ended_is_no_error(place):
    process = place.start_vmm()
    request = place.request_signal(process)
    place.end_vmm(process)
    await place.privileged.call(request)


# Subordinate ids

for_an_owner = pytest.mark.parametrize(
    "place", ["fake", pytest.param("helper", marks=pytest.mark.host)], indirect=True
)


@for_an_owner
async def test_ids_are_mapped_once_in_a_namespace_of_the_owners(place):
    process = place.start_in_namespace()
    assert not place.is_mapped(process)
    await place.privileged.call(place.request_mapping(process))
    assert place.is_mapped(process)
    await refused(place.privileged.call(place.request_mapping(process)), Code.CONFLICT)


@for_an_owner
async def test_nothing_is_mapped_for_a_process_that_has_the_pid_by_now(place):
    process = place.start_in_namespace()
    meant = place.request_mapping(process)
    other = MapIds(pid=meant.pid, start_time=meant.start_time - 1)
    await refused(place.privileged.call(other), Code.UNAUTHORIZED)
    assert not place.is_mapped(process)


@for_an_owner
async def test_nothing_is_mapped_for_somebody_elses_process(place):
    process = place.start_in_namespace(uid=NOBODY - 1)
    await refused(place.privileged.call(place.request_mapping(process)), Code.UNAUTHORIZED)
    assert not place.is_mapped(process)


@for_an_owner
async def test_the_hosts_own_user_namespace_has_its_maps_already(place):
    await refused(place.privileged.call(place.request_mapping(place.start_vmm())), Code.CONFLICT)


@for_an_owner
async def test_a_process_that_has_ended_gets_no_ids(place):
    process = place.start_in_namespace()
    request = place.request_mapping(process)
    place.end_vmm(process)
    await refused(place.privileged.call(request), Code.NOT_FOUND)


@for_an_owner
async def test_an_owner_without_subordinate_ids_is_told_how_to_get_some(place):
    place.take_ids()
    process = place.start_in_namespace()
    problem = await refused(place.privileged.call(place.request_mapping(process)), Code.UNAVAILABLE)
    assert (problem.hint or "").startswith(
        "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "
    )
    assert not place.is_mapped(process)


@pytest.mark.parametrize("place", [pytest.param("in-process", marks=pytest.mark.host)], indirect=True)
async def test_root_needs_no_subordinate_ids(place):
    process = place.start_in_namespace()
    await refused(place.privileged.call(place.request_mapping(process)), Code.BAD_REQUEST)
    assert not place.is_mapped(process)
