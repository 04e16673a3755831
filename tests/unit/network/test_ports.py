"""Ports of the host: held, looked at, and refused with the reason."""

import errno
import socket

import pytest

from banger.base.problem import Code, Outcome, Problem
from banger.model.ports import parse_publish
from banger.network import ports
from banger.network.ports import check_port, find_port, hold_port


def bind(forward, *, listen=False):
    kind = socket.SOCK_STREAM if forward.protocol == "tcp" else socket.SOCK_DGRAM
    bound = socket.socket(socket.AF_INET, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        bound.bind((forward.host_address, forward.host_port))
        if listen:
            bound.listen()
    except OSError:
        bound.close()
        raise
    return bound


@pytest.fixture(params=["tcp", "udp"])
def forward(request):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # free for UDP; very likely for TCP, too
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    return parse_publish(f"{find_port() if request.param == 'tcp' else number}:80/{request.param}")


def test_a_held_port_is_nobody_elses_until_it_is_let_go(forward):
    held = hold_port(forward)
    assert held.getsockname() == (forward.host_address, forward.host_port)
    assert not held.get_inheritable()
    with pytest.raises(OSError, match="in use"):
        bind(forward)
    with pytest.raises(Problem, match="is taken"):
        hold_port(forward)
    with pytest.raises(Problem, match="is taken"):
        check_port(forward)
    held.close()
    bind(forward).close()


def test_a_port_of_all_addresses_takes_that_of_each(forward):
    everywhere = parse_publish(f"0.0.0.0:{forward.host_port}:80/{forward.protocol}")
    with hold_port(everywhere), pytest.raises(Problem, match="is taken"):
        hold_port(forward)
    with hold_port(forward), pytest.raises(Problem, match="is taken"):
        hold_port(everywhere)


def test_of_two_addresses_each_has_its_own(forward):
    other = parse_publish(f"127.0.0.2:{forward.host_port}:80/{forward.protocol}")
    with hold_port(forward), hold_port(other):
        pass


def test_looking_at_a_port_leaves_it_free(forward):
    check_port(forward)
    bind(forward, listen=forward.protocol == "tcp").close()


def test_a_taken_port_names_who_has_it_by_a_command(forward):
    with bind(forward, listen=forward.protocol == "tcp"), pytest.raises(Problem) as caught:
        check_port(forward)
    problem = caught.value
    assert (problem.code, problem.outcome) == (Code.CONFLICT, Outcome.NOT_STARTED)
    assert f"127.0.0.1:{forward.host_port}/{forward.protocol}" in problem.brief
    assert problem.hint == f"ss -l{forward.protocol[0]}np sport = :{forward.host_port}"


def test_looking_overlooks_connections_that_have_ended():
    """TIME_WAIT of an earlier server's connection does not keep a VMM from listening."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", number)) as client:
            server.accept()[0].close()  # who closes first has TIME_WAIT
            assert client.recv(1) == b""
    assert find_port(number) == number
    check_port(parse_publish(f"{number}:80"))


def test_an_address_of_another_host_is_refused():
    with pytest.raises(Problem) as caught:
        hold_port(parse_publish("203.0.113.7:8080:80"))
    assert (caught.value.code, caught.value.hint) == (Code.BAD_REQUEST, "ip -brief address")
    assert "203.0.113.7 is no address of this host" in caught.value.brief


@pytest.mark.parametrize(
    ("publish", "hint"),
    [
        ("80:8080", "--publish 127.0.0.1:8080:8080"),
        ("0.0.0.0:53:53/udp", "--publish 0.0.0.0:8053:53/udp"),
        ("80:80", "--publish 127.0.0.1:8080:80"),
    ],
)
def test_a_port_for_root_only_has_another_one_suggested(monkeypatch, publish, hint):
    def refuse(*_, **__):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(ports, "_bind", refuse)
    with pytest.raises(Problem) as caught:
        hold_port(parse_publish(publish))
    assert caught.value.code is Code.UNAUTHORIZED
    assert "for root only" in caught.value.brief
    assert caught.value.hint.endswith(hint)


def test_whatever_else_the_kernel_says_is_told(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(ports, "_bind", refuse)
    with pytest.raises(Problem, match="Too many open files") as caught:
        hold_port(parse_publish("8080:80"))
    assert caught.value.code is Code.OPERATION_FAILED
