"""`--env-file` in docker's syntax, and that a value is never in what is said about a file."""

import os
import subprocess
import sys

import pytest

from banger.cli.env_files import read_env_file
from banger.client.wire import Failure

SECRET = "sk-0123456789"


def test_lines_are_as_docker_reads_them(tmp_path, monkeypatch):
    monkeypatch.setenv("OURS", "of the host")
    monkeypatch.delenv("NOBODYS", raising=False)
    file = tmp_path / "env"
    file.write_bytes(
        b"\xef\xbb\xbfPLAIN=1\n# a remark\n\n   # another\n  LED=in\nSPACED= a b \nQUOTED=\"q\" 'r' # kept\r\n"
        b"EMPTY=\nEQUALS=a=b=c\nOURS\nNOBODYS\nUMLAUT=\xc3\xa4\nLAST=end"
    )
    assert read_env_file(str(file)) == [
        "PLAIN=1", "LED=in", "SPACED= a b ", "QUOTED=\"q\" 'r' # kept", "EMPTY=", "EQUALS=a=b=c",
        "OURS=of the host", "UMLAUT=ä", "LAST=end",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"A=1\n={SECRET}\n", ":2 has no name"),
        (f"A B={SECRET}\n", ":1 has white space"),
        (f"export KEY={SECRET}\n", ":1 has white space"),
        (f"KEY ={SECRET}\n", ":1 has white space"),
        (f"KEY={SECRET}\0\n", ":1 has a NUL"),
        (b"\n\nKEY=" + SECRET.encode() + b"\xff\n", ":3 is not UTF-8"),
        ("K=" + "x" * 300_000, "larger than 256 KiB"),
    ],
)
def test_a_malformed_file_is_refused_by_its_line_without_its_value(tmp_path, content, words):
    file = tmp_path / "env"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Failure) as caught:
        read_env_file(str(file))
    assert words in caught.value.message
    assert SECRET not in str(caught.value.as_data())
    assert caught.value.code == "bad_request"
    assert caught.value.__cause__ is None


def test_a_file_that_comes_through_a_pipe_is_read_too(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, b"A=1\n")
    os.close(writing)
    assert read_env_file(f"/dev/fd/{reading}") == ["A=1"]
    os.close(reading)


@pytest.mark.parametrize(
    "words",
    [
        ("vm", "run", "--", "true"),
        ("vm", "exec", "web", "--", "true"),
        ("session", "start", "web", "--", "x"),
    ],
)
def test_a_missing_file_starts_nothing(banger, daemon, words):
    split = words.index("--")
    status, _, err = banger(*words[:split], "--env-file", "/nowhere/env", *words[split:])
    assert status == 64
    assert err.startswith("banger: the file '/nowhere/env' cannot be read")
    assert len(err.splitlines()) == 2
    assert daemon.methods() == []


@pytest.mark.parametrize(
    ("words", "method"),
    [
        (("vm", "exec", "web"), "vm.exec"),
        (("session", "start", "web"), "session.start"),
        (("vm", "run"), "vm.exec"),
    ],
)
def test_what_comes_later_wins_and_no_value_is_on_a_command_line(
    start_banger, daemon, tmp_path, words, method
):
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"FROM={name}\nONLY_{name.upper()}={SECRET}\n")
    seen = []

    def answer(call):
        seen.append(call.params["env"])
        for line in process_lines():
            assert SECRET.encode() not in line
        call.send({"error": {"code": "not_found", "message": "enough"}})

    daemon.answers["vm.create"] = {"vm": {"id": "1", "name": "web"}}
    daemon.answers[method] = answer
    files = ("--env-file", str(tmp_path / "one"), "--env-file", str(tmp_path / "two"))
    process = start_banger(*words, *files, "-e", "FROM=flag", "--", "true")
    process.communicate(timeout=30)
    assert seen == [["FROM=one", f"ONLY_ONE={SECRET}", "FROM=two", f"ONLY_TWO={SECRET}", "FROM=flag"]]


def process_lines():
    listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, check=True)
    assert os.fsencode(sys.executable) in listed.stdout
    return listed.stdout.splitlines()
