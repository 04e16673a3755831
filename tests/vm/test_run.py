"""`vm run`, as a user types it."""

import os
import pty
import select
import signal
import subprocess
import time

from tests.support.banger import wait_until


def test_run_prints_the_guests_kernel_and_leaves_nothing(banger):
    done = banger.run("vm", "run", "--rm", "--", "uname", "-a")
    assert b"Linux" in done.stdout
    assert b"GNU/Linux" in done.stdout
    assert b"boot guest" in done.stderr
    assert banger.leftovers() == []


def test_the_exit_status_is_the_commands(banger):
    done = banger.run("vm", "run", "--rm", "--", "sh", "-c", "echo out; echo err >&2; exit 42", check=False)
    assert done.returncode == 42
    assert done.stdout == b"out\n"
    assert b"err\n" in done.stderr
    assert banger.leftovers() == []


def test_a_detached_vm_is_left_running_and_its_name_printed(banger):
    name = banger.run("vm", "run", "-d", "--memory", "256M").stdout.decode().strip()
    assert banger.json("vm", "show", name)["vm"]["state"] == "running"
    banger.run("vm", "delete", "--force", name)
    assert banger.leftovers() == []


def test_a_client_killed_in_the_middle_leaves_no_vm(banger):
    client = banger.start(
        "vm", "run", "--rm", "--memory", "256M", "--", "sh", "-c", "echo up; sleep 600", stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert client.stdout.readline() == b"up\n"
    client.kill()
    client.wait()
    wait_until(lambda: banger.leftovers() == [])


def test_a_client_killed_while_creating_undoes_the_creation(banger):
    client = banger.start(
        "vm",
        "run",
        "--rm",
        "--memory",
        "256M",
        "--",
        "true",
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    for line in client.stderr:
        if b"start vmm" in line:
            break
    client.kill()
    client.wait()
    wait_until(lambda: banger.leftovers() == [])


def test_an_interactive_run_is_a_terminal_and_reminds(banger):
    main, side = pty.openpty()
    client = banger.start(
        "vm", "run", "--name", "term", "--memory", "256M", stdin=side, stdout=side, stderr=side
    )
    os.close(side)
    output = read_until(main, b"# ")
    os.write(main, b"tty; stty size; exit\n")
    output += read_until(main, b"banger vm delete")
    assert client.wait(timeout=60) == 0
    assert b"/dev/pts/" in output
    assert banger.json("vm", "show", "term")["vm"]["state"] == "running"
    banger.run("vm", "delete", "--force", "term")


def test_ctrl_c_reaches_the_command(banger):
    banger.run("vm", "create", "--name", "ctrl", "--memory", "256M")
    client = banger.start(
        "vm", "exec", "ctrl", "--", "sh", "-c", "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 1; done",
        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert client.stdout.readline() == b"ready\n"
    client.send_signal(signal.SIGINT)
    assert client.stdout.readline() == b"caught\n"
    assert client.wait(timeout=30) == 7
    banger.run("vm", "delete", "--force", "ctrl")


def read_until(descriptor: int, text: bytes, seconds: float = 120) -> bytes:
    output = b""
    deadline = time.monotonic() + seconds
    while text not in output:
        ready, _, _ = select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))
        assert ready, output
        try:
            output += os.read(descriptor, 4096)
        except OSError:
            break
    return output
