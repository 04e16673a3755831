"""`vm run --agent` and `agent list`, on a daemon that answers as it is told."""

import pytest

OPENCODE = {
    "name": "opencode", "origin": "built in", "command": ["opencode"], "port": 4096,
    "serve": ["opencode", "serve", "--port", "4096"], "program": "opencode", "version": "1.0", "fetched": True,
    "env": ["SOME_API_KEY", "OTHER_API_KEY"],
}  # fmt: skip
VM = {"id": "0123", "name": "web", "spec": {"publish": []}, "runtime": {"network_mode": "user"}}
SESSION = {"id": "s-1", "name": "opencode", "vm": "web", "vm_id": "0123", "state": "running"}


@pytest.fixture
def agents(daemon, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "sk-0123")
    monkeypatch.delenv("OTHER_API_KEY", raising=False)
    daemon.answers |= {
        "agent.show": OPENCODE,
        "vm.create": {"vm": VM},
        "vm.show": {"vm": VM},
        "session.start": SESSION,
        "session.list": {"sessions": []},
        "session.attach": attach,
    }
    return daemon


def attach(call):
    about = SESSION | {"pty": False, "stdin": True, "begin": 0, "end": 0}
    call.send({"stream": {"session": about, "at": 0, "writer": True}})
    call.frame(1, b"done\n")
    call.end(status=7)
    return "close"


def find(daemon, method):
    return [request["params"] for request in daemon.requests if request["method"] == method]


def test_detached_it_is_served_and_waited_for(banger, agents):
    status, out, err = banger("vm", "run", "--agent", "opencode", "-d", "--nat")
    assert (status, out) == (0, "web\n")
    assert agents.methods()[:5] == ["agent.show", "vm.create", "agent.prepare", "session.start", "agent.wait"]
    start = find(agents, "session.start")[0]
    assert start["argv"] == ["opencode", "serve", "--port", "4096"]
    assert start["env"] == ["SOME_API_KEY=sk-0123"]
    assert start["name"] == "opencode"
    assert "pty" not in start
    assert find(agents, "agent.wait")[0] == {"vm": "0123", "agent": "opencode", "session": "s-1"}
    assert "banger vm publish web 4096:4096" in err
    assert "sk-0123" not in err


@pytest.mark.parametrize(
    ("vm", "way"),
    [
        ({"spec": {"publish": [{"host_address": "127.0.0.1", "host_port": 8080, "guest_port": 4096}]}},
         "http://127.0.0.1:8080"),
        ({"runtime": {"network_mode": "bridge"}}, "http://web.vm:4096"),
    ],
)  # fmt: skip
def test_the_way_to_it_is_told(banger, agents, vm, way):
    agents.answers["vm.show"] = {"vm": VM | vm}
    assert way in banger("vm", "run", "--agent", "opencode", "-d", "--nat")[2]


def test_no_request_but_the_sessions_start_has_a_value(banger, agents):
    banger("vm", "run", "--agent", "opencode", "-d")
    with_value = [request["method"] for request in agents.requests if "sk-0123" in str(request)]
    assert with_value == ["session.start"]


def test_without_a_network_it_says_so(banger, agents):
    assert "reaches no network without --nat" in banger("vm", "run", "--agent", "opencode", "-d")[2]
    assert "--nat" not in banger("vm", "run", "--agent", "opencode", "-d", "--nat")[2]


def test_without_a_terminal_it_reads_stdin_and_its_status_is_ours(start_banger, agents):
    process = start_banger("vm", "run", "--agent", "opencode", "--nat", "--", "run", "fix it")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 7
    assert out == b"done\n"
    start = find(agents, "session.start")[0]
    assert start["argv"] == ["opencode", "run", "fix it"]
    assert start["stdin"]
    assert "ephemeral" not in find(agents, "vm.create")[0]


@pytest.mark.parametrize(("left", "deleted"), [([], True), ([SESSION], False)])
def test_with_rm_the_vm_goes_when_no_session_is_left(start_banger, agents, left, deleted):
    agents.answers["session.list"] = {"sessions": left}
    process = start_banger("vm", "run", "--rm", "--agent", "opencode", "--nat")
    _, err = process.communicate(timeout=30)
    assert ("vm.delete" in agents.methods()) == deleted
    assert (b"is still running" in err) != deleted


@pytest.mark.parametrize("rm", [True, False])
def test_a_failure_before_it_starts_leaves_the_vm_only_without_rm(start_banger, agents, rm):
    agents.answers["agent.prepare"] = {
        "error": {"code": "unavailable", "message": "opencode cannot be downloaded"}
    }
    process = start_banger("vm", "run", *["--rm"] * rm, "--agent", "opencode", "--nat")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 69
    assert b"opencode cannot be downloaded" in err
    assert ("vm.delete" in agents.methods()) == rm
    assert (b"banger vm delete --force web" in err) != rm


def test_an_unknown_agent_makes_no_vm(banger, agents):
    agents.answers["agent.show"] = {"error": {"code": "not_found", "message": "there is no agent 'x'"}}
    status, _, err = banger("vm", "run", "--agent", "x")
    assert status != 0
    assert "there is no agent 'x'" in err
    assert agents.methods() == ["agent.show"]


@pytest.mark.parametrize("words", [("-t",), ("-i",), ("--rm", "-d"), ("--env-file", "/nowhere")])
def test_contradictions_and_missing_files_make_no_vm(banger, agents, words):
    status, _, err = banger("vm", "run", "--agent", "opencode", *words)
    assert status == 64
    assert "hint: " in err
    assert "vm.create" not in agents.methods()


def test_its_own_environment_file_is_read_by_us(banger, agents, tmp_path):
    (tmp_path / "agent.env").write_text("TOKEN=abc\n")
    agents.answers["agent.show"] = OPENCODE | {"env_file": str(tmp_path / "agent.env")}
    banger("vm", "run", "--agent", "opencode", "-d", "-e", "TOKEN=flag")
    assert find(agents, "session.start")[0]["env"] == ["TOKEN=abc", "SOME_API_KEY=sk-0123", "TOKEN=flag"]


def test_what_does_not_serve_waits_on_a_terminal_of_its_own(banger, agents):
    agents.answers["agent.show"] = OPENCODE | {"serve": [], "port": None}
    _, out, err = banger("vm", "run", "--agent", "opencode", "-d", "--", "-p", "fix it")
    assert out == "web\n"
    assert "agent.wait" not in agents.methods()
    start = find(agents, "session.start")[0]
    assert start["argv"] == ["opencode", "-p", "fix it"]
    assert start["pty"]
    assert "banger session attach web/opencode" in err


def test_in_a_vm_that_is_there_it_runs_and_the_vm_stays(start_banger, agents):
    process = start_banger("agent", "run", "web", "opencode", "--", "run", "fix it")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 7
    assert out == b"done\n"
    assert b"reaches no network" in err
    assert agents.methods() == ["agent.show", "vm.show", "agent.prepare", "session.start", "session.attach"]
    assert find(agents, "session.start")[0]["argv"] == ["opencode", "run", "fix it"]


def test_a_name_that_another_session_has_is_no_reason_not_to_start(banger, agents):
    def start(call):
        taken = {"code": "already_exists", "message": "a session named opencode exists already"}
        call.send({"error": taken} if "name" in call.params else {"result": SESSION | {"name": "s-1"}})

    agents.answers["session.start"] = start
    status, out, _ = banger("agent", "run", "-d", "web", "opencode")
    assert (status, out) == (0, "web/s-1\n")


def test_a_connection_that_is_lost_for_good_deletes_no_vm_in_which_it_works(start_banger, agents):
    def fail(call):
        call.send({"error": {"code": "unavailable", "message": "the agent in web is not connected"}})

    agents.answers |= {"session.attach": fail, "session.list": {"sessions": [SESSION]}}
    process = start_banger("vm", "run", "--rm", "--agent", "opencode", "--nat")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 69
    assert b"is still running" in err
    assert "vm.delete" not in agents.methods()


def test_agents_are_listed(banger, agents):
    agents.answers["agent.list"] = {"agents": [OPENCODE | {"installed": True}]}
    status, out, _ = banger("agent", "list", "web")
    assert status == 0
    assert "opencode 1.0, fetched" in out
    assert "installed" in out
    assert find(agents, "agent.list") == [{"vm": "web"}]
