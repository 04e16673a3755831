"""Commands in a guest, seen from a process of our own: streams, signals, statuses."""

import hashlib
import os
import pty
import signal
import subprocess
import threading

import pytest
from fake_daemon import DETAILS

MEGABYTE = 1 << 20


def echo(call):
    """`cat` in the guest: what comes in goes out."""
    call.stream()
    while (frame := call.read_frame()) is not None:
        kind, payload = frame
        if kind == 0 and not payload:
            break
        if kind == 0:
            call.frame(1, payload)
    call.end(status=0)
    return "close"


def test_stdout_and_stderr_are_apart_and_the_status_is_the_guests(daemon, start_banger):
    def talk(call):
        call.stream()
        call.frame(1, b"out\x00\xff")
        call.frame(2, b"err\r\n")
        call.end(status=42)
        return "close"

    daemon.answers["vm.exec"] = talk
    process = start_banger("vm", "exec", "web", "--", "sh", "-c", "exit 42")
    assert process.communicate() == (b"out\x00\xff", b"err\r\n")
    assert process.returncode == 42
    assert daemon.requests[0]["params"] == {"vm": "web", "argv": ["sh", "-c", "exit 42"], "stdin": True}


def test_twenty_megabytes_pass_both_ways_unchanged(daemon, start_banger):
    daemon.answers["vm.exec"] = echo
    data = os.urandom(MEGABYTE) * 20
    process = start_banger("vm", "exec", "web", "cat", stdin=subprocess.PIPE)
    out, err = process.communicate(data)
    assert (process.returncode, err) == (0, b"")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_output_to_a_file_is_complete(daemon, start_banger, tmp_path):
    daemon.answers["vm.exec"] = echo
    (tmp_path / "in").write_bytes(os.urandom(3 * MEGABYTE + 17))
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        assert start_banger("vm", "exec", "web", "cat", stdin=source, stdout=target).wait(30) == 0
    assert (tmp_path / "in").read_bytes() == (tmp_path / "out").read_bytes()


def test_input_that_nobody_reads_does_not_hold_up_output(daemon, start_banger):
    def deaf(call):
        call.stream()
        for _ in range(64):
            call.frame(1, b"x" * 65536)
        call.end(status=0)
        return "close"

    daemon.answers["vm.exec"] = deaf
    with open("/dev/zero", "rb") as zeros:
        process = start_banger("vm", "exec", "web", "deaf", stdin=zeros)
        assert len(process.communicate(timeout=30)[0]) == 64 * 65536
    assert process.returncode == 0


def test_death_by_a_signal_is_128_and_its_number(daemon, start_banger):
    def die(call):
        call.connection.sendall(b'{"op": "o", "stream": {"pid": 1}}\n\x04\0\0\0\x0d{"signal": 9}')
        return "close"

    daemon.answers["vm.exec"] = die
    assert start_banger("vm", "exec", "web", "x").wait(10) == 137


@pytest.mark.parametrize("streamed", [True, False])
def test_a_command_that_is_not_there_is_127_with_the_reason(daemon, start_banger, streamed):
    def refuse(call):
        end = {"error": {"code": "not_found", "message": "there is no command 'nope'", "exit_status": 127}}
        if streamed:
            call.stream()
            call.end(**end)
        else:
            call.send(end)

    daemon.answers["vm.exec"] = refuse
    process = start_banger("vm", "exec", "web", "nope")
    assert b"there is no command 'nope'" in process.communicate()[1]
    assert process.returncode == 127


def interruptible(received):
    def serve(call):
        call.stream()
        call.frame(1, b"ready\n")
        while (frame := call.read_frame()) is not None:
            kind, payload = frame
            if kind == 3:
                received.append(payload)
                if b"9" in payload:
                    call.end(signal=9)
                    return "close"
                call.frame(1, b"again\n")
        return "close"

    return serve


@pytest.mark.parametrize("flags", ["-it", "-t"])
def test_a_terminal_for_an_input_that_is_none_is_refused(daemon, start_banger, flags):
    process = start_banger("vm", "exec", flags, "web", "--", "bash")
    assert process.communicate(timeout=10) == (
        b"",
        b"banger: the input is no terminal\nhint: leave out -t\n",
    )
    assert (process.returncode, daemon.requests) == (64, [])


def press_at_each_line(process):
    """Ctrl-C. Where this machine is slow two of them are more than a second apart, and one more is needed."""
    for _ in process.stdout:
        process.send_signal(signal.SIGINT)


def test_ctrl_c_reaches_the_command_and_twice_kills_it(daemon, start_banger):
    received = []
    daemon.answers["vm.exec"] = interruptible(received)
    process = start_banger("vm", "exec", "web", "sleep", "99")
    press_at_each_line(process)
    assert process.wait(10) == 137
    assert (received[0], received[-1]) == (b'{"signal":2}', b'{"signal":9}')


def test_the_third_ctrl_c_leaves(daemon, start_banger):
    def stubborn(call):
        call.stream()
        call.frame(1, b"ready\n")
        while (frame := call.read_frame()) is not None:
            call.frame(1, b"no\n") if frame[0] == 3 else None
        return "close"

    daemon.answers["vm.exec"] = stubborn
    process = start_banger("vm", "exec", "web", "sleep", "99")
    press_at_each_line(process)
    assert process.wait(10) == 130
    assert daemon.gone.wait(5)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("vm", "create"), "what was made is being removed (op-1)"),
        (("vm", "run", "--rm", "--", "true"), "what was made is being removed (op-1)"),
        (("image", "build"), "what was made is being removed (op-1)"),
        (("vm", "start", "web"), "web is being stopped again (op-1)"),
        (("vm", "stop", "--timeout", "5s", "web"), "web may still stop (op-1)"),
        (("vm", "restart", "web"), "web may still stop (op-1)"),
        (("vm", "kill", "web"), "web may still stop (op-1)"),
        (("vm", "delete", "-f", "web"), "web may still be deleted (op-1)"),
        (("operation", "watch", "op-1"), "the operation goes on (op-1)"),
    ],
)
def test_ctrl_c_during_an_operation_leaves_and_says_what_happens(daemon, start_banger, words, told):
    def work(call):
        call.stage("begin")
        call.reader.read(1)
        return "close"

    daemon.answers[".".join(words[:2]).replace("vm.run", "vm.create")] = work
    process = start_banger(*words)
    assert b"begin" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=10)[1].decode()
    assert said == f"\nbanger: interrupted; {told}\nhint: banger operation show op-1\n"
    assert process.returncode == 130
    assert daemon.gone.wait(5)


def test_ctrl_c_before_the_daemon_has_named_the_operation(daemon, start_banger):
    begun = threading.Event()

    def create(call):
        begun.set()
        call.reader.read(1)
        return "close"

    daemon.answers["vm.create"] = create
    process = start_banger("vm", "create")
    assert begun.wait(10)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=10)[1].decode()
    assert said == ("\nbanger: interrupted; what was made is being removed\nhint: banger operation list\n")
    assert process.returncode == 130


def test_a_reader_that_leaves_ends_the_command_quietly(daemon, start_banger):
    def endless(call):
        call.stream()
        while True:
            call.frame(1, b"y\n" * 1000)

    daemon.answers["vm.exec"] = endless
    process = start_banger("vm", "exec", "web", "yes")
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(10) == 141
    assert process.stderr.read() == b""
    assert daemon.gone.wait(5)


def test_a_daemon_that_dies_under_a_command_is_told(daemon, start_banger):
    def vanish(call):
        call.stream()
        return "close"

    daemon.answers["vm.exec"] = vanish
    process = start_banger("vm", "exec", "web", "x")
    assert b"the connection to the command is lost" in process.communicate()[1]
    assert process.returncode == 69


def test_run_with_rm_lets_the_daemon_delete_even_if_we_are_killed(daemon, start_banger):
    daemon.answers["vm.create"] = DETAILS
    daemon.answers["vm.exec"] = echo
    process = start_banger("vm", "run", "--rm", "--memory", "1G", "-e", "A=1", "--", "cat")
    assert process.wait(10) == 0
    create, execute = daemon.requests
    assert create["params"] == {"memory_mib": 1024, "ephemeral": True}
    assert execute["params"] == {
        "vm": "0123456789ab",
        "delete_after": True,
        "env": ["A=1"],
        "argv": ["cat"],
        "stdin": True,
    }


def test_run_with_rm_deletes_when_the_command_never_began(daemon, start_banger):
    daemon.answers["vm.create"] = DETAILS
    daemon.answers["vm.exec"] = {"error": {"code": "unavailable", "message": "the agent is silent"}}
    assert start_banger("vm", "run", "--rm", "--", "cat").wait(10) == 69
    assert daemon.methods() == ["vm.create", "vm.exec", "vm.delete"]
    assert daemon.requests[2]["params"] == {"vm": "0123456789ab", "force": True}


def test_run_detached_prints_the_name_and_runs_nothing(daemon, start_banger):
    daemon.answers["vm.create"] = DETAILS
    assert start_banger("vm", "run", "-d").communicate()[0] == b"web\n"
    assert daemon.methods() == ["vm.create"]


def test_a_closed_stdout_is_not_mistaken_for_the_socket(daemon, start_banger):
    daemon.answers["vm.list"] = {"vms": []}
    process = start_banger("vm", "list", preexec_fn=lambda: [os.close(fd) for fd in (0, 1)])
    assert process.wait(10) == 0
    assert daemon.methods() == ["vm.list"]


def test_a_shell_on_a_terminal_gets_keys_size_and_a_reminder(daemon, start_banger):
    keys = []

    def shell(call):
        call.stream()
        call.frame(1, b"$ ")
        while (frame := call.read_frame()) is not None:
            keys.append(frame)
            if frame[0] == 3:
                call.frame(1, b"resized")
            if frame == (0, b"\x03"):
                call.end(status=0)
                return "close"
        return "close"

    daemon.answers["vm.create"] = DETAILS
    daemon.answers["vm.exec"] = shell
    master, slave = pty.openpty()
    before = subprocess.run(["stty", "-a"], stdin=slave, capture_output=True, check=True).stdout
    process = start_banger("vm", "run", "-q", stdin=slave, stdout=slave)
    seen = b""
    while b"$ " not in seen:
        seen += os.read(master, 100)
    process.send_signal(signal.SIGWINCH)
    while b"resized" not in seen:
        seen += os.read(master, 100)
    os.write(master, b"\x03")
    assert process.wait(10) == 0
    after = subprocess.run(["stty", "-a"], stdin=slave, capture_output=True, check=True).stdout
    assert before == after
    assert b"web is still running" in process.stderr.read()
    params = daemon.requests[1]["params"]
    assert (params["pty"], params["rows"], params["columns"]) == (True, 24, 80)
    assert params["env"][0].startswith("TERM=")
    assert (3, b'{"rows":24,"columns":80}') in keys
    assert (0, b"\x03") in keys
    os.close(master)
    os.close(slave)
