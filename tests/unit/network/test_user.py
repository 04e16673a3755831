"""The plan of user mode, and the ports it is given."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.base.problem import Problem
from banger.model.machine import PortForward
from banger.network.ports import check_port, find_port
from banger.network.user import derive_mac, plan_user_network


@given(st.text(min_size=1))
def test_a_mac_is_local_unicast_and_the_same_each_time(vm_id):
    mac = derive_mac(vm_id)
    assert mac == derive_mac(vm_id)
    assert int(mac[:2], 16) & 3 == 2
    assert len(mac) == 17


def test_nat_off_is_a_restricted_network_with_ssh_on_loopback():
    network = plan_user_network("a", nat=False, ssh_port=4000)
    assert network.restricted
    assert network.forwards == (PortForward(host_address="127.0.0.1", host_port=4000, guest_port=22),)
    assert not plan_user_network("a", nat=True, ssh_port=4000).restricted


def test_one_host_port_cannot_lead_to_two_places():
    again = PortForward(host_address="127.0.0.1", host_port=4000, guest_port=80)
    with pytest.raises(Problem, match="4000 is published twice"):
        plan_user_network("a", nat=True, ssh_port=4000, published=(again,))


def test_a_port_is_kept_while_it_is_free_and_replaced_when_it_is_not():
    port = find_port()
    assert find_port(port) == port
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(Problem, match="taken"):
            check_port(PortForward(host_address="127.0.0.1", host_port=port, guest_port=80))
        assert find_port(port) != port
