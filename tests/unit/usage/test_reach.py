"""Where a guest's port is reached, for each way it may be bound and each network."""

import pytest
from tests.unit.usage.places import make_vm

from banger.guest.entries import Listener
from banger.model.machine import PortForward
from banger.model.vm import NetworkMode
from banger.services.usage.reach import find_reach

PUBLISHED = (
    PortForward(host_address="127.0.0.1", host_port=18080, guest_port=8080),
    PortForward(host_address="0.0.0.0", host_port=5353, guest_port=53, protocol="udp"),
)


def listener(address="0.0.0.0", port=8080, protocol="tcp"):
    return Listener(protocol, address, port, 1, "server")


def reached(vm, listening):
    reach = find_reach(vm, vm.runtime, listening)
    assert bool(reach.places) != bool(reach.why)
    assert bool(reach.why) == bool(reach.hint)
    return [place.shown for place in reach.places]


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.209.0.5", "::ffff:10.209.0.5"])
def test_on_the_bridge_a_vm_is_reached_by_its_name_and_where_it_is_published(address):
    vm = make_vm(mode=NetworkMode.BRIDGE, publish=PUBLISHED)
    assert reached(vm, listener(address)) == ["web.vm:8080", "127.0.0.1:18080"]
    assert reached(vm, listener(address, port=9000)) == ["web.vm:9000"]


@pytest.mark.parametrize("mode", NetworkMode)
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "it listens on the guest's loopback only"),
        ("127.0.0.53", "it listens on the guest's loopback only"),
        ("::1", "it listens on the guest's loopback only"),
        ("::ffff:127.0.0.1", "it listens on the guest's loopback only"),
        ("fe80::1", "it listens on an IPv6 address only, and VMs are reached by IPv4"),
        ("172.17.0.1", "it listens on 172.17.0.1 only, which is not the VM's address"),
    ],
)
def test_what_listens_elsewhere_in_the_guest_is_not_reached_though_it_is_published(mode, address, why):
    vm = make_vm(mode=mode, publish=PUBLISHED)
    reach = find_reach(vm, vm.runtime, listener(address))
    assert (reach.places, reach.why) == ((), why)
    assert reach.hint == "have it listen on 0.0.0.0 in web"


def test_in_user_mode_what_is_published_is_reached_and_else_the_hint_is_a_command():
    vm = make_vm(publish=PUBLISHED)
    assert reached(vm, listener()) == ["127.0.0.1:18080"]
    assert reached(vm, listener("10.0.2.15")) == ["127.0.0.1:18080"]
    assert reached(vm, listener(port=53, protocol="udp")) == ["127.0.0.1:5353"]
    assert find_reach(vm, vm.runtime, listener(port=53)).hint == "banger vm publish web 8053:53"
    assert find_reach(vm, vm.runtime, listener(port=9000)).hint == "banger vm publish web 9000:9000"
    assert (
        find_reach(vm, vm.runtime, listener(port=9, protocol="udp")).hint
        == "banger vm publish web 8009:9/udp"
    )


def test_in_user_mode_sshd_is_reached_without_being_published():
    assert reached(make_vm(), listener(port=22)) == ["127.0.0.1:40022"]
    assert reached(make_vm(), listener(port=22, protocol="udp")) == []
