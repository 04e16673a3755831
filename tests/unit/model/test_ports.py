"""Published ports as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.base.problem import Code, Outcome, Problem
from banger.model.machine import PortForward
from banger.model.ports import PORTS_MAX, check_together, parse_all, parse_publish, render_publish

PORTS = st.integers(1, 65535)


def forward(host_address, host_port, guest_port, protocol="tcp"):
    return PortForward(
        host_address=host_address, host_port=host_port, guest_port=guest_port, protocol=protocol
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", forward("127.0.0.1", 8080, 80)),
        ("8080:80/tcp", forward("127.0.0.1", 8080, 80)),
        ("5353:53/udp", forward("127.0.0.1", 5353, 53, "udp")),
        ("0.0.0.0:8080:80", forward("0.0.0.0", 8080, 80)),
        ("192.168.1.5:5353:53/udp", forward("192.168.1.5", 5353, 53, "udp")),
        ("1:65535", forward("127.0.0.1", 1, 65535)),
        ("08080:080", forward("127.0.0.1", 8080, 80)),
    ],
)
def test_what_can_be_written(text, expected):
    assert parse_publish(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is not a port to publish"),
        ("80", "'80' is not a port to publish"),
        ("1:2:3:4", "'1:2:3:4' is not a port to publish"),
        ("[::1]:80:80", "is not a port to publish"),
        ("8080:80/sctp", "'8080:80/sctp' is not a port to publish"),
        ("8080:80/UDP", "is not a port to publish"),
        ("8080:80/", "'8080:80/' is not a port to publish"),
        ("8080:80/udp/tcp", "is not a port to publish"),
        ("0:80", "'0' in '0:80' is not a port"),
        ("80:0", "'0' in '80:0' is not a port"),
        ("65536:80", "'65536'"),
        ("80:65536", "'65536'"),
        ("-1:80", "'-1'"),
        ("+1:80", "'+1'"),
        (" 80:80", "' 80'"),
        ("80:80 ", "'80 '"),
        ("٨٠:80", "is not a port"),
        ("²:80", "is not a port"),
        ("80:", "'' in '80:'"),
        (":80", "'' in ':80'"),
        ("9" * 5000 + ":80", "is not a port"),
        ("000080:80", "is not a port"),
        ("localhost:8080:80", "'localhost' is not an IPv4 address"),
        (":8080:80", "'' is not an IPv4 address"),
        ("127.1:8080:80", "'127.1' is not an IPv4 address"),
        ("127.0.0.01:8080:80", "is not an IPv4 address"),
        ("256.0.0.1:8080:80", "is not an IPv4 address"),
    ],
)
def test_what_cannot_is_refused_with_the_grammar(text, words):
    with pytest.raises(Problem) as caught:
        parse_publish(text)
    assert words in caught.value.brief
    assert (caught.value.code, caught.value.outcome) == (Code.BAD_REQUEST, Outcome.NOT_STARTED)
    assert "[IP:]HOST:GUEST[/udp]" in caught.value.hint


@given(st.ip_addresses(v=4), PORTS, PORTS, st.sampled_from(["tcp", "udp"]))
def test_what_is_rendered_is_read_back(address, host_port, guest_port, protocol):
    port = forward(str(address), host_port, guest_port, protocol)
    assert parse_publish(render_publish(port)) == port


@given(st.text(max_size=30))
def test_any_other_text_is_a_problem_and_nothing_else(text):
    try:
        port = parse_publish(text)
    except Problem:
        return
    assert parse_publish(render_publish(port)) == port


@pytest.mark.parametrize(
    "texts",
    [
        ["80:80", "80:81"],
        ["80:80", "127.0.0.1:80:80"],
        ["0.0.0.0:80:80", "80:81"],
        ["80:80", "0.0.0.0:80:81"],
        ["53:53/udp", "1:1", "0.0.0.0:53:5353/udp"],
    ],
)
def test_two_that_want_one_port_are_refused(texts):
    with pytest.raises(Problem, match="want the same port") as caught:
        parse_all(texts)
    assert caught.value.code is Code.BAD_REQUEST
    assert caught.value.hint.startswith("leave one out, or choose another port of the host than ")
    assert all(render_publish(parse_publish(text)) in caught.value.brief for text in (texts[0], texts[-1]))


def test_one_number_may_be_published_for_each_protocol_and_each_address():
    texts = ["80:80", "80:80/udp", "127.0.0.2:80:80", "81:80"]
    assert parse_all(texts) == tuple(map(parse_publish, texts))


def test_there_is_a_most():
    ports = tuple(forward("127.0.0.1", number, 80) for number in range(1, PORTS_MAX + 2))
    check_together(ports[:PORTS_MAX])
    with pytest.raises(Problem, match=f"{PORTS_MAX + 1} published ports are more than {PORTS_MAX}"):
        check_together(ports)
