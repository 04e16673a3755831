"""Command lines against a scripted daemon, in this process."""

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
    assert "closed the connection before it answered" in err


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


def test_status_and_stop_never_start_a_daemon(banger, runtime):
    status, out, _ = banger("daemon", "status")
    assert (status, out[:23]) == (69, "the daemon does not run")
    assert json.loads(banger("daemon", "status", "--json")[1])["pid"] is None
    assert banger("daemon", "stop")[0] == 0
    assert banger("version")[0] == 0
    assert list(runtime.iterdir()) == []


def test_doctor_fails_when_a_check_has_failed(daemon, banger):
    findings = [
        {"check": "kvm", "verdict": "warn", "text": "not usable", "fix": "load kvm_intel"},
        {"check": "qemu", "verdict": "pass", "text": "8.2"},
    ]
    daemon.answers["doctor.run"] = {"findings": findings}
    assert banger("doctor")[:2] == (
        0,
        "WARN  kvm   not usable\n            fix: load kvm_intel\nPASS  qemu  8.2\n",
    )
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
    assert "Usage: banger vm run [FLAGS] [-- CMD...]" in out
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
