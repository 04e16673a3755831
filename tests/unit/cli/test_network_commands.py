"""`vm set`, `vm publish`, `vm unpublish` and `--publish` on the command line."""

import json

import pytest
from fake_daemon import DETAILS

from banger.cli import catalog
from banger.cli.help import render
from banger.cli.parser import parse
from banger.client.wire import Failure

PORTS = [
    {"host_address": "127.0.0.1", "host_port": 8080, "guest_port": 80, "protocol": "tcp"},
    {"host_address": "0.0.0.0", "host_port": 5353, "guest_port": 53, "protocol": "udp"},
]


def params(*words):
    return parse(list(words)).params()


def refuse(*words):
    with pytest.raises(Failure) as caught:
        parse(list(words))
    assert caught.value.exit_status == 64
    return caught.value


def publish_details(ports=PORTS):
    return {**DETAILS, "vm": {**DETAILS["vm"], "spec": {**DETAILS["vm"]["spec"], "publish": ports}}}


# --[no-]nat


def test_nat_has_three_states():
    assert params("vm", "set", "web", "--nat") == {"nat": True}
    assert params("vm", "set", "web", "--no-nat") == {"nat": False}
    assert params("vm", "set", "web", "--vcpu", "2") == {"vcpus": 2}


def test_the_same_twice_is_the_same():
    assert params("vm", "set", "web", "--nat", "--nat") == {"nat": True}
    assert params("vm", "set", "--no-nat", "web", "--no-nat") == {"nat": False}


@pytest.mark.parametrize("words", [("--nat", "--no-nat"), ("--no-nat", "--nat")])
def test_both_contradict_each_other(words):
    problem = refuse("vm", "set", "web", *words)
    assert problem.message == "--nat and --no-nat contradict each other"
    assert problem.hint == "give one"


@pytest.mark.parametrize("flag", ["--nat", "--no-nat"])
def test_neither_takes_a_value(flag):
    problem = refuse("vm", "set", "web", f"{flag}=yes")
    assert (problem.message, problem.hint) == (f"{flag} takes no value", f"write {flag} alone")


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("vm", "create", "--no-nat"), "--no-nat"),  # it is off there unless asked for
        (("vm", "create", "--no-name"), "--no-name"),
        (("vm", "set", "web", "--no-vcpu"), "--no-vcpu"),
        (("vm", "start", "web", "--no-quiet"), "--no-quiet"),
    ],
)
def test_what_is_not_negatable_has_no_negation(words, flag):
    assert f"has no flag {flag}" in refuse(*words).message


def test_a_negation_that_is_mistyped_is_suggested():
    assert refuse("vm", "set", "web", "--no-nta").hint == "did you mean --no-nat?"


def test_a_switch_that_was_negated_is_not_given():
    arguments = parse(["vm", "set", "web", "--no-nat"])
    assert not arguments.has("nat")
    assert arguments.get("nat") is False


def test_only_switches_are_negatable():
    for name in catalog.COMMANDS:
        for parameter in catalog.find(name).parameters:
            assert not parameter.negatable or parameter.type == "bool"
            if parameter.negatable:
                others = {other.flag for other in catalog.find(name).parameters}
                assert f"no-{parameter.flag}" not in others


def test_help_shows_both_ways():
    text = render("vm set")
    assert "--[no-]nat " in text
    assert "--nat " not in text.replace("--[no-]nat ", "")
    assert "--nat " in render("vm create")
    assert "[no-]" not in render("vm create")


def test_several_vms_are_set_in_turn(daemon, banger):
    daemon.answers["vm.set"] = DETAILS
    status, out, _ = banger("vm", "set", "--no-nat", "--memory", "2G", "a", "b")
    assert (status, out) == (0, "a\nb\n")
    assert [request["params"] for request in daemon.requests] == [
        {"vm": name, "nat": False, "memory_mib": 2048} for name in ("a", "b")
    ]


def test_sizes_of_set_are_read_as_for_create():
    expected = {"vcpus": 2, "memory_mib": 1536, "disk_size_bytes": 20 << 30}
    assert params("vm", "set", "web", "--vcpu", "2", "-m", "1.5G", "--disk-size=20G") == expected
    assert "is not a size" in refuse("vm", "set", "web", "--memory", "lots").message


# Ports


def test_ports_of_a_new_vm_are_given_one_by_one():
    expected = {"publish": ["8080:80", "0.0.0.0:5353:53/udp"]}
    assert params("vm", "create", "-p", "8080:80", "--publish", "0.0.0.0:5353:53/udp") == expected
    assert params("vm", "run", "--publish=8080:80", "-p0.0.0.0:5353:53/udp") == expected


@pytest.mark.parametrize("command", ["publish", "unpublish"])
def test_a_port_of_a_vm_is_changed_and_all_that_are_published_are_told(daemon, banger, command):
    daemon.answers[f"vm.{command}"] = publish_details()
    status, out, err = banger("vm", command, "web", "8080:80")
    assert (status, err) == (0, "")
    assert out == "127.0.0.1:8080:80\n0.0.0.0:5353:53/udp\n"
    (request,) = daemon.requests
    assert (request["method"], request["params"]) == (f"vm.{command}", {"vm": "web", "port": "8080:80"})


def test_nothing_published_is_nothing_to_tell(daemon, banger):
    daemon.answers["vm.unpublish"] = publish_details([])
    assert banger("vm", "unpublish", "web", "8080:80") == (0, "", "")
    daemon.answers["vm.unpublish"] = DETAILS  # from a daemon that leaves defaults out
    assert banger("vm", "unpublish", "web", "8080:80") == (0, "", "")


def test_json_is_what_the_daemon_said_and_nothing_else(daemon, banger):
    daemon.answers["vm.publish"] = publish_details()
    status, out, _ = banger("vm", "publish", "--json", "web", "8080:80")
    assert (status, json.loads(out)) == (0, publish_details())


def test_a_refused_port_is_one_line_with_hint(daemon, banger):
    error = {
        "code": "conflict",
        "message": "port 127.0.0.1:8080/tcp of the host is taken",
        "hint": "ss -ltnp",
    }
    daemon.answers["vm.publish"] = {"error": error}
    status, out, err = banger("vm", "publish", "web", "8080:80")
    assert (status, out) == (75, "")
    assert err == "banger: port 127.0.0.1:8080/tcp of the host is taken (op-1)\nhint: ss -ltnp\n"


@pytest.mark.parametrize("words", [("publish",), ("publish", "web"), ("unpublish", "web")])
def test_vm_and_port_are_needed(words):
    assert "is missing" in refuse("vm", *words).message


@pytest.mark.parametrize("command", ["publish", "unpublish"])
def test_help_has_the_grammar(command):
    text = render(f"vm {command}")
    assert "[IP:]HOST:GUEST[/udp]" in text
    assert f"banger vm {command} [FLAGS] VM PORT" in text


def test_show_tells_what_is_published(daemon, banger):
    daemon.answers["vm.show"] = publish_details()
    out = banger("vm", "show", "web")[1]
    (line,) = [line for line in out.splitlines() if line.startswith("published")]
    assert line.split(maxsplit=1)[1] == "127.0.0.1:8080:80, 0.0.0.0:5353:53/udp"
