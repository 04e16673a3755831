"""Sessions in a real guest: a full-screen program through the daemon's death, many readers, more output than is kept."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest
from tests.support.banger import Banger, refused, wait_until

GIB = 1 << 30
KEYS = b"\x10\x11"


class Screen(pyte.Screen):
    """That of an xterm, whose private SGR chooses what keys send and no colours."""

    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        if not private:
            super().select_graphic_rendition(*attributes)


class Terminal:
    """A command line on a terminal, and what a person would see there."""

    def __init__(self, banger: Banger, *words: str, rows: int = 24, columns: int = 80) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen = Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.seen = b""
        self.process = banger.start(*words, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def wait(self, fits: Callable[[], bool], *, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not fits():
            assert time.monotonic() < deadline, "\n".join(self.screen.display) + f"\n{self.seen[-2000:]!r}"
            self._read(0.5)

    def _read(self, patience_s: float) -> bool:
        """Whether something came."""
        if not select.select([self.ours], [], [], patience_s)[0]:
            return False
        try:
            data = os.read(self.ours, 65536)
        except OSError:  # the other side is gone
            data = b""
        self.seen += data
        self._stream.feed(data)
        return bool(data)

    def settle(self) -> None:
        """Until the program has drawn all it wants to. Vim reads keys that come while it draws for a new size, and
        then waits for more before it looks at them."""
        while self._read(3):
            pass

    def wait_line(self, row: int, text: str) -> None:
        self.wait(lambda: self.screen.display[row].rstrip() == text)

    def leave(self) -> None:
        self.type(KEYS)
        self.wait(lambda: b"detached from" in self.seen)
        assert self.process.wait(10) == 0
        os.close(self.ours)


def wait_state(banger: Banger, session: str, state: str) -> dict:
    deadline = time.monotonic() + 120
    while (found := banger.json("session", "show", session))["state"] != state:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def peak_kib(status: str) -> int:
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


@pytest.fixture
def clean(banger: Banger, vm: str) -> Iterator[str]:
    yield vm
    for session in banger.json("session", "list")["sessions"]:
        banger.run("session", "remove", "--force", session["id"])


def test_an_editor_is_there_again_after_the_daemon_was_killed(banger, clean):
    banger.run("session", "start", clean, "-t", "--name", "edit", "--", "vi", "-u", "NONE", "/root/notes")
    first = Terminal(banger, "session", "attach", f"{clean}/edit")
    first.wait_line(22, "~")
    first.settle()
    first.type(b"ihello from before")
    first.wait_line(0, "hello from before")
    first.leave()
    banger.kill_daemon()

    second = Terminal(banger, "session", "attach", "edit", rows=30, columns=100)
    second.wait_line(0, "hello from before")
    second.wait_line(28, "~")  # drawn anew in the size of this terminal
    second.settle()
    second.type(b", and after")
    second.wait_line(0, "hello from before, and after")
    banger.kill_daemon()  # while somebody is attached
    second.wait(lambda: b"back at" in second.seen)
    second.settle()
    second.type(b" and after that")
    second.wait(lambda: "hello from before, and after and after that" in second.screen.display[0])
    second.type(b"\x1b:wq\r")
    second.wait(lambda: second.process.poll() is not None)
    assert second.process.returncode == 0
    assert banger.guest(clean, "cat", "/root/notes") == "hello from before, and after and after that\n"
    ended = wait_state(banger, "edit", "exited")
    assert ended["status"] == 0


FULL_SCREEN = """
draw() { printf '\\033[2J\\033[Hscreen of %s' "$(stty size)"; }
trap draw WINCH
printf '\\033[?1049h'; seq 1 300000; draw
while :; do sleep 0.1; done
"""


def test_a_screen_is_right_although_its_beginning_is_not_kept_any_more(banger, clean):
    """What had chosen the other screen is long gone from the log; who attaches is brought there all the same."""
    banger.run("session", "start", clean, "-t", "--name", "full", "--", "sh", "-c", FULL_SCREEN)
    deadline = time.monotonic() + 120
    while (seen := banger.json("session", "show", "full"))["end"] is None or seen["end"] < 2_200_000:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert seen["begin"] > 0
    screen = Terminal(banger, "session", "attach", "full", rows=20, columns=70)
    screen.wait_line(0, "screen of 20 70")
    assert b"\x1b[?1049h" in screen.seen
    assert all(not line.strip() for line in screen.screen.display[1:])
    screen.leave()
    assert screen.seen.index(b"\x1b[?1049l") < screen.seen.index(b"detached from")


def test_a_shell_shows_all_it_has_shown_and_two_look_on_at_once(banger, clean):
    banger.run("session", "start", clean, "-t", "-e", "PS1=$ ", "--name", "shell", "--", "sh")
    banger.run("session", "send", "--enter", "shell", "for i in $(seq 200); do echo line $i; done")
    watched = [Terminal(banger, "session", "attach", "--read-only", "shell") for _ in range(2)]
    for each in watched:
        each.wait(lambda each=each: b"line 200\r\n" in each.seen)
        lines = [int(number) for number in re.findall(rb"line (\d+)\r\n", each.seen)]
        assert lines == list(range(1, 201))
    # 0 where the guest is too busy to say
    wait_until(lambda: banger.json("session", "show", "shell")["readers"] == 2)
    banger.run("session", "send", "--enter", "shell", "echo $((40 + 2))")
    for each in watched:
        each.wait(lambda each=each: b"\r\n42\r\n" in each.seen)
        each.leave()
    writer = Terminal(banger, "session", "attach", "shell")
    writer.wait(lambda: b"\r\n42\r\n" in writer.seen)
    refused(banger, "session", "attach", "shell", status=75, words=f"{clean}/shell has a writer")
    writer.leave()
    tail = banger.run("session", "logs", "--tail", "3", "shell").stdout
    assert b"42" in tail
    assert b"line 1\r\n" not in tail


def test_a_gibibyte_costs_no_memory_and_who_is_slow_is_told_what_is_missing(banger, clean):
    banger.run(
        "session",
        "start",
        clean,
        "--name",
        "flood",
        "-i",
        "--",
        "sh",
        "-c",
        f"read go; head -c {GIB} /dev/zero",
    )
    pid = banger.json("daemon", "status")["pid"]
    before_kib = peak_kib(Path(f"/proc/{pid}/status").read_text())
    slow = banger.start("session", "logs", "-f", "flood", stdout=-1, stderr=-1)
    banger.run("session", "send", "--enter", "flood", "")
    received = len(os.read(slow.stdout.fileno(), 4096))
    shown = wait_state(banger, "flood", "exited")
    assert (shown["status"], shown["end"]) == (0, GIB)
    assert GIB - shown["begin"] <= 1 << 20
    out, err = slow.communicate(timeout=120)
    received += len(out)
    missing = [int(number) for number in re.findall(rb"banger: (\d+) bytes of output are not kept", err)]
    assert missing
    assert received + sum(missing) == GIB
    assert peak_kib(Path(f"/proc/{pid}/status").read_text()) - before_kib < 32 << 10
    agent = banger.guest(
        clean, "sh", "-c", "grep -h VmHWM $(grep -la banger /proc/[0-9]*/comm | sed s/comm/status/)"
    )
    assert max(peak_kib(line) for line in agent.splitlines()) < 32 << 10


def test_bad_input_is_one_line(banger, clean):
    banger.run("session", "start", clean, "-t", "--name", "tty", "--", "cat")
    binary = banger.run("session", "send", "tty", input=b"\x00\xff", check=False)
    assert binary.returncode == 64
    assert binary.stderr.startswith(b"banger: the input is not text, and ")
    refused(banger, "session", "attach", "tty", "--detach-keys", "no", status=64, words="'no' is not a key")
    refused(banger, "session", "attach", f"{clean}/nothing", status=66, words="there is no session")
    refused(
        banger, "session", "start", clean, "--", "no-such-thing", status=127, words="no-such-thing", hint=""
    )
    missing = ("session", "start", clean, "--require", "no-such-tool", "--", "true")
    refused(banger, *missing, status=66, words="no-such-tool")


def test_a_guest_that_ends_ends_its_sessions_and_one_that_is_killed_loses_them(banger, clean):
    banger.run("session", "start", clean, "--name", "server", "--", "sleep", "600")
    banger.run("session", "start", clean, "--name", "done", "--", "sh", "-c", "exit 4")
    wait_state(banger, "done", "exited")
    banger.run("vm", "restart", clean)
    assert wait_state(banger, "server", "stopped")["signal"] == signal.SIGTERM
    assert wait_state(banger, "done", "exited")["status"] == 4
    refused(banger, "session", "logs", "server", status=69, words=f"nothing is kept of {clean}/server")
    banger.run("session", "start", clean, "--name", "killed", "--", "sleep", "600")
    banger.run("vm", "kill", clean)
    assert wait_state(banger, "killed", "lost")["error"] == f"{clean} has ended"
    banger.run("vm", "start", clean)
    refused(banger, "session", "attach", "killed", status=69, words=f"{clean}/killed is lost")
