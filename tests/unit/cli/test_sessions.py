"""Sessions, seen from a process or a terminal of our own: replay, resumption, leaving, input."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time

import pytest

from banger.cli.detach_keys import DetachKeys, parse_detach_keys
from banger.cli.screen_modes import Replay, ScreenModes
from banger.client.wire import Failure

SESSION = {
    "id": "s-1234abcd",
    "name": "build",
    "vm": "web",
    "vm_id": "0123456789ab",
    "state": "running",
    "argv": ["make", "-j4", "all tests"],
    "created_at": "2025-11-21T06:09:12Z",
    "pid": 7,
}


def begin(call, *, at=0, end=0, begin=0, pty=False, writer=True):
    session = {"vm": "web", "name": "build", "pty": pty, "begin": begin, "end": end, "state": "running"}
    call.send({"stream": {"pid": 7, "session": session, "at": at, "writer": writer}})


def tell(call, **event):
    call.frame(5, json.dumps(event).encode())


def test_start_says_what_to_call_it_and_gives_a_terminal_its_kind(daemon, banger, monkeypatch):
    monkeypatch.setenv("TERM", "vt220")
    daemon.answers["session.start"] = SESSION | {"pty": True}
    words = ("session", "start", "web", "--name", "Build_1", "-t", "-e", "A=b", "--tag", "x=y", "--", "make")
    status, out, _ = banger(*words)
    assert (status, out) == (0, "web/build\n")
    params = daemon.requests[0]["params"]
    assert params.pop("rows") > 0
    assert params.pop("columns") > 0
    assert params == {
        "vm": "web",
        "name": "Build_1",
        "pty": True,
        "env": ["TERM=vt220", "A=b"],
        "tags": {"x": "y"},
        "argv": ["make"],
    }


def test_sessions_are_listed_for_people_and_for_programs(daemon, banger):
    ended = SESSION | {"name": "shell", "state": "stopped", "signal": 15, "pty": True}
    daemon.answers["session.list"] = {"sessions": [SESSION, ended]}
    status, out, _ = banger("vm", "session", "ls", "web")
    assert status == 0
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["web/build", "s-1234abcd", "running"],
        ["web/shell", "s-1234abcd", "stopped"],
    ]
    assert "make -j4 'all tests'" in out
    assert "stopped by signal 15" in out
    assert json.loads(banger("session", "list", "--json")[1])["sessions"][1]["signal"] == 15


def test_a_session_is_shown_without_what_its_guest_could_do_to_the_terminal(daemon, banger):
    shown = SESSION | {"error": "a\x1b[2Jb", "begin": 10, "end": 2058, "readers": 2}
    daemon.answers["session.show"] = lambda call: call.send({"result": shown})
    _, out, _ = banger("session", "show", "web/build")
    assert "\x1b" not in out
    assert "2.0 KiB kept, up to 2058, 2 reading" in out.replace("2 KiB", "2.0 KiB")


def test_attach_joins_both_streams_and_ends_as_the_session_does(daemon, start_banger):
    def talk(call):
        begin(call, writer=False)
        call.frame(1, b"out\x00")
        call.frame(2, b"err")
        call.end(status=42)
        return "close"

    daemon.answers["session.attach"] = talk
    process = start_banger("session", "attach", "--read-only", "web/build")
    assert process.communicate(timeout=10) == (b"out\x00", b"err")
    assert process.returncode == 42
    assert daemon.requests[0]["params"] == {"session": "web/build", "read_only": True}


@pytest.mark.parametrize("orderly", [False, True])
def test_a_daemon_that_goes_is_waited_for_and_the_session_goes_on_where_it_was(daemon, start_banger, orderly):
    def talk(call):
        if "since" not in call.params:
            begin(call)
            call.frame(1, b"one")
            tell(call, gap={"from": 3, "to": 100})
            call.frame(2, b"e")
            tell(call, at=200)
            call.frame(1, b"two")
            if orderly:
                call.end(error={"code": "cancelled", "message": "the daemon is shutting down"})
            return "close"
        begin(call, at=call.params["since"])
        call.frame(1, b"three")
        call.end(signal=9)
        return "close"

    daemon.answers["session.attach"] = talk
    process = start_banger("session", "attach", "build")
    out, err = process.communicate(timeout=20)
    assert out == b"onetwothree"
    assert process.returncode == 137
    assert [request["params"].get("since") for request in daemon.requests] == [None, 203]
    assert b"97 bytes of output are not kept any more" in err
    assert b"the connection to the daemon is lost; waiting to come back to web/build" in err
    assert b"back at web/build" in err


@pytest.mark.parametrize("taken", [False, True])
def test_who_comes_back_takes_nothing_from_who_has_taken_over(daemon, start_banger, taken):
    """Neither is the input stolen once more, nor is asking for it a reason not to come back."""

    def talk(call):
        if "since" not in call.params:
            begin(call)
            if taken:
                tell(call, writer=False)
            call.frame(1, b"one")
            return "close"
        begin(call, at=call.params["since"], writer=not taken)
        call.end(status=0)
        return "close"

    daemon.answers["session.attach"] = talk
    process = start_banger("session", "attach", "--steal", "build")
    assert process.communicate(timeout=20)[0] == b"one"
    first, second = (request["params"] for request in daemon.requests)
    assert first == {"session": "build", "steal": True}
    assert second == {"session": "build", "since": 3} | ({"read_only": True} if taken else {})


def test_a_session_that_was_lost_meanwhile_ends_the_waiting(daemon, start_banger):
    def talk(call):
        if "since" in call.params:
            error = {"code": "not_running", "message": "web/build is lost: web has ended", "hint": "look"}
            call.send({"error": error})
            return None
        begin(call)
        return "close"

    daemon.answers["session.attach"] = talk
    process = start_banger("session", "attach", "build")
    err = process.communicate(timeout=20)[1].decode()
    assert err.splitlines()[-2:] == ["banger: web/build is lost: web has ended (op-1)", "hint: look"]
    assert process.returncode == 69


def test_a_connection_that_never_holds_is_given_up(daemon, start_banger, monkeypatch):
    def talk(call):
        begin(call, at=call.params.get("since", 0))
        call.end(error={"code": "unavailable", "message": "the connection ended", "outcome": "unknown"})
        return "close"

    daemon.answers["session.attach"] = talk
    process = start_banger("session", "attach", "build")
    err = process.communicate(timeout=60)[1].decode()
    assert "the connection to web/build breaks again and again" in err
    assert process.returncode == 69
    assert len(daemon.requests) == 21


def test_followed_logs_come_back_too_without_the_tail(daemon, start_banger):
    def talk(call):
        begin(call, at=call.params.get("since", 0))
        call.frame(1, b"line\n")
        if "since" in call.params:
            call.end(status=0)
        return "close"

    daemon.answers["session.logs"] = talk
    process = start_banger("session", "logs", "-f", "--tail", "5", "--stdout", "build")
    assert process.communicate(timeout=20)[0] == b"line\nline\n"
    first, second = (request["params"] for request in daemon.requests)
    assert first == {"session": "build", "follow": True, "tail_lines": 5, "stream": "stdout"}
    assert second == {"session": "build", "follow": True, "stream": "stdout", "since": 5}


def test_ctrl_c_leaves_a_session_without_a_terminal(daemon, start_banger):
    def talk(call):
        begin(call)
        call.frame(1, b"ready\n")
        assert call.read_frame() is None
        return "close"

    daemon.answers["session.attach"] = talk
    process = start_banger(
        "session", "attach", "build", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert b"detached from web/build, which goes on" in process.communicate(timeout=10)[1]
    assert process.returncode == 0


def test_input_is_forwarded_and_its_end_is_not(daemon, start_banger):
    received = []

    def talk(call):
        begin(call)
        received.append(call.read_frame())
        time.sleep(0.2)
        call.end(status=0)
        return "close"

    daemon.answers["session.attach"] = talk
    process = start_banger("session", "attach", "build", stdin=subprocess.PIPE)
    assert process.communicate(b"\xff\x00data", timeout=10)[1] == b""
    assert received == [(0, b"\xff\x00data")]


@pytest.mark.parametrize("data", [b"a\x00b", b"\xff\xfe", b"caf\xc3"])
@pytest.mark.parametrize("word", ["attach", "send"])
def test_binary_is_not_typed_on_a_terminal(daemon, start_banger, word, data):
    received = []

    def talk(call):
        begin(call, pty=True)
        while (frame := call.read_frame()) is not None:
            received.append(frame)
        return "close"

    daemon.answers[f"session.{word}"] = talk
    process = start_banger("session", word, "build", stdin=subprocess.PIPE)
    err = process.communicate(data, timeout=10)[1]
    assert err.splitlines() == [
        b"banger: the input is not text, and web/build has a terminal",
        b"hint: banger session start -i, without -t, takes any bytes",
    ]
    assert process.returncode == 64
    assert b"".join(payload for kind, payload in received if kind == 0) in (b"", b"caf\xc3")


@pytest.mark.parametrize(("pty_", "key"), [(True, b"\r"), (False, b"\n")])
def test_text_is_sent_with_enter_and_ends(daemon, start_banger, pty_, key):
    received = []

    def talk(call):
        begin(call, pty=pty_)
        while True:
            kind, payload = call.read_frame()
            received.append(payload)
            if kind == 0 and not payload:
                break
        call.end(status=0)
        return "close"

    daemon.answers["session.send"] = talk
    process = start_banger("session", "send", "build", "make\x03", "--enter", "--eof")
    assert process.communicate(timeout=10) == (b"", b"")
    assert process.returncode == 0
    assert b"".join(received) == b"make\x03" + key
    assert daemon.requests[0]["params"] == {"session": "build", "eof": True}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("attach", "b", "--detach-keys", "ctrl-p,ctrl-"), "'ctrl-' is not a key"),
        (("attach", "b", "--detach-keys", "ü"), "'ü' is not a key"),
        (("attach", "b", "--read-only", "--steal"), "--read-only and --steal contradict"),
        (("start", "web", "--attach", "--json", "--", "x"), "--attach and --json contradict"),
        (("start", "web", "-t", "--attach", "--", "x"), "the input is no terminal"),
        (("start", "web", "--detach-keys", "a", "--", "x"), "--detach-keys is for who attaches"),
        (("start", "web"), "CMD is missing"),
        (("resize", "b", "many", "80"), "ROWS 'many' is not a number"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_happens(daemon, banger, words, said):
    status, _, err = banger("session", *words)
    assert status == 64
    assert said in err.splitlines()[0]
    assert err.splitlines()[1].startswith("hint: ")
    assert daemon.requests == []


@pytest.mark.parametrize(
    "words", [("session", "attach"), ("vm", "session", "stop", "web/a"), ("session", "rm")]
)
def test_sessions_are_completed(daemon, banger, words):
    daemon.answers["complete"] = {"words": ["web/build", "db/shell"]}
    assert banger("__complete", "--", *words, "w") == (0, "web/build\n", "")
    assert daemon.requests[0]["params"] == {"what": "session"}


class Terminal:
    """A terminal of which we have the other side."""

    def __init__(self, start_banger, *words, **environment):
        self.ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (33, 99))
        self.settings = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.process = start_banger(*words, stdin=theirs, stdout=theirs, stderr=theirs)
        self.seen = b""

    def read_until(self, text: bytes) -> None:
        deadline = time.monotonic() + 15
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.ours], [], [], 0.1)[0]:
                self.seen += os.read(self.ours, 65536)

    def type(self, data: bytes) -> None:
        os.write(self.ours, data)

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(start_banger):
    opened = []

    def open_terminal(*words):
        opened.append(Terminal(start_banger, *words))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


def test_the_keys_leave_and_the_terminal_is_given_back(daemon, terminal):
    received = []

    def talk(call):
        history = b"\x1b[?1049h\x1b[?25l\x1b[6nold\x1b[c"
        begin(call, pty=True, end=len(history))
        call.frame(1, history)
        call.frame(1, b"\x1b[6nnow")
        while (frame := call.read_frame()) is not None:
            received.append(frame)
        return "close"

    daemon.answers["session.attach"] = talk
    screen = terminal("session", "attach", "build")
    screen.read_until(b"now")
    assert b"attached to web/build; ctrl-p ctrl-q detaches" in screen.seen
    assert b"\x1b[?1049h\x1b[?25lold\x1b[6nnow" in screen.seen  # questions of the past are not asked again
    screen.type(b"a\x10b\x03\x10")
    screen.type(b"\x11")
    screen.read_until(b"detached from web/build, which goes on: banger session attach web/build\r\n")
    assert b"\x1b[?25h" in screen.seen
    assert re.search(rb"\x1b\[\?1049l.*detached from", screen.seen, re.DOTALL)
    assert screen.process.wait(10) == 0
    assert termios.tcgetattr(screen.theirs) == screen.settings
    assert daemon.gone.wait(5)
    assert b"".join(payload for kind, payload in received if kind == 0) == b"a\x10b\x03"
    assert {"rows": 33, "columns": 99}.items() <= daemon.requests[0]["params"].items()


def test_other_keys_can_be_chosen_and_waiting_can_be_left(daemon, terminal):
    def talk(call):
        if "since" in call.params:
            call.send({"error": {"code": "unavailable", "message": "the agent in web is not connected"}})
            return None
        begin(call, pty=True)
        return "close"

    daemon.answers["session.attach"] = talk
    screen = terminal("session", "attach", "build", "--detach-keys", "ctrl-a,d")
    screen.read_until(b"waiting to come back to web/build")
    screen.type(b"\x10\x11\x01d")
    assert screen.process.wait(10) == 0


def test_who_looks_on_types_nothing_and_leaves_with_ctrl_c(daemon, terminal):
    received = []

    def talk(call):
        begin(call, pty=True, writer=False)
        call.frame(1, b"ready")
        while (frame := call.read_frame()) is not None:
            received.append(frame)
        return "close"

    daemon.answers["session.attach"] = talk
    screen = terminal("session", "attach", "--read-only", "build")
    screen.read_until(b"ready")
    assert b"you only look on" in screen.seen
    screen.type(b"abc")
    screen.type(b"\x03")
    assert screen.process.wait(10) == 0
    assert received == []


def test_who_loses_the_input_is_told(daemon, terminal):
    def talk(call):
        begin(call, pty=True)
        tell(call, writer=False)
        assert call.read_frame() is None
        return "close"

    daemon.answers["session.attach"] = talk
    screen = terminal("session", "attach", "build")
    screen.read_until(b"somebody else has taken over the input of web/build")
    screen.type(b"x\x03")
    assert screen.process.wait(10) == 0


@pytest.mark.parametrize(
    ("text", "keys"), [("ctrl-p,ctrl-q", b"\x10\x11"), ("a,Ctrl-B", b"a\x02"), ("ctrl-],~", b"\x1d~")]
)
def test_keys_are_those_that_docker_knows(text, keys):
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["", ",", "ctrl-p,", "ab", "ctrl-1", "ctrl-pp", " "])
def test_no_keys_are_refused(text):
    with pytest.raises(Failure):
        parse_detach_keys(text)


@pytest.mark.parametrize(
    ("typed", "forwarded", "found"),
    [
        ([b"\x10", b"\x11"], b"", True),
        ([b"ab\x10\x11cd"], b"ab", True),
        ([b"\x10", b"\x10", b"\x11"], b"\x10", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"x\x10"], b"x", False),
    ],
)
def test_a_beginning_of_the_keys_is_kept_back(typed, forwarded, found):
    keys = DetachKeys(b"\x10\x11")
    assert b"".join(keys.feed(data) for data in typed) == forwarded
    assert keys.found is found


@pytest.mark.parametrize("cut", range(1, 24))
def test_modes_are_undone_wherever_the_output_was_cut(cut):
    output = b"\x1b[?1049;2004h\x1b[?25lx\x1b[?7h"
    modes = ScreenModes()
    modes.feed(output[:cut])
    modes.feed(output[cut:])
    undone = modes.render_undo()
    assert undone.index(b"\x1b[?2004l") < undone.index(b"\x1b[?1049l")
    assert b"\x1b[?25h" in undone
    assert b"\x1b[?7" not in undone


def test_nothing_is_undone_of_what_was_undone_already():
    modes = ScreenModes()
    modes.feed(b"\x1b[?1049h\x1b[?1049l")
    assert b"1049" not in modes.render_undo()


@pytest.mark.parametrize("cut", range(1, 40))
def test_questions_are_left_out_of_the_past_wherever_it_was_cut(cut):
    past = b"a\x1b[6nb\x1b[31mc\x1b[>0cd\x1b]11;?\x07e\x1b]0;title\x07f"
    replay = Replay(len(past))
    shown = replay.feed(0, past[:cut]) + replay.feed(cut, past[cut:])
    assert shown == b"ab\x1b[31mcde\x1b]0;title\x07f"
    assert replay.feed(len(past), b"\x1b[6n") == b"\x1b[6n"
