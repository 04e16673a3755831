"""The real opencode in a real guest, as `vm run --agent` starts it; and where its secrets are not."""

import asyncio
import http.client
import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.support.banger import DATA, refused
from tests.support.tiers import skip_or_fail

from banger.base.problem import Problem
from banger.base.progress import Silent
from banger.pinned.catalog import get_pinned
from banger.pinned.obtain import Source, obtain_pinned

SECRET = "sk-test-5f2c9a7e1b"
PINNED = get_pinned("opencode")


@pytest.fixture(scope="module")
def opencode(banger):
    """On this host, as banger itself would fetch it: once for all runs."""
    try:
        asyncio.run(obtain_pinned(PINNED, DATA / "banger" / "programs", Silent(), source=Source.NPM))
    except Problem as problem:
        skip_or_fail(f"opencode cannot be had: {problem.brief}", tier="vm")


@pytest.fixture(scope="module")
def secrets(banger):
    file = banger.home / "agent.env"
    file.write_text(f"# for a test\nTEST_TOKEN={SECRET}\n")
    return str(file)


@pytest.fixture(scope="module")
def served(banger, opencode, secrets):
    """A VM that serves it, on a port of this host."""
    port = find_free_port()
    done = banger.run(
        "vm", "run", "--name", "coder", "--memory", "1G", "--agent", "opencode", "-d",
        "--publish", f"{port}:4096", "--env-file", secrets,
    )  # fmt: skip
    assert done.stdout == b"coder\n"
    assert f"http://127.0.0.1:{port}".encode() in done.stderr
    yield port
    banger.run("vm", "delete", "--force", "coder")


def find_free_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_the_program_is_the_pinned_one(banger, served):
    assert banger.guest("coder", "opencode", "--version").strip() == PINNED.version
    assert banger.guest("coder", "stat", "-c", "%s %a", PINNED.guest_path).split() == [
        str(PINNED.size_bytes),
        "755",
    ]
    listed = {each["name"]: each for each in banger.json("agent", "list", "coder")["agents"]}
    assert listed["opencode"]["installed"]
    assert listed["opencode"]["fetched"]


def test_it_answers_through_a_published_port(served):
    until = time.monotonic() + 400  # it listens before it has loaded itself, which takes long under emulation
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{served}/config", timeout=60) as answer:
                assert answer.status == 200
                assert "$schema" in json.load(answer)
                return
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError):
            assert time.monotonic() < until
            time.sleep(1)


def test_it_is_a_session_with_what_it_was_given(banger, served):
    session = banger.json("session", "show", "coder/opencode")
    assert session["state"] == "running"
    assert session["argv"][:2] == ["opencode", "serve"]
    assert session["tags"] == {"agent": "opencode"}
    environment = banger.guest("coder", "sh", "-c", f"tr '\\0' '\\n' < /proc/{session['pid']}/environ")
    assert f"TEST_TOKEN={SECRET}" in environment.splitlines()


def test_no_value_is_where_it_does_not_belong(banger, served, secrets):
    """Neither of what works nor of what fails."""
    assert banger.run("vm", "exec", "--env-file", secrets, "coder", "--", "printenv", "TEST_TOKEN").stdout
    banger.run("session", "start", "--env-file", secrets, "coder", "--", "sleep", "1")
    for words in (
        ("vm", "exec", "--env-file", secrets, "coder", "--", "no-such-command"),
        ("vm", "exec", "--env-file", secrets, "nosuch", "--", "true"),
        ("session", "start", "--env-file", secrets, "coder", "--", "no-such-command"),
        ("session", "start", "--env-file", secrets, "--name", "b a d", "coder", "--", "true"),
    ):
        done = banger.run(*words, check=False)
        assert done.returncode != 0
        assert SECRET.encode() not in done.stdout + done.stderr
    places = [*(banger.state / "banger").glob("banger.db*"), banger.log, *banger.state.rglob("*.log")]
    assert len(places) > 2
    for place in places:
        assert SECRET.encode() not in place.read_bytes(), place
    for operation in banger.json("operation", "list")["operations"]:
        assert SECRET not in json.dumps(banger.json("operation", "show", operation["id"]))
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert SECRET.encode() not in line.read_bytes(), line
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_its_session_ends_and_is_started_again_without_another_copy(banger, served):
    banger.run("session", "stop", "coder/opencode")
    assert banger.json("session", "show", "coder/opencode")["state"] == "stopped"
    done = banger.run("agent", "run", "-d", "coder", "opencode")
    assert done.stdout.startswith(b"coder/s-")
    assert b"copy opencode" not in done.stderr
    assert f"http://127.0.0.1:{served}".encode() in done.stderr


def test_an_agent_of_ones_own_is_installed_and_works_in_the_repository(banger, served, tmp_path):
    """Configured, in a VM of its own that goes when it ends."""
    repository = tmp_path / "project"
    repository.mkdir()
    (repository / "file").write_text("of the host\n")
    for words in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "one"),
    ):
        subprocess.run(["git", *words], cwd=repository, check=True)
    (banger.home / "own.env").write_text(f"OWN={SECRET}\n")
    script = "#!/bin/sh\\nread line; pwd; cat file; echo $line $#; printenv OWN | wc -c; exit 7\\n"
    banger.configure(f'''
[agents.helper]
command = ["helper"]
install = ["sh", "-ec", "printf '{script}' > /usr/local/bin/helper; chmod 755 /usr/local/bin/helper"]
env_file = "{banger.home}/own.env"
''')
    banger.run("daemon", "restart")
    done = banger.run(
        "vm", "run", str(repository), "--rm", "--memory", "256M", "--agent", "helper", "--", "one", "two",
        input=b"hello\n", check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    lines = done.stdout.decode().split("\n")
    assert lines[:4] == ["/root/project", "of the host", "hello 2", str(len(SECRET) + 1)]
    assert "install helper" in done.stderr.decode()
    assert [vm["name"] for vm in banger.json("vm", "list", "--all")["vms"]] == ["coder"]


def test_an_agent_that_cannot_be_makes_no_vm(banger, served, secrets):
    refused(
        banger, "vm", "run", "--agent", "nope", status=66, words="there is no agent 'nope'", hint="opencode"
    )
    refused(
        banger,
        "vm",
        "run",
        "--agent",
        "opencode",
        "--env-file",
        "/nowhere",
        status=64,
        words="cannot be read",
    )
    (banger.home / "bad.env").write_text(f"BAD NAME={SECRET}\n")
    text = refused(
        banger, "vm", "run", "--agent", "opencode", "--env-file", str(banger.home / "bad.env"),
        status=64, words="bad.env:1 has white space",
    )  # fmt: skip
    assert SECRET not in text
    assert [vm["name"] for vm in banger.json("vm", "list", "--all")["vms"]] == ["coder"]
