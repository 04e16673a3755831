import pytest

from banger.cli import catalog, values
from banger.cli.parser import HelpAsked, parse
from banger.client.wire import Failure


def params(*words):
    return parse(list(words)).params()


def problem(*words):
    with pytest.raises(Failure) as caught:
        parse(list(words))
    assert caught.value.exit_status == 64
    return caught.value


def test_flags_that_were_not_given_are_not_sent():
    assert params("vm", "create") == {}


def test_flags_come_in_every_usual_spelling():
    expected = {"name": "web", "memory_mib": 2048, "nat": True, "labels": {"a": "1", "b": "x=y"}}
    assert (
        params("vm", "create", "-n", "web", "-m", "2G", "--nat", "-l", "a=1", "--label", "b=x=y") == expected
    )
    assert params("vm", "create", "--name=web", "-m2G", "--nat", "--label=a=1", "-lb=x=y") == expected


def test_switches_may_be_joined_and_the_last_may_take_a_value():
    arguments = parse(["vm", "exec", "web", "-itu", "nobody", "ls"])
    assert arguments.params() == {"vm": "web", "stdin": True, "pty": True, "user": "nobody"}
    assert arguments.rest == ["ls"]


@pytest.mark.parametrize(
    "words",
    [["vm", "exec", "web", "ls", "-l", "--", "x"], ["vm", "exec", "web", "--", "ls", "-l", "--", "x"]],
)
def test_the_command_of_exec_is_taken_as_it_is(words):
    assert parse(words).rest == ["ls", "-l", "--", "x"]


def test_run_wants_two_hyphens_before_the_command():
    assert "use -- before the command" in problem("vm", "run", "uname", "-a").hint
    assert parse(["vm", "run", "--rm", "--", "uname", "-a"]).rest == ["uname", "-a"]


def test_several_references_are_kept_in_order():
    arguments = parse(["vm", "stop", "b", "--timeout", "1m30s", "a"])
    assert arguments.references == ["b", "a"]
    assert arguments.params() == {"timeout_s": 90.0}


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["vm", "create", "--memroy", "2G"], "no flag --memroy", "--memory"),
        (["vm", "crate"], "no command 'vm crate'", "banger vm create"),
        (["run"], "no command 'run'", "banger vm run"),
        (["inspect", "web"], "no command 'inspect'", "did you mean: banger vm show"),
        (["vm", "info"], "no command 'vm info'", "banger vm show"),
        (["image", "describe"], "no command", "banger image show"),
        (["daemon", "info"], "no command", "banger daemon status"),
        (["kernel", "remove"], "no command", "banger kernel delete"),
        (["remove"], "no command", "banger vm delete"),
        (["attach"], "no command", "banger vm exec -it"),
        (["vm", "shell", "web"], "no command", "banger vm exec -it"),
        (["console"], "no command", "banger vm logs"),
        (["vm", "resize"], "no command", "banger vm set"),
        (["vm", "edit"], "no command", "banger vm set"),
        (["label"], "no command", "banger vm set"),
        (["launch"], "no command", "banger vm run"),
        (["op", "list"], "no command 'op'", "banger operation"),
        (["ops"], "no command", "banger operation"),
        (["system", "prune"], "no command", "banger vm prune --dry-run"),
        (["vm", "create", "--memory", "lots"], "'lots' is not a size", "512M"),
        (["vm", "create", "--vcpu", "two"], "'two' is not a number", "--vcpu 2"),
        (["vm", "create", "--vcpu"], "--vcpu needs a value", "--vcpu N"),
        (["vm", "create", "--nat=yes"], "--nat takes no value", "--nat alone"),
        (["vm", "create", "--name", "a", "--name", "b"], "given twice", "once"),
        (["vm", "create", "--name", "Web_1"], "'Web_1' is not a VM name", "lower-case"),
        (["vm", "create", "--label", "x"], "'x' is not KEY=VALUE", "team=web"),
        (["vm", "create", "x", "y"], "one argument too many", "--help"),
        (["vm", "stop", "--timeout", "10", "a"], "'10' is not a duration", "30s"),
        (["vm", "stop"], "VM is missing", "banger vm stop --help"),
        (["vm", "exec", "web"], "CMD is missing", "--help"),
        (["vm", "logs", "web", "--source", "x"], "cannot be 'x'", "serial, vmm"),
        (["vm", "exec", "-e", "BANGER_NO_SUCH", "web", "ls"], "no such variable", "BANGER_NO_SUCH=VALUE"),
        (["completion", "tcsh"], "cannot be 'tcsh'", "fish"),
    ],
)
def test_wrong_input_is_refused_with_a_hint(words, message, hint):
    found = problem(*words)
    assert message in found.message
    assert hint in found.hint


def test_a_variable_without_a_value_comes_from_our_environment(monkeypatch):
    monkeypatch.setenv("BANGER_TEST", "here")
    assert params("vm", "exec", "web", "-e", "BANGER_TEST", "--", "env")["env"] == ["BANGER_TEST=here"]


@pytest.mark.parametrize(
    ("words", "name"),
    [([], ""), (["--help"], ""), (["vm"], "vm"), (["vm", "-h"], "vm"), (["help", "vm", "rm"], "vm delete")],
)
def test_help_is_asked_for_in_every_usual_way(words, name):
    with pytest.raises(HelpAsked) as caught:
        parse(words)
    assert caught.value.name == name


def test_help_of_a_command_wins_over_what_is_missing():
    with pytest.raises(HelpAsked):
        parse(["vm", "stop", "--help"])


@pytest.mark.parametrize("alias", catalog.ALIASES)
def test_aliases_lead_to_commands(alias):
    assert catalog.ALIASES[alias] in catalog.COMMANDS


@pytest.mark.parametrize("name", catalog.COMMANDS)
def test_every_command_has_its_function_and_unambiguous_flags(name):
    command = catalog.find(name)
    module = __import__(f"banger.cli.commands.{command.module}", fromlist=[command.function])
    assert callable(getattr(module, command.function))
    for kind in ("flag", "short"):
        given = [getattr(parameter, kind) for parameter in command.parameters if getattr(parameter, kind)]
        assert len(given) == len(set(given))
        assert "h" not in given


@pytest.mark.parametrize(
    "text", ["512", "512M", "2G", "1.5GiB", "3kib", "1T", "10 MB", "0", "", "x", "-1", "1.", ".5", "1GG", "B"]
)
def test_sizes_are_those_of_the_daemon(text):
    from banger.base.problem import Problem
    from banger.base.units import parse_size

    try:
        expected = parse_size(text)
    except Problem:
        with pytest.raises(Failure):
            values.parse_size(text, "--size")
    else:
        assert values.parse_size(text, "--size") == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("250ms", 0.25), ("1d", 86400), (" 5s ", 5)],
)
def test_durations(text, seconds):
    assert values.parse_duration(text, "--timeout") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "1x", "10 s", "1h 30m", "1h30", "-1s", "٣s"])
def test_what_is_no_duration_is_refused_with_examples(text):
    with pytest.raises(Failure) as caught:
        values.parse_duration(text, "--timeout")
    assert "1h30m" in caught.value.hint
