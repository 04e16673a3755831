"""`vm stats`, `top`, `vm ports` and `vm health` before a scripted daemon; the live view on a real pseudo-terminal."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios

import pytest

from banger.cli.render.usage import render_health, render_ports, render_usages, sort_by_cpu
from banger.cli.screen import clip

WEB = {
    "id": "0123456789ab",
    "name": "web",
    "state": "running",
    "vcpus": 2,
    "memory_mib": 2048,
    "cpu_percent": 12.34,
    "cpu_s": 75.0,
    "memory_bytes": 300 << 20,
    "disk_bytes": 3 << 30,
    "received_bytes": 1536,
    "sent_bytes": 0,
    "block_read_bytes": 1 << 20,
    "block_written_bytes": 2 << 20,
}
STOPPED = {"id": "b" * 12, "name": "db", "state": "stopped", "vcpus": 1, "memory_mib": 512}
BUSY = WEB | {"name": "busy", "cpu_percent": 180.0}


def answer(*vms):
    return {"vms": list(vms)}


def test_a_table_has_sizes_and_a_dash_for_what_is_not_known():
    assert render_usages([WEB, STOPPED]).splitlines() == [
        "NAME  CPU %  MEMORY / LIMIT   DISK   NET IN / OUT   BLOCK IN / OUT  CPU TIME",
        "web   12.3   300 MiB / 2 GiB  3 GiB  1.5 KiB / 0 B  1 MiB / 2 MiB   1m15s",
        "db    -      - / 512 MiB      -      -              -               -",
    ]


def test_fields_that_the_terminal_has_no_room_for_are_left_out_whole():
    whole = render_usages([WEB, STOPPED])
    assert render_usages([WEB, STOPPED], columns=76) == whole
    assert render_usages([WEB, STOPPED], columns=75).splitlines() == [
        "NAME  CPU %  MEMORY / LIMIT   DISK   NET IN / OUT   BLOCK IN / OUT",
        "web   12.3   300 MiB / 2 GiB  3 GiB  1.5 KiB / 0 B  1 MiB / 2 MiB",
        "db    -      - / 512 MiB      -      -              -",
    ]
    assert render_usages([WEB], columns=1) == "NAME\nweb\n"
    assert render_usages([], columns=10) == "NAME\n"


def test_the_busiest_come_first_and_the_unknown_last():
    idle = WEB | {"name": "idle", "cpu_percent": 0.0}
    assert [vm["name"] for vm in sort_by_cpu([STOPPED, idle, WEB, BUSY])] == ["busy", "web", "idle", "db"]


def test_stats_ask_for_the_named_and_print_json(daemon, banger):
    daemon.answers["vm.stats"] = answer(WEB)
    status, out, _ = banger("vm", "stats", "web", "db", "--json")
    assert (status, json.loads(out)) == (0, answer(WEB))
    assert daemon.requests[-1]["params"] == {"vms": ["web", "db"]}
    assert banger("vm", "stats")[1].splitlines()[1].startswith("web ")
    assert daemon.requests[-1]["params"] == {}


def test_watching_without_a_terminal_prints_one_answer_after_another(daemon, start_banger):
    daemon.answers["vm.stats"] = answer(WEB)
    process = start_banger("vm", "stats", "--watch", "--interval", "500ms", "--json")
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert lines == [answer(WEB)] * 2
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


def test_a_reader_that_leaves_ends_the_watching(daemon, start_banger):
    daemon.answers["vm.stats"] = answer(WEB)
    process = start_banger("vm", "stats", "--watch", "--interval", "500ms")
    assert process.stdout.readline().startswith(b"NAME")
    process.stdout.close()
    assert process.wait(10) == 141


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("vm", "stats", "--interval", "5s"), "--watch"),
        (("vm", "stats", "--watch", "--interval", "100ms"), "too short"),
        (("top", "--interval", "0s"), "too short"),
        (("top", "--interval", "soon"), "not a duration"),
    ],
)
def test_an_interval_that_says_nothing_is_refused(daemon, banger, words, message):
    status, out, err = banger(*words)
    assert (status, out) == (64, "")
    assert message in err
    assert "hint: " in err
    assert daemon.requests == []


def test_top_without_a_terminal_is_one_table_the_busiest_first(daemon, banger):
    daemon.answers["vm.stats"] = answer(WEB, BUSY)
    status, out, _ = banger("top")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "busy", "web"]


class Terminal:
    def __init__(self, start_banger, *words, rows=10, columns=100):
        self.main, self.side = pty.openpty()
        self.resize(rows, columns)
        self.before = self.settings()
        self.process = start_banger(*words, stdin=self.side, stdout=self.side, stderr=self.side)

    def resize(self, rows, columns):
        fcntl.ioctl(self.side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def settings(self):
        return subprocess.run(["stty", "-a"], stdin=self.side, capture_output=True, check=True).stdout

    def read_until(self, wanted):
        seen = b""
        while wanted not in seen:
            seen += os.read(self.main, 1000)
        return seen

    def type(self, keys):
        os.write(self.main, keys)

    def close(self):
        os.close(self.main)
        os.close(self.side)


@pytest.mark.parametrize(
    "words", [("top",), ("vm", "stats", "--watch", "--interval", "500ms"), ("vm", "create")]
)
def test_a_dumb_terminal_gets_no_escape_sequences(daemon, start_banger, monkeypatch, words):
    def create(call):
        call.stage("CPU TIME")
        call.send({"result": {"vm": {"name": "web"}}})

    monkeypatch.setenv("TERM", "dumb")
    daemon.answers["vm.stats"] = answer(WEB)
    daemon.answers["vm.create"] = create
    terminal = Terminal(start_banger, *words)
    seen = terminal.read_until(b"web")
    assert b"CPU TIME" in seen
    assert b"\x1b" not in seen
    terminal.process.send_signal(signal.SIGINT)
    terminal.process.wait(10)
    terminal.close()


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x03", b"\x1b"])
@pytest.mark.parametrize("words", [("top",), ("vm", "stats", "--watch")])
def test_the_live_view_gives_the_terminal_back(daemon, start_banger, words, key):
    daemon.answers["vm.stats"] = answer(WEB, BUSY)
    terminal = Terminal(start_banger, *words)
    shown = terminal.read_until(b"\x1b[J")
    assert shown.startswith(b"\x1b[?1049h\x1b[?25l\x1b[HNAME")
    terminal.type(key)
    terminal.read_until(b"\x1b[?25h\x1b[?1049l")
    assert terminal.process.wait(10) == 0
    assert terminal.settings() == terminal.before
    terminal.close()


def test_other_keys_do_not_leave_it(daemon, start_banger):
    daemon.answers["vm.stats"] = answer(WEB)
    terminal = Terminal(start_banger, "top", "--interval", "1h")  # it draws after each key
    for keys in (b"x", b"\x1b[A"):
        terminal.read_until(b"\x1b[J")
        terminal.type(keys)
    terminal.read_until(b"\x1b[J")
    assert terminal.process.poll() is None
    terminal.type(b"q")
    terminal.read_until(b"\x1b[?1049l")
    terminal.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_it_as_a_key_does(daemon, start_banger, number):
    daemon.answers["vm.stats"] = answer(WEB)
    terminal = Terminal(start_banger, "top")
    terminal.read_until(b"\x1b[J")
    terminal.process.send_signal(number)
    terminal.read_until(b"\x1b[?1049l")
    assert terminal.process.wait(10) == 0
    assert terminal.settings() == terminal.before
    terminal.close()


def test_a_changed_size_is_drawn_at_once_and_no_line_wraps(daemon, start_banger):
    daemon.answers["vm.stats"] = answer(*(WEB | {"name": f"vm{number:02}"} for number in range(30)))
    terminal = Terminal(start_banger, "top", "--interval", "1h", rows=10, columns=100)
    first = terminal.read_until(b"\x1b[J")
    assert first.count(b"\r\n") == 9
    terminal.resize(5, 20)
    terminal.process.send_signal(signal.SIGWINCH)
    again = terminal.read_until(b"\x1b[J")
    lines = re.sub(rb"\x1b\[\??[0-9]*[A-Za-z]", b"", again).split(b"\r\n")
    assert len(lines) == 5
    assert {len(line) for line in lines} <= set(range(21))
    assert daemon.methods().count("vm.stats") == 1
    terminal.type(b"q")
    terminal.read_until(b"\x1b[?1049l")
    terminal.close()


def test_a_daemon_that_ends_gives_the_terminal_back_and_the_reason(daemon, start_banger):
    def refuse(call):
        call.send({"error": {"code": "internal", "message": "a bug in the daemon"}})

    daemon.answers["vm.stats"] = answer(WEB)
    terminal = Terminal(start_banger, "top", "--interval", "500ms")
    terminal.read_until(b"\x1b[J")
    daemon.answers["vm.stats"] = refuse
    said = terminal.read_until(b"a bug in the daemon")
    assert said.index(b"\x1b[?1049l") < said.index(b"a bug in the daemon")
    assert terminal.process.wait(10) == 70
    assert terminal.settings() == terminal.before
    terminal.close()


def test_clipping():
    assert clip("abcdef\nab\nx\n", rows=2, columns=3) == ["abc", "ab"]


PORTS = [
    {"protocol": "tcp", "address": "0.0.0.0", "port": 22, "process": "sshd", "pid": 9, "service": "ssh",
     "reach": ["web.vm:22"]},
    {"protocol": "tcp", "address": "127.0.0.1", "port": 5432, "unreachable": "it listens on the guest's loopback only",
     "hint": "have it listen on 0.0.0.0 in web"},
    {"protocol": "tcp", "address": "::", "port": 8000, "process": "python3", "pid": 77, "service": "http",
     "reach": ["web.vm:8000", "127.0.0.1:8080"], "urls": ["http://web.vm:8000/", "http://127.0.0.1:8080/"]},
    {"protocol": "udp", "address": "0.0.0.0", "port": 53, "process": "dns", "pid": 5, "unreachable": "it is not published",
     "hint": "banger vm publish web 8053:53/udp"},
]  # fmt: skip


def test_ports_say_where_they_are_reached_or_why_not():
    assert render_ports(PORTS).splitlines() == [
        "PORT      ADDRESS    PROCESS       REACHED AT",
        "22/tcp    0.0.0.0    sshd (9)      web.vm:22 (ssh)",
        "5432/tcp  127.0.0.1  -             not reachable: it listens on the guest's loopback only",
        "8000/tcp  ::         python3 (77)  http://web.vm:8000/, http://127.0.0.1:8080/",
        "53/udp    0.0.0.0    dns (5)       not reachable: it is not published",
    ]


def test_commands_that_make_ports_reachable_are_hints(daemon, banger):
    daemon.answers["vm.ports"] = {"vm": "web", "ports": PORTS}
    status, out, err = banger("vm", "ports", "web")
    assert (status, out) == (0, render_ports(PORTS))
    assert err == "hint: banger vm publish web 8053:53/udp\n"
    assert json.loads(banger("vm", "ports", "--json", "web")[1])["ports"] == PORTS


HEALTHY = {
    "vm": "web",
    "healthy": True,
    "agent_ms": 3.2,
    "uptime_s": 187.0,
    "load1": 0.5,
    "memory_total_bytes": 2 << 30,
    "memory_available_bytes": 1 << 30,
    "file_systems": [{"path": "/", "size_bytes": 4 << 30, "used_bytes": 1 << 30, "available_bytes": 3 << 30}],
    "init_mode": "handover",
    "clock_offset_s": -2.5,
    "ssh": False,
    "problems": [],
    "warnings": ["the guest's clock is 2.5 s behind the host's"],
}


def test_health_is_told_line_by_line():
    assert render_health(HEALTHY).splitlines() == [
        "vm:       web",
        "state:    healthy",
        "warning:  the guest's clock is 2.5 s behind the host's",
        "agent:    answers in 3.2 ms",
        "uptime:   3m07s",
        "load:     0.50",
        "memory:   1 GiB of 2 GiB available",
        "disks:    / 1 GiB of 4 GiB used, 25 %",
        "init:     handover",
        "clock:    2.5 s behind the host's",
        "ssh:      does not listen",
    ]


def test_vms_are_completed(daemon, banger):
    daemon.answers["complete"] = {"words": ["web"]}
    for words in (("vm", "stats"), ("vm", "stats", "db"), ("top",), ("vm", "health"), ("vm", "ports")):
        assert banger("__complete", "--", *words, "w")[1] == "web\n"
        assert daemon.requests[-1]["params"] == {"what": "vm"}


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_the_exit_status_says_whether_it_is_healthy(daemon, banger, flags):
    daemon.answers["vm.health"] = HEALTHY
    assert banger("vm", "health", "web", *flags)[0] == 0
    silent = {"vm": "web", "healthy": False, "problems": ["the agent in web does not answer within 5 s"]}
    daemon.answers["vm.health"] = silent
    status, out, _ = banger("vm", "health", "web", *flags)
    assert status == 69
    assert "does not answer" in out
