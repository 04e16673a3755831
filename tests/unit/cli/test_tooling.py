"""`tooling plan`, `tooling install`, and what `vm run PATH` does about tools, before a scripted daemon."""

import json

import pytest
from fake_daemon import DETAILS

TOOL = {"name": "node", "version": "20", "file": "package.json", "line": 4, "written": ">=18 <21"}
WARNING = {"file": ".nvmrc", "line": 1, "text": "it is no UTF-8"}
PLANNED = {"root": "/r", "subdirectory": "", "enabled": True, "tools": [TOOL], "warnings": [WARNING]}
INSTALLED = {
    "vm": "web",
    "changed": True,
    "log": "/l",
    "tools": [{"name": "node", "asked": "20", "version": "20.1.0", "file": "package.json"}],
    "warnings": [WARNING],
}


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    root.mkdir()
    return root


@pytest.fixture
def answers(daemon):
    daemon.answers |= {
        "tooling.plan": PLANNED,
        "tooling.install": INSTALLED,
        "workspace.plan": {},
        "workspace.prepare": {},
        "vm.create": DETAILS,
    }
    return daemon.answers


def test_a_plan_names_the_place_each_version_is_from(banger, daemon, answers, repository):
    status, out, err = banger("tooling", "plan", str(repository))
    assert status == 0
    assert out.splitlines() == ["TOOL  VERSION  WRITTEN   IN", "node  20       >=18 <21  package.json:4"]
    assert ".nvmrc:1: it is no UTF-8" in err
    assert daemon.requests[-1]["params"] == {"path": str(repository)}
    assert json.loads(banger("tooling", "plan", str(repository), "--json")[1]) == PLANNED


def test_a_plan_is_of_this_directory_unless_another_is_named(
    banger, daemon, answers, repository, monkeypatch
):
    monkeypatch.chdir(repository)
    answers["tooling.plan"] = PLANNED | {"tools": [], "warnings": []}
    status, out, err = banger("tooling", "plan")
    assert (status, out) == (0, "")
    assert "names a tool" in err
    assert daemon.requests[-1]["params"] == {"path": str(repository)}


def test_an_installation_tells_what_was_installed(banger, daemon, answers):
    status, out, err = banger("tooling", "install", "web", "--bootstrap-timeout", "1h", "-q")
    assert status == 0
    assert out.splitlines() == ["TOOL  VERSION  ASKED  BY", "node  20.1.0   20     package.json"]
    assert ".nvmrc:1" in err
    assert daemon.requests[-1]["params"] == {"vm": "web", "timeout_s": 3600}


def test_without_nat_vm_run_refuses_before_it_makes_anything(banger, daemon, answers, repository):
    status, _, err = banger("vm", "run", str(repository), "-d", "-q")
    assert status == 64
    assert "node 20" in err
    assert "--nat" in err
    assert "--no-bootstrap" in err
    assert "vm.create" not in daemon.methods()


@pytest.mark.parametrize("flags", [("--nat",), ("--nat", "--bootstrap-timeout", "2m")])
def test_with_nat_vm_run_installs_after_the_repository_is_there(banger, daemon, answers, repository, flags):
    assert banger("vm", "run", str(repository), "-d", "-q", *flags)[0] == 0
    assert daemon.methods()[-3:] == ["vm.create", "workspace.prepare", "tooling.install"]
    asked = daemon.requests[-1]["params"]
    assert asked == {"vm": DETAILS["vm"]["id"]} | ({"timeout_s": 120} if len(flags) > 1 else {})


@pytest.mark.parametrize("how", ["flag", "config", "nothing wanted", "no repository"])
def test_nothing_is_installed_where_nothing_is_asked_for(banger, daemon, answers, repository, how):
    words = ["vm", "run", "-d", "-q"] + ([] if how == "no repository" else [str(repository)])
    if how == "flag":
        words.append("--no-bootstrap")
    if how == "config":
        answers["tooling.plan"] = PLANNED | {"enabled": False}
    if how == "nothing wanted":
        answers["tooling.plan"] = PLANNED | {"tools": []}
    assert banger(*words)[0] == 0
    assert "tooling.install" not in daemon.methods()


def test_a_failed_installation_leaves_the_vm_and_says_how_to_go_on(banger, daemon, answers, repository):
    error = {
        "code": "operation_failed",
        "message": "mise cannot install the tools of web",
        "outcome": "failed",
    }
    answers["tooling.install"] = {"error": error}
    status, _, err = banger("vm", "run", str(repository), "-d", "-q", "--nat")
    assert status == 71
    assert "web runs on: banger tooling install web" in err
    assert "vm.delete" not in daemon.methods()


@pytest.mark.parametrize(
    "words",
    [
        ("--no-bootstrap",),
        ("--bootstrap-timeout", "5m"),
        ("{repository}", "--no-bootstrap", "--bootstrap-timeout", "5m"),
        ("{repository}", "--nat", "--bootstrap-timeout", "0s"),
        ("{repository}", "--nat", "--bootstrap-timeout", "2d"),
    ],
)
def test_flags_that_could_only_fail_later_are_refused_first(banger, daemon, answers, repository, words):
    status, _, err = banger("vm", "run", "-d", *(word.format(repository=repository) for word in words))
    assert status == 64
    assert "hint: " in err
    assert daemon.methods() == []
