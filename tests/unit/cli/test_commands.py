"""Command lines against a scripted daemon, in this process."""

import io
import json
import re

import pytest
from fake_daemon import DETAILS

from banger.cli import catalog

VM = {
    "id": "0123456789ab",
    "name": "web",
    "state": "running",
    "image": "debian-bookworm",
    "vcpus": 1,
    "memory_mib": 1536,
    "address": "",
    "backend": "qemu",
    "created_at": "2025-11-21T06:09:12Z",
}


def test_list_is_a_table_on_stdout(daemon, banger):
    daemon.answers["vm.list"] = {"vms": [VM]}
    status, out, err = banger("ps", "-a")
    assert (status, err) == (0, "")
    assert out.splitlines()[0].split() == [
        "NAME",
        "ID",
        "STATE",
        "IMAGE",
        "VCPUS",
        "MEMORY",
        "ADDRESS",
        "AGE",
    ]
    assert out.splitlines()[1].startswith("web   0123456789ab  running  debian-bookworm  1      1.5 GiB  -")
    assert daemon.requests[0]["params"] == {"all": True}


def test_json_is_what_the_daemon_said(daemon, banger):
    daemon.answers["vm.list"] = {"vms": [VM]}
    status, out, _ = banger("vm", "list", "--json")
    assert (status, json.loads(out)) == (0, {"vms": [VM]})


def test_an_error_is_one_line_with_hint_and_operation(daemon, banger):
    error = {
        "code": "not_found",
        "message": "there is no VM 'x'",
        "hint": "banger vm list --all",
        "op": "op-9",
    }
    daemon.answers["vm.show"] = {"error": error}
    status, out, err = banger("vm", "show", "x")
    assert (status, out) == (66, "")
    assert err == "banger: there is no VM 'x' (op-9)\nhint: banger vm list --all\n"


def test_every_code_has_the_exit_status_of_the_daemon(daemon, banger):
    from banger.base.problem import CODES

    for code, info in CODES.items():
        daemon.answers["vm.show"] = {"error": {"code": code.value, "message": "no"}}
        assert banger("vm", "show", "x")[0] == info.exit_status


def test_the_detail_stands_indented_between_error_and_hint(daemon, banger):
    daemon.answers["image.build"] = {
        "error": {
            "code": "operation_failed",
            "message": "mmdebstrap fails",
            "detail": "E: one\nE: two",
            "hint": "look",
        }
    }
    assert banger("image", "build")[2] == "banger: mmdebstrap fails (op-1)\n  E: one\n  E: two\nhint: look\n"


def test_several_references_fail_alone_in_order_with_the_first_status(daemon, banger):
    def stop(call):
        if call.params["vm"] == "b":
            call.send({"error": {"code": "not_running", "message": "b is stopped"}})
        elif call.params["vm"] == "c":
            call.send({"error": {"code": "not_found", "message": "there is no VM 'c'"}})
        else:
            call.send({"result": DETAILS})

    daemon.answers["vm.stop"] = stop
    status, out, err = banger("vm", "stop", "--timeout", "5s", "a", "b", "c", "d")
    assert (status, out) == (69, "a\nd\n")
    assert err.splitlines() == ["banger: b is stopped (op-1)", "banger: there is no VM 'c' (op-1)"]
    assert [request["params"]["vm"] for request in daemon.requests] == ["a", "b", "c", "d"]
    assert daemon.requests[0]["params"]["timeout_s"] == 5.0
    status, out, _ = banger("vm", "stop", "--json", "a", "b")
    results = json.loads(out)["results"]
    assert [entry["reference"] for entry in results] == ["a", "b"]
    assert results[1]["error"]["code"] == "not_running"


def test_a_broken_connection_fails_one_reference_only(daemon, banger):
    daemon.answers["vm.delete"] = lambda call: (
        "close" if call.params["vm"] == "a" else call.send({"result": {}})
    )
    status, out, err = banger("vm", "delete", "a", "b")
    assert (status, out) == (69, "b\n")
    assert err == (
        "banger: the daemon closed the connection before it answered\nhint: banger operation list\n"
    )


def test_starting_a_vm_that_runs_is_no_failure(daemon, banger):
    conflict = {"code": "conflict", "message": "web is running already", "hint": "banger vm show web"}
    daemon.answers["vm.start"] = {"error": conflict}
    daemon.answers["vm.show"] = DETAILS
    assert banger("vm", "start", "web") == (0, "web\n", "")
    status, out, err = banger("vm", "start", "--json", "web")
    assert (status, err) == (0, "")
    assert json.loads(out)["results"] == [{"reference": "web", "result": DETAILS}]
    assert banger("vm", "start", "--ttl", "1h", "web")[0] == 75  # what it asks for would be left undone


@pytest.mark.parametrize("state", ["starting", "stopping", "error"])
def test_starting_a_vm_that_does_not_run_yet_is_a_conflict(daemon, banger, state):
    hint = "banger operation list --running"
    conflict = {"code": "conflict", "message": f"web is {state} already", "hint": hint}
    daemon.answers["vm.start"] = {"error": conflict}
    daemon.answers["vm.show"] = DETAILS | {"vm": DETAILS["vm"] | {"state": state}}
    status, out, err = banger("vm", "start", "web")
    assert (status, out) == (75, "")
    assert err == f"banger: web is {state} already (op-1)\nhint: {hint}\n"


def test_stages_are_plain_lines_on_stderr(daemon, banger):
    def create(call):
        call.stage("disks", 40.0)
        call.stage("boot", 1234.0)
        call.send({"result": DETAILS})

    daemon.answers["vm.create"] = create
    status, out, err = banger("vm", "create", "--no-start")
    assert (status, out) == (0, "web\n")
    assert err == "• disks … 40 ms\n• boot … 1.2 s\n"
    assert daemon.requests[0]["params"] == {"start": False}
    assert banger("vm", "create", "--quiet")[2] == ""


def test_show_says_where_each_size_came_from(daemon, banger):
    daemon.answers["vm.show"] = DETAILS
    out = banger("vm", "show", "web")[1]
    spec = next(line for line in out.splitlines() if line.startswith("spec:"))
    assert spec.split(maxsplit=1)[1] == (
        "2 vCPUs (host), 2 GiB memory (flag), 8 GiB work disk (floor), 8 GiB root disk"
    )
    assert "qemu, tcg (no /dev/kvm)" in out


def test_the_archive_of_an_image_is_named_absolutely(daemon, banger, tmp_path, monkeypatch):
    (tmp_path / "root.tar").touch()
    monkeypatch.chdir(tmp_path)
    daemon.answers["image.build"] = {"name": "alpine"}
    assert banger("image", "build", "alpine", "--from-tar", "root.tar")[:2] == (0, "alpine\n")
    assert daemon.requests[0]["params"] == {"image": "alpine", "from_tar": str(tmp_path / "root.tar")}
    status, _, err = banger("image", "build", "alpine", "--from-tar", "none.tar")
    assert (status, len(daemon.requests)) == (66, 1)
    assert f"there is no file {tmp_path}/none.tar" in err


@pytest.mark.parametrize(
    "words",
    [
        ["--rm", "-d"],
        ["-d", "--", "ls"],
        ["-d", "-e", "A=1"],
        ["-d", "-it"],
        ["ls"],
    ],
)
def test_contradictory_flags_are_refused_before_anything_happens(daemon, banger, words):
    status, out, err = banger("vm", "run", *words)
    assert (status, out) == (64, "")
    assert "hint: " in err
    assert daemon.requests == []


def test_prune_tells_what_went(daemon, banger):
    daemon.answers["vm.prune"] = {"vms": ["a", "b"], "freed_bytes": 1 << 30, "dry_run": True}
    assert banger("vm", "prune", "--dry-run") == (0, "a\nb\n", "1 GiB would be freed\n")


def test_prune_without_a_terminal_wants_yes(daemon, banger, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    daemon.answers["vm.prune"] = {"vms": ["a"], "freed_bytes": 1 << 30, "dry_run": False}
    status, out, err = banger("vm", "prune")
    assert (status, out, daemon.requests) == (64, "", [])
    assert err == ("banger: there is no terminal to ask on\nhint: banger vm prune --yes, or --dry-run\n")
    assert banger("vm", "prune", "--yes") == (0, "a\n", "1 GiB freed\n")


@pytest.mark.parametrize("flag", ["--yes", "--dry-run"])
def test_prune_says_when_there_was_nothing_to_do(daemon, banger, flag):
    daemon.answers["vm.prune"] = {"vms": [], "freed_bytes": 0, "dry_run": flag == "--dry-run"}
    assert banger("vm", "prune", flag) == (0, "", "no VM to delete\n")


def test_status_and_stop_never_start_a_daemon(banger, runtime):
    status, out, _ = banger("daemon", "status")
    assert (status, out[:23]) == (69, "the daemon does not run")
    assert json.loads(banger("daemon", "status", "--json")[1])["pid"] is None
    assert banger("daemon", "stop")[0] == 0
    assert banger("version")[0] == 0
    assert list(runtime.iterdir()) == []


RECONCILED = {
    "adopted": ["web runs on, pid 7"],
    "stopped": [],
    "removed": [],
    "swept": ["tap bng-1"],
    "left": [],
}


def test_reconcile_shows_what_was_done_line_by_line(daemon, banger):
    daemon.answers["daemon.reconcile"] = RECONCILED
    status, out, _ = banger("daemon", "reconcile")
    assert status == 0
    assert out.splitlines()[1:] == [
        "taken over           web runs on, pid 7",
        "swept from the host  tap bng-1",
    ]
    status, out, _ = banger("daemon", "reconcile", "--json")
    assert json.loads(out) == RECONCILED


def test_reconcile_says_when_there_was_nothing_to_do(daemon, banger):
    daemon.answers["daemon.reconcile"] = {part: [] for part in RECONCILED}
    assert banger("daemon", "reconcile")[:2] == (0, "everything is as the records say\n")


def test_reconcile_fails_where_something_is_left(daemon, banger):
    daemon.answers["daemon.reconcile"] = RECONCILED | {"left": ["snapshot banger-1: device is busy"]}
    status, out, _ = banger("daemon", "reconcile")
    assert (status, out.splitlines()[-1]) == (71, "NOT MENDED           snapshot banger-1: device is busy")


def test_doctor_fails_when_a_check_has_failed(daemon, banger):
    findings = [
        {"check": "kvm", "verdict": "warn", "text": "not usable", "fix": "load kvm_intel"},
        {"check": "qemu", "verdict": "pass", "text": "8.2"},
    ]
    daemon.answers["doctor.run"] = {"findings": findings}
    assert banger("doctor")[:2] == (
        0,
        "WARN  kvm   not usable\n            fix: load kvm_intel\nPASS  qemu  8.2\n"
        "\n2 checks: 1 PASS, 1 WARN, 0 FAIL\n",
    )
    told = json.loads(banger("doctor", "--json")[1])
    assert told == {"findings": findings, "summary": {"pass": 1, "warn": 1, "fail": 0}}
    findings[1]["verdict"] = "fail"
    assert banger("doctor")[0] == 69


def test_watch_exits_as_the_operation_did(daemon, banger):
    operation = {"id": "o1", "kind": "vm.create", "subject": "web", "started_at": "2025-11-21T06:09:12Z"}
    failed = operation | {"state": "failed", "error": {"code": "no_space", "message": "full"}}
    daemon.answers["operation.watch"] = lambda call: call.send({"result": failed})
    status, out, _ = banger("operation", "watch", "o1")
    assert status == 74
    assert "full" in out
    daemon.answers["operation.watch"] = operation | {"state": "cancelled"}
    assert banger("operation", "watch", "o1")[0] == 130
    error = {"code": "operation_failed", "message": "the daemon ended", "outcome": "unknown"}
    unknown = operation | {"state": "unknown", "error": error}
    daemon.answers["operation.watch"] = lambda call: call.send({"result": unknown})
    status, out, _ = banger("operation", "watch", "o1")
    assert status == 71
    assert "unknown" in out


OPERATION = {
    "id": "o1",
    "kind": "vm.create",
    "subject": "web",
    "state": "running",
    "started_at": "2025-11-21T06:09:12Z",
    "stages": [{"name": "prepare disks", "started_ms": 0, "duration_ms": 1200.0}],
    "stage": "boot",
}


def test_show_has_each_stage_with_its_time_and_how_the_outcome_is_known(daemon, banger):
    daemon.answers["operation.show"] = OPERATION | {"resolved": "the VM runs", "object_id": "0123456789ab"}
    out = banger("operation", "show", "o1")[1]
    assert "prepare disks  1.2 s\n" in out
    assert "boot           …\n" in out
    assert "the VM runs" in out
    assert "0123456789ab" in out


def test_operations_are_listed_as_asked(daemon, banger):
    daemon.answers["operation.list"] = {"operations": [OPERATION, OPERATION | {"cancelling": True}]}
    words = ("--running", "--kind", "vm.create", "--subject", "web", "-n", "5")
    status, out, _ = banger("operation", "list", *words)
    assert status == 0
    assert [line.split()[3] for line in out.splitlines()] == ["STATE", "running", "cancelling"]
    assert daemon.requests[0]["params"] == {
        "running": True,
        "of_kind": "vm.create",
        "subject": "web",
        "limit": 5,
    }
    status, _, err = banger("operation", "list", "--all", "--limit", "5")
    assert (status, len(daemon.requests)) == (64, 1)
    assert "contradict" in err


@pytest.mark.parametrize(("state", "expected"), [("cancelled", 0), ("succeeded", 75), ("failed", 71)])
def test_cancel_exits_with_zero_when_all_is_undone(daemon, banger, state, expected):
    daemon.answers["operation.cancel"] = OPERATION | {"cancelling": True}
    status, out, err = banger("operation", "cancel", "o1")
    assert status == 0
    assert "cancelling" in out
    assert err == "banger operation watch o1 follows its undoing\n"
    daemon.answers["operation.cancel"] = OPERATION | {"state": state}
    assert banger("operation", "cancel", "--wait", "o1")[0] == expected
    assert daemon.requests[1]["params"] == {"operation": "o1", "wait": True}


@pytest.mark.parametrize(
    "words", [("vm", "create"), ("vm", "stop", "web"), ("image", "build"), ("kernel", "pull")]
)
def test_detached_it_prints_the_id_and_returns(daemon, banger, words):
    daemon.answers[f"{words[0]}.{words[1]}"] = OPERATION
    status, out, err = banger(*words, "-d", "--op", "o1")
    assert (status, out, err) == (0, "o1\n", "")
    assert (daemon.requests[0]["detach"], daemon.requests[0]["op"]) == (True, "o1")
    status, out, _ = banger(*words, "--detach", "--json")
    told = json.loads(out)
    assert (told["results"][0]["operation"] if "results" in told else told)["id"] == "o1"


def test_the_operation_id_is_the_callers_and_names_one_operation(daemon, banger):
    daemon.answers["vm.stop"] = daemon.answers["vm.create"] = DETAILS
    for words in (("vm", "stop", "web"), ("vm", "create"), ("vm", "run", "-d")):
        assert banger(*words, "--op", "nightly-7")[0] == 0
    assert [request["op"] for request in daemon.requests] == ["nightly-7"] * 3
    status, _, err = banger("vm", "stop", "--op", "nightly-7", "a", "b")
    assert (status, len(daemon.requests)) == (64, 3)
    assert "one operation" in err
    assert banger("vm", "list", "--op", "x")[0] == 64


def test_ssh_is_told_key_host_key_and_quoted_words():
    from banger.cli.commands.run import render_ssh_argv

    target = {
        "host": "127.0.0.1",
        "port": 40022,
        "user": "root",
        "identity_file": "/k/id",
        "known_hosts_file": "/k/known hosts",
        "host_key_alias": "0123456789ab",
    }
    argv = render_ssh_argv(target, ["sh", "-c", "exit 42"], tty=False)
    assert argv[:7] == ["ssh", "-F", "/dev/null", "-i", "/k/id", "-p", "40022"]
    assert argv[-3:] == ["root@127.0.0.1", "--", "sh -c 'exit 42'"]
    for option in (
        'UserKnownHostsFile="/k/known hosts"',
        "HostKeyAlias=0123456789ab",
        "StrictHostKeyChecking=yes",
    ):
        assert argv[argv.index(option) - 1] == "-o"
    assert render_ssh_argv(target, [], tty=True)[-2:] == ["-t", "root@127.0.0.1"]


def test_help_names_the_flags_with_their_units(banger):
    status, out, _ = banger("vm", "run", "--help")
    assert status == 0
    assert "Usage: banger vm run [FLAGS] [PATH] [-- CMD...]" in out
    assert "-m, --memory SIZE" in out
    assert "--start" not in out
    assert banger("help", "nonsense")[0] == 64


@pytest.mark.parametrize("group", catalog.GROUPS)
def test_the_help_of_a_group_ends_with_what_comes_next(banger, group):
    status, out, _ = banger(group, "--help")
    last = out.splitlines()[-1]
    assert (status, last[:13]) == (0, "Next: banger ")
    for words in re.findall(r"banger ([a-z]+(?: [a-z]+)?)", last):
        assert words in catalog.COMMANDS


def test_deleting_a_vm_of_the_example_needs_no_second_thought(banger):
    out = banger("vm", "--help")[1]
    assert "banger vm delete --force web" in out


def test_generated_files_are_fresh():
    import subprocess
    import sys
    from pathlib import Path

    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, str(root / "tools/generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_doctor_starts_no_daemon_and_looks_by_itself(runtime, banger, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "banger").mkdir(parents=True)
    (tmp_path / "config" / "banger" / "config.toml").write_text('network = "user"\nnonsense = 1\n')
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    status, out, _ = banger("doctor", "--json")
    found = {each["check"]: each for each in json.loads(out)["findings"]}
    assert (status, found["configuration"]["verdict"], found["daemon"]["verdict"]) == (69, "fail", "pass")
    assert "config.toml:2: nonsense" in found["configuration"]["text"]
    assert list(runtime.iterdir()) == []
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("text", "told"), [("netwrk = 1\n", "config.toml:1: netwrk"), ("network = [\n", "config.toml: Invalid")]
)
def test_a_restart_with_a_bad_configuration_leaves_the_daemon_running(
    daemon, banger, monkeypatch, tmp_path, text, told
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "banger").mkdir(parents=True)
    (tmp_path / "config" / "banger" / "config.toml").write_text(text)
    status, out, err = banger("daemon", "restart")
    assert (status, out, daemon.methods()) == (64, "", [])
    assert told in err
    assert "; the daemon was left running with the configuration it had\n" in err
    assert err.endswith("hint: correct it, then banger daemon restart\n")


def test_a_daemon_of_the_systems_is_not_restarted_by_its_owner(banger, monkeypatch):
    monkeypatch.setattr(
        "banger.cli.commands.daemon.find_system_restart", lambda: "sudo banger system restart"
    )
    status, _, err = banger("daemon", "restart")
    assert status == 69
    assert "hint: sudo banger system restart" in err


PLANNED = {"tools": [], "enabled": True, "warnings": ["a"], "root": "/repo"}
WORKSPACE = {
    "vm_id": "1" * 12,
    "host_root": "/repo",
    "guest_path": "/root/repo",
    "branch": "main",
    "base_commit": "a" * 40,
}
PREPARED = {
    "workspace": WORKSPACE,
    "changed": True,
    "commits": 1,
    "files": 2,
    "sent_bytes": 2048,
    "took_ms": 1500,
}


def test_run_with_a_path_plans_before_it_creates_and_brings_before_it_runs(daemon, banger, tmp_path):
    daemon.answers |= {
        "workspace.plan": {"warnings": ["HEAD is detached"]},
        "tooling.plan": PLANNED,
        "vm.create": DETAILS,
        "workspace.prepare": PREPARED,
    }
    status, out, err = banger("vm", "run", "-d", str(tmp_path), "--branch", "mine", "--read-only")
    assert (status, out) == (0, "web\n")
    assert "banger: warning: HEAD is detached\n" in err
    assert [request["method"] for request in daemon.requests] == [
        "workspace.plan",
        "tooling.plan",
        "vm.create",
        "workspace.prepare",
    ]
    plan, prepare = daemon.requests[0]["params"], daemon.requests[3]["params"]
    assert plan == {"path": str(tmp_path), "branch": "mine", "measure": False}
    assert prepare == {"path": str(tmp_path), "branch": "mine", "vm": DETAILS["vm"]["id"], "read_only": True}


def test_run_with_a_path_that_is_refused_creates_nothing(daemon, banger, tmp_path):
    refusal = {"code": "bad_request", "message": "it is not in a git repository", "hint": "git init"}
    daemon.answers["workspace.plan"] = lambda call: call.send({"error": refusal})
    status, out, err = banger("vm", "run", str(tmp_path), "--", "make")
    assert (status, out) == (64, "")
    assert "not in a git repository" in err
    assert [request["method"] for request in daemon.requests] == ["workspace.plan"]


def test_flags_about_a_repository_want_one(daemon, banger):
    status, _, err = banger("vm", "run", "--full", "--", "ls")
    assert (status, daemon.requests) == (64, [])
    assert "--full is about a repository, and none is named" in err


def test_prepare_tells_where_the_workspace_is(daemon, banger, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    daemon.answers["workspace.prepare"] = PREPARED
    status, out, _ = banger("workspace", "prepare", "web", ".")
    assert (status, out) == (0, "/root/repo: main at aaaaaaaaaaaa, 2 files not committed (2 KiB in 1.5 s)\n")
    assert daemon.requests[0]["params"] == {"vm": "web", "path": f"{tmp_path}/."}
    daemon.answers["workspace.prepare"] = PREPARED | {"changed": False}
    assert banger("vm", "workspace", "prepare", "web", "-q")[1] == "/root/repo is up to date\n"


def test_exec_brings_a_repository_that_has_moved_when_it_is_told_to(daemon, banger):
    daemon.answers |= {
        "workspace.status": {"workspace": WORKSPACE, "host_moved": True, "host_commit": "b" * 40},
        "workspace.prepare": PREPARED,
        "vm.exec": lambda call: call.send({"error": {"code": "not_running", "message": "it stopped"}}),
    }
    banger("vm", "exec", "--auto-prepare", "web", "--", "make")
    assert [request["method"] for request in daemon.requests] == [
        "workspace.status",
        "workspace.prepare",
        "vm.exec",
    ]
    assert daemon.requests[1]["params"] == {"vm": "web"}
    del daemon.requests[:]
    daemon.answers["workspace.status"]["workspace"] = WORKSPACE | {"read_only": True}
    banger("vm", "exec", "--auto-prepare", "web", "--", "make")
    assert daemon.requests[1]["params"] == {"vm": "web", "read_only": True}
    del daemon.requests[:]
    banger("vm", "exec", "web", "--", "make")
    assert [request["method"] for request in daemon.requests] == ["vm.exec"]


def test_a_plan_shows_what_goes_and_what_stays(daemon, banger, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [
        {"path": "a\\nb", "change": "modified", "size_bytes": 2048, "mode": "100644"},
        {"path": "gone", "change": "deleted"},
        {"path": ".env", "change": "added", "size_bytes": 3, "untracked": True},
    ]
    daemon.answers["workspace.plan"] = {
        "host_root": "/repo",
        "subdirectory": "",
        "guest_path": "/root/repo",
        "mode": "shallow",
        "branch": "main",
        "detached": False,
        "commit": "a" * 40,
        "commits": 1,
        "objects": 12,
        "transfer_bytes": 4096,
        "files": files,
        "stays_home": [f"file{number}" for number in range(60)],
        "submodules": [],
        "origin": "",
        "identity": "",
        "warnings": ["look out \x1b[31m"],
    }
    status, out, err = banger("workspace", "plan")
    assert status == 0
    assert daemon.requests[0]["params"] == {"path": f"{tmp_path}/."}
    assert "aaaaaaaaaaaa and no history" in out
    assert "4 KiB in 12 objects" in out
    assert [
        line.split() for line in out.splitlines() if "a\\nb" in line or "gone" in line or ".env" in line
    ] == [
        ["modified", "2", "KiB", "a\\nb"],
        ["deleted", "gone"],
        ["untracked", "3", "B", ".env"],
    ]
    assert "and 10 more" in out
    assert "\x1b" not in err
    assert banger("workspace", "prepare", "web", "--dry-run")[0] == 0
    assert daemon.requests[1]["params"] == {"vm": "web"}


def test_status_shows_both_sides(daemon, banger):
    daemon.answers["workspace.status"] = {
        "vm": "web",
        "workspace": WORKSPACE | {"prepared_at": "2025-11-21T06:09:12Z", "read_only": True},
        "host_commit": "b" * 40,
        "host_moved": True,
        "guest_branch": "main",
        "guest_commit": "c" * 40,
        "guest_commits": 1,
        "guest_changes": ["a"],
        "reachable": True,
    }
    out = banger("workspace", "status", "web")[1]
    assert "moved on to bbbbbbbbbbbb" in out
    assert "main at cccccccccccc, 1 file changed, 1 new commit\n" in out
    assert "shallow, read-only" in out
