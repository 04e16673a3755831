"""The zone: one packet in, one out. What must never happen is an exception, or an answer to an answer."""

import gc
import random
import struct
import sys
from ipaddress import IPv4Interface

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banger.network.dns import LABELS_MAX, QUERY_BYTES_MAX, UDP_BYTES_MAX, Forward, Zone

FUZZ_PACKETS = 20_000


def make_zone(server="10.209.0.1/24"):
    zone = Zone("vm", IPv4Interface(server))
    zone.add("a", "10.209.0.2")
    zone.add("b-2", "10.209.0.3")
    return zone


def ask(name, kind="A", *, zone=None, stream=False, may_forward=False, **options):
    """The parsed answer, or the Forward."""
    query = dns.message.make_query(name, kind, **options)
    answer = (zone or make_zone()).answer(query.to_wire(), stream=stream, may_forward=may_forward)
    if isinstance(answer, Forward):
        return answer
    message = dns.message.from_wire(answer)
    assert query.is_response(message)
    return message


def records(message):
    return [rrset.to_text() for rrset in message.answer]


def soa_owner(message):
    """Of a negative answer, which has nothing else."""
    assert message.answer == []
    (soa,) = message.authority
    assert soa.rdtype == dns.rdatatype.SOA
    return soa.name.to_text()


def rcode_of(packet):
    return packet[3] & 0xF


# What is ours


def test_a_name_has_its_address_in_whatever_case_and_the_question_keeps_its_own():
    answer = ask("A.Vm")
    assert records(answer) == ["A.Vm. 5 IN A 10.209.0.2"]
    assert answer.question[0].name.to_text() == "A.Vm."
    assert answer.flags & dns.flags.AA
    assert answer.rcode() == dns.rcode.NOERROR


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "SOA", "NS", "CNAME", "DS", "HTTPS", "TYPE4711"])
def test_another_type_of_a_name_that_exists_is_empty_and_no_error(kind):
    answer = ask("a.vm", kind)
    assert answer.rcode() == dns.rcode.NOERROR
    assert soa_owner(answer) == "vm."
    assert answer.flags & dns.flags.AA


@pytest.mark.parametrize("name", ["c.vm", "x.a.vm", "a.a.vm", "*.vm", "_ssh._tcp.a.vm", "10.209.0.2.vm"])
def test_a_name_that_is_not_registered_does_not_exist_whatever_the_type(name):
    for kind in ("A", "AAAA", "ANY"):
        answer = ask(name, kind, may_forward=True)
        assert answer.rcode() == dns.rcode.NXDOMAIN
        assert soa_owner(answer) == "vm."


def test_negative_answers_live_as_short_as_positive_ones():
    (soa,) = ask("c.vm").authority
    assert (soa.ttl, soa[0].minimum) == (5, 5)


def test_the_zone_itself_has_soa_and_ns_and_is_the_host():
    assert records(ask("vm", "SOA")) == ["vm. 5 IN SOA vm. nobody.invalid. 1 3600 1200 604800 5"]
    assert records(ask("vm", "NS")) == ["vm. 5 IN NS vm."]
    assert records(ask("vm", "A")) == ["vm. 5 IN A 10.209.0.1"]
    assert soa_owner(ask("vm", "AAAA")) == "vm."


def test_any_gets_one_set_of_records():
    assert len(ask("a.vm", "ANY").answer) == 1
    assert len(ask("vm", "ANY").answer) == 1


def test_an_address_has_the_name_back():
    assert records(ask("2.0.209.10.in-addr.arpa", "PTR")) == ["2.0.209.10.in-addr.arpa. 5 IN PTR a.vm."]
    assert records(ask("1.0.209.10.in-addr.arpa", "PTR")) == ["1.0.209.10.in-addr.arpa. 5 IN PTR vm."]
    assert soa_owner(ask("2.0.209.10.in-addr.arpa", "A")) == "0.209.10.in-addr.arpa."


@pytest.mark.parametrize("first", ["9", "02", "256", "+2", "x", "1.2", "\\217\\162"])
def test_an_address_that_nobody_has_does_not_exist(first):
    answer = ask(f"{first}.0.209.10.in-addr.arpa", "PTR")
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert soa_owner(answer) == "0.209.10.in-addr.arpa."


def test_the_reverse_zone_has_soa_and_ns():
    assert records(ask("0.209.10.in-addr.arpa", "NS")) == [
        "0.209.10.in-addr.arpa. 5 IN NS 0.209.10.in-addr.arpa."
    ]
    assert len(records(ask("0.209.10.in-addr.arpa", "SOA"))) == 1


def test_in_a_wide_subnet_what_lies_between_zone_and_address_exists():
    zone = make_zone("10.209.0.1/16")
    zone.add("far", "10.209.7.9")
    assert records(ask("9.7.209.10.in-addr.arpa", "PTR", zone=zone)) == [
        "9.7.209.10.in-addr.arpa. 5 IN PTR far.vm."
    ]
    between = ask("7.209.10.in-addr.arpa", "PTR", zone=zone)
    assert (between.rcode(), soa_owner(between)) == (dns.rcode.NOERROR, "209.10.in-addr.arpa.")
    assert ask("8.209.10.in-addr.arpa", "PTR", zone=zone).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    ("server", "zones"),
    [
        ("10.209.0.1/29", ["0.209.10.in-addr.arpa."]),
        ("172.16.4.1/23", ["4.16.172.in-addr.arpa.", "5.16.172.in-addr.arpa."]),
        ("192.168.0.1/16", ["168.192.in-addr.arpa."]),
    ],
)
def test_each_length_of_subnet_has_its_reverse_zones(server, zones):
    for zone in zones:
        answer = ask(zone, "SOA", zone=make_zone(server))
        assert answer.answer[0].name.to_text() == zone


def test_a_name_that_moves_or_goes_leaves_nothing_behind():
    zone = make_zone()
    assert zone.add("a", "10.209.0.9") == "10.209.0.2"
    assert records(ask("a.vm", zone=zone)) == ["a.vm. 5 IN A 10.209.0.9"]
    assert ask("2.0.209.10.in-addr.arpa", "PTR", zone=zone).rcode() == dns.rcode.NXDOMAIN
    assert zone.remove("A") == "10.209.0.9"
    assert zone.remove("a") is None
    assert ask("a.vm", zone=zone).rcode() == dns.rcode.NXDOMAIN
    assert ask("9.0.209.10.in-addr.arpa", "PTR", zone=zone).rcode() == dns.rcode.NXDOMAIN


def test_a_name_that_goes_late_does_not_take_its_successors_reverse_name():
    zone = make_zone()
    zone.add("heir", "10.209.0.2")
    zone.remove("a")
    assert records(ask("2.0.209.10.in-addr.arpa", "PTR", zone=zone)) == [
        "2.0.209.10.in-addr.arpa. 5 IN PTR heir.vm."
    ]


# What is not ours


def test_names_of_the_world_are_for_guests_that_may():
    forward = ask("Example.com", may_forward=True)
    assert isinstance(forward, Forward)
    refused = ask("example.com")
    assert refused.rcode() == dns.rcode.REFUSED
    assert not refused.flags & dns.flags.RA


def test_a_question_without_the_wish_for_recursion_is_not_forwarded():
    assert ask("example.com", may_forward=True, flags=0).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize(
    "name",
    [
        "b.local",
        "local",
        "x.test",
        "x.invalid",
        "x.onion",
        "router.home.arpa",
        "_dns.resolver.arpa",
        "1.1.168.192.in-addr.arpa",
        "1.0.0.10.in-addr.arpa",
        "9.1.209.10.in-addr.arpa",
        "1.1.31.172.in-addr.arpa",
        "1.1.254.169.in-addr.arpa",
        "1.1.127.100.in-addr.arpa",
        "1.0.0.127.in-addr.arpa",
        "1" + ".0" * 31 + ".ip6.arpa",
        "0.0.d.f.ip6.arpa",
        "0.b.e.f.ip6.arpa",
    ],
)
def test_what_is_of_this_host_or_of_nobody_never_leaves_it(name):
    for kind in ("A", "PTR", "TXT"):
        answer = ask(name, kind, may_forward=True)
        assert not isinstance(answer, Forward)
        assert answer.flags & dns.flags.AA
        zone = soa_owner(answer).rstrip(".")
        assert name.endswith(zone)
        assert answer.rcode() == (dns.rcode.NOERROR if name == zone else dns.rcode.NXDOMAIN)


def test_public_reverse_names_are_forwarded():
    for name in ("8.8.8.8.in-addr.arpa", "1.1.15.172.in-addr.arpa", "1.1.128.100.in-addr.arpa", "arpa"):
        assert isinstance(ask(name, "PTR", may_forward=True), Forward)


def test_localhost_is_the_asking_guest_itself():
    assert records(ask("localhost", may_forward=True)) == ["localhost. 5 IN A 127.0.0.1"]
    assert records(ask("x.localhost", "AAAA")) == ["x.localhost. 5 IN AAAA ::1"]
    assert soa_owner(ask("localhost", "TXT")) == "localhost."


def test_a_bare_label_does_not_reach_the_machines_of_the_hosts_own_network():
    for kind in ("A", "AAAA"):
        assert ask("printer", kind, may_forward=True).rcode() == dns.rcode.NXDOMAIN
    assert isinstance(ask("com", "NS", may_forward=True), Forward)
    assert isinstance(ask(".", "NS", may_forward=True), Forward)


def test_only_name_type_and_flags_of_a_question_go_out():
    query = dns.message.make_query("Example.com", "MX", use_edns=True, want_dnssec=True, payload=60000)
    query.use_edns(0, dns.flags.DO, 60000, options=[dns.edns.GenericOption(65001, b"mark" * 10)])
    query.flags |= dns.flags.CD | dns.flags.AA
    forward = make_zone().answer(query.to_wire(), may_forward=True)
    sent = dns.message.from_wire(forward.packet)
    assert sent.question[0].to_text() == "Example.com. IN MX"
    assert sent.id == 0
    assert sent.flags == dns.flags.RD | dns.flags.CD
    assert (sent.payload, sent.options, sent.ednsflags) == (UDP_BYTES_MAX, (), dns.flags.DO)
    assert len(forward.packet) < 60


def test_an_answer_fits_its_question_only():
    forward = ask("Example.com", may_forward=True)
    query = dns.message.from_wire(forward.packet)
    query.id = 77
    answer = dns.message.make_response(query, recursion_available=True)
    assert forward.is_answered_by(answer.to_wire(), 77)
    assert not forward.is_answered_by(answer.to_wire(), 78)
    assert not forward.is_answered_by(query.to_wire(), 77)
    assert not forward.is_answered_by(answer.to_wire()[:20], 77)
    assert not forward.is_answered_by(b"", 77)
    other = dns.message.make_response(dns.message.make_query("example.org", "A", id=77))
    assert not forward.is_answered_by(other.to_wire(), 77)
    for kind in ("AAAA", "TYPE33"):
        other = dns.message.make_response(dns.message.make_query("example.com", kind, id=77))
        assert not forward.is_answered_by(other.to_wire(), 77)
    lower = dns.message.make_response(dns.message.make_query("eXAMPLE.com", "A", id=77))
    assert forward.is_answered_by(lower.to_wire(), 77)


def test_the_guest_gets_its_own_id_back_and_no_more_than_it_can_take():
    query = dns.message.make_query("example.com", "TXT", id=4242)
    long = dns.message.make_response(query, recursion_available=True)
    long.id = 1
    long.answer = [dns.rrset.from_text("example.com.", 60, "IN", "TXT", *[f'"{i:0200}"' for i in range(5)])]
    packet = long.to_wire()
    forward = make_zone().answer(query.to_wire(), may_forward=True)
    cut = dns.message.from_wire(forward.finish(packet))
    assert (cut.id, cut.answer, len(packet) > 512) == (4242, [], True)
    assert cut.flags & dns.flags.TC
    forward = make_zone().answer(query.to_wire(), may_forward=True, stream=True)
    whole = dns.message.from_wire(forward.finish(packet))
    assert (whole.id, whole.answer) == (4242, long.answer)
    failed = dns.message.from_wire(forward.fail())
    assert (failed.id, failed.rcode()) == (4242, dns.rcode.SERVFAIL)


# EDNS


def test_edns_is_answered_with_edns_and_dnssec_wishes_are_echoed():
    assert ask("a.vm").edns == -1
    answer = ask("a.vm", use_edns=True, payload=4096)
    assert (answer.edns, answer.payload, answer.ednsflags) == (0, UDP_BYTES_MAX, 0)
    assert ask("c.vm", want_dnssec=True).ednsflags == dns.flags.DO


def test_an_unknown_version_of_edns_is_refused_with_ours():
    answer = ask("a.vm", use_edns=1)
    assert (answer.rcode(), answer.edns, answer.answer) == (dns.rcode.BADVERS, 0, [])


def make_opt(owner=b"\0", payload=4096, data=b""):
    return owner + struct.pack("!HHIH", dns.rdatatype.OPT, payload, 0, len(data)) + data


def make_packet(*, id=1, flags=0x0100, counts=(1, 0, 0, 0), body=b"\1a\2vm\0\0\1\0\1"):
    return struct.pack("!6H", id, flags, *counts) + body


@pytest.mark.parametrize(
    "extra",
    [
        (make_opt() + make_opt(), 2),
        (make_opt(owner=b"\1x\0"), 1),
        (make_opt()[:-1], 1),
        (make_opt(data=b"1234")[:-1], 1),
        (make_opt(), 2),
        (make_opt(), 0),
        (b"\0", 0),
        (make_opt(owner=b"\0")[:5], 1),
        (b"\0" + struct.pack("!HHIH", 250, 0, 0, 0), 1000),
        (b"".join(b"\0" + struct.pack("!HHIH", 250, 0, 0, 0) for _ in range(5)), 5),
    ],
)
def test_what_is_behind_the_question_is_whole_or_it_is_a_format_error(extra):
    data, count = extra
    packet = make_packet(counts=(1, 0, 0, count), body=b"\1a\2vm\0\0\1\0\1" + data)
    assert rcode_of(make_zone().answer(packet)) == dns.rcode.FORMERR


def test_options_and_signatures_that_nobody_reads_do_no_harm():
    data = make_opt(data=struct.pack("!HH", 10, 3) + b"bad") + b"\0" + struct.pack("!HHIH", 250, 255, 0, 0)
    packet = make_packet(counts=(1, 0, 0, 2), body=b"\1a\2vm\0\0\1\0\1" + data)
    answer = dns.message.from_wire(make_zone().answer(packet))
    assert records(answer) == ["a.vm. 5 IN A 10.209.0.2"]


# What is no question


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (0xFFFF,) * 4])
def test_anything_but_one_question_is_a_format_error(counts):
    body = b"\1a\2vm\0\0\1\0\1" * 2
    assert rcode_of(make_zone().answer(make_packet(counts=counts, body=body))) == dns.rcode.FORMERR


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\1a\2vm\0\0\1",
        b"\1a\2vm",
        b"\xc0\x0c\0\1\0\1",
        b"\1a\xc0\x0c\0\1\0\1",
        b"\xff\xff\0\1\0\1",
        b"\x40a\0\0\1\0\1",
        b"\x3f" + b"a" * 20,
        (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
        b"\1a" * LABELS_MAX + b"\0\0\1\0\1",
    ],
)
def test_a_question_that_cannot_be_read_is_a_format_error(body):
    answer = make_zone().answer(make_packet(id=0xBEEF, body=body))
    assert rcode_of(answer) == dns.rcode.FORMERR
    assert answer[:2] == b"\xbe\xef"
    assert len(answer) == 12


@pytest.mark.parametrize("opcode", [dns.opcode.STATUS, dns.opcode.NOTIFY, dns.opcode.UPDATE, 6, 15])
def test_other_operations_are_not_implemented(opcode):
    answer = make_zone().answer(make_packet(flags=opcode << 11))
    assert (rcode_of(answer), answer[2] >> 3 & 0xF) == (dns.rcode.NOTIMP, opcode)


@pytest.mark.parametrize("kind", ["AXFR", "IXFR", "TSIG", "TKEY", "OPT"])
def test_transfers_and_what_is_no_data_are_refused(kind):
    number = dns.rdatatype.from_text(kind)
    for name in (b"\2vm\0", b"\7example\3com\0"):
        packet = make_packet(body=name + struct.pack("!HH", number, 1))
        assert rcode_of(make_zone().answer(packet, stream=True, may_forward=True)) == dns.rcode.REFUSED


@pytest.mark.parametrize("rdclass", ["CH", "HS", "ANY", "NONE"])
def test_other_classes_are_refused(rdclass):
    for name in ("a.vm", "version.bind"):
        answer = ask(name, "TXT", rdclass=rdclass, may_forward=True)
        assert (answer.rcode(), answer.answer) == (dns.rcode.REFUSED, [])


def test_an_answer_is_never_answered():
    zone = make_zone()
    for name in ("a.vm", "example.com"):
        response = dns.message.make_response(dns.message.make_query(name, "A"))
        assert zone.answer(response.to_wire(), may_forward=True) is None
    for opcode in range(16):
        assert zone.answer(make_packet(flags=0x8000 | opcode << 11), may_forward=True) is None


def test_what_is_too_short_or_too_long_is_dropped():
    assert make_zone().answer(b"") is None
    assert make_zone().answer(make_packet()[:11]) is None
    assert make_zone().answer(make_packet() + b"\0" * QUERY_BYTES_MAX) is None


# Anything at all


@given(st.binary(max_size=600), st.booleans(), st.booleans())
@settings(max_examples=300)
def test_any_bytes_are_answered_or_dropped(packet, stream, may_forward):
    check_answer(packet, make_zone().answer(packet, stream=stream, may_forward=may_forward))


@given(
    st.lists(st.binary(min_size=1, max_size=63), max_size=6), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)
)
@settings(max_examples=300)
def test_any_name_type_and_class_is_a_question(labels, kind, rdclass):
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    packet = make_packet(body=name + struct.pack("!HH", kind, rdclass))
    answer = make_zone().answer(packet, may_forward=True)
    check_answer(packet, answer)
    if isinstance(answer, Forward):
        assert answer.packet[12:].startswith(name)
    elif len(name) <= 255:
        assert answer[12:].startswith(name)


def check_answer(packet, answer, *, read=True):
    """Of this question's id, marked as an answer, no longer than UDP may have it; well-formed."""
    if isinstance(answer, Forward):
        assert len(answer.packet) <= 12 + 255 + 4 + 11
        answer = answer.fail()
    if answer is not None:
        assert answer[:2] == packet[:2]
        assert answer[2] & 0x80
        assert not packet[2] & 0x80
        assert len(answer) <= 512
        if read:
            dns.message.from_wire(answer)


def mutate(rng, packet):
    packet = bytearray(packet)
    for _ in range(rng.randint(1, 3)):
        choice = rng.choices(range(5), weights=(4, 4, 1, 1, 1))[0]
        position = rng.randrange(len(packet)) if packet else 0
        if choice == 0 and packet:
            packet[position] = rng.randrange(256)
        elif choice == 1 and packet:
            packet[position] ^= 1 << rng.randrange(8)
        elif choice == 2:
            del packet[position : position + rng.randint(1, 8)]
        elif choice == 3:
            packet[position:position] = rng.randbytes(rng.randint(1, 8))
        else:
            packet += packet[position:]
    return bytes(packet)


def test_twenty_thousand_broken_packets_neither_raise_nor_stay_in_memory():
    rng = random.Random(7)
    seeds = [
        dns.message.make_query(name, kind, use_edns=edns, want_dnssec=edns).to_wire()
        for name in ("a.vm", "vm", "2.0.209.10.in-addr.arpa", "www.example.com", "b.local", ".")
        for kind in ("A", "PTR", "ANY")
        for edns in (False, True)
    ]
    seeds.append(dns.message.make_response(dns.message.make_query("a.vm", "A")).to_wire())
    zone = make_zone()
    kinds = {"answered": 0, "forwarded": 0, "dropped": 0}
    for number in range(FUZZ_PACKETS):
        if number == FUZZ_PACKETS // 10:
            gc.collect()
            warm = sys.getallocatedblocks()
        packet = mutate(rng, rng.choice(seeds))
        answer = zone.answer(packet, may_forward=bool(number % 2))
        check_answer(packet, answer, read=number % 20 == 0)
        kinds["dropped" if answer is None else "answered" if isinstance(answer, bytes) else "forwarded"] += 1
    gc.collect()
    assert min(kinds.values()) > 500, kinds
    # Whatever other threads of the test run allocate meanwhile is less than a block for every tenth packet.
    assert sys.getallocatedblocks() - warm < FUZZ_PACKETS // 10
