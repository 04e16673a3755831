"""What the fake offers to tests beyond the contract."""

import os
import socket

import pytest

from banger.base.problem import Code, Problem, unavailable
from banger.privileged.contract.network import CreateTaps, EnsureBridge, ListTaps, OpenDns
from banger.privileged.contract.processes import Hello
from banger.privileged.contract.requests import REQUESTS
from banger.privileged.fake import FakePrivileged

BRIDGE = "br-banger"
ENSURE = EnsureBridge(bridge=BRIDGE, address="10.209.0.1/24")


@pytest.fixture
async def fake():
    fake = FakePrivileged()
    await fake.call(ENSURE)
    return fake


def test_every_request_is_answered():
    assert [method for method in REQUESTS if not callable(getattr(FakePrivileged, f"_{method}", None))] == []


async def test_calls_are_kept_in_order(fake):
    await fake.call(Hello())
    assert fake.calls == [ENSURE, Hello()]


async def test_a_failure_is_had_once_and_changes_nothing(fake):
    fake.fail_next("create_taps", unavailable("no more"))
    with pytest.raises(Problem, match="no more"):
        await fake.call(CreateTaps(bridge=BRIDGE, count=1))
    assert fake.taps == {}
    (held,) = (await fake.call(CreateTaps(bridge=BRIDGE, count=1))).descriptors
    os.close(held)


async def test_what_is_missing_fails_until_it_is_there(fake):
    fake.missing["hello"] = unavailable("gone")
    for _ in range(2):
        with pytest.raises(Problem) as caught:
            await fake.call(Hello())
        assert caught.value.code is Code.UNAVAILABLE
    del fake.missing["hello"]
    await fake.call(Hello())


async def test_no_descriptor_stays_open_when_the_holders_are_closed(fake, count_descriptors):
    before = count_descriptors()
    reply = await fake.call(CreateTaps(bridge=BRIDGE, count=20))
    dns = await fake.call(OpenDns(bridge=BRIDGE))
    assert count_descriptors() > before
    for each in reply.descriptors + dns.descriptors:
        os.close(each)
    await fake.close()
    assert count_descriptors() == before
    assert fake.taps == {}


async def test_taps_that_are_held_outlive_the_daemon(fake):
    reply = await fake.call(CreateTaps(bridge=BRIDGE, count=1))
    await fake.close()
    assert (await fake.call(ListTaps(bridge=BRIDGE))).result == reply.result
    os.close(reply.descriptors[0])


async def test_names_are_served_on_loopback(fake):
    reply = await fake.call(OpenDns(bridge=BRIDGE))
    with socket.socket(fileno=reply.descriptors[0]) as udp, socket.socket(fileno=reply.descriptors[1]) as tcp:
        assert udp.getsockname()[0] == tcp.getsockname()[0] == "127.0.0.1"
