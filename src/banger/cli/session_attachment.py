"""A session joined to our terminal or our pipes: replayed, resumed, left.

Owns the sequence number of what has been shown. When the connection breaks, because the daemon died or is started
anew, the session goes on without us: as soon as there is a daemon again, we go on at that number. A terminal is given
back as it was found, whatever the program has made of it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import ExitStack

from banger.cli.attach import WATCHED, Attachment, exit_status
from banger.cli.detach_keys import DetachKeys
from banger.cli.output import note
from banger.cli.screen_modes import Replay, ScreenModes
from banger.cli.session_sending import TextInput
from banger.cli.signals import signal_pipe
from banger.cli.terminal import find_size, is_terminal, raw_mode
from banger.client.blocking import find_connection, open_connection
from banger.client.statuses import STDOUT
from banger.client.wire import Failure, RemoteProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.client.blocking import CommandConnection, Connection

_PATIENCE_S = 60.0
_TRY_MS = 250
_LOSSES_MAX = 20
_START_AFTER_S = 1.0
_CTRL_C = b"\x03"
_FOR_EVER = 1 << 64  # who only reads logs answers no questions at all
_CLEAR = b"\x1b[2J\x1b[H"


class _Lost(Exception):
    """The daemon has gone. `crashed`: without a word, so that nobody but us may start it again."""

    def __init__(self, *, crashed: bool) -> None:
        super().__init__()
        self.crashed = crashed


class _Detached(Exception):
    """Somebody has left."""


class Joined:
    """What outlives one connection."""

    def __init__(self, method: str, params: dict[str, Any], *, keys: bytes, shown_keys: str) -> None:
        self.method = method
        self.params = params
        self.keys = DetachKeys(keys)
        self.shown_keys = shown_keys
        self.name = ""
        self.position = 0
        self.pty = False
        self.writes = False
        self.modes: ScreenModes | None = None
        self._losses: list[int] = []
        self.command: CommandConnection

    @property
    def is_raw(self) -> bool:
        """Whether each key is the program's, ours only if it is one of those that leave."""
        return self.pty and self.method == "session.attach" and is_terminal(0)

    def begin(self, command: CommandConnection) -> None:
        """A connection, the first or another."""
        self.command = command
        about, session = command.about, command.about["session"]
        self.name = f"{session['vm']}/{session['name']}"
        self.position = about["at"]
        self.pty = session["pty"]
        self.writes = about["writer"]

    def lose(self) -> None:
        """Raises Failure when the connection breaks again and again and nothing comes meanwhile."""
        self.leave()
        if self._losses and self._losses[-1] != self.position:
            self._losses.clear()
        self._losses.append(self.position)
        if len(self._losses) > _LOSSES_MAX:
            raise Failure(
                "unavailable",
                f"the connection to {self.name} breaks again and again",
                hint=f"banger session show {self.name}",
            )

    def leave(self) -> None:
        self.command.close()

    def say(self, text: str) -> None:
        """A line of ours among the session's, on a terminal that may be raw."""
        sys.stderr.write(f"\r\nbanger: {text}\r\n" if self.is_raw else f"banger: {text}\n")
        sys.stderr.flush()


def join(connection: Connection, joined: Joined) -> int:
    """To the end of the session, whose status is ours, or until somebody leaves it. Raises Failure."""
    with ExitStack() as undo:
        joined.begin(connection.stream(joined.method, joined.params))
        undo.callback(joined.leave)
        _greet(joined)
        signals = undo.enter_context(signal_pipe(*WATCHED))
        if joined.is_raw:
            undo.enter_context(raw_mode(0))
        if joined.pty and is_terminal(1):
            joined.modes = ScreenModes()
            undo.callback(_give_back, joined.modes)
            if joined.command.about["session"]["begin"] > joined.position:
                os.write(1, _CLEAR)
        try:
            while True:
                try:
                    return exit_status(_SessionAttachment(signals, joined).run())
                except _Lost as lost:
                    joined.lose()
                    _come_back(joined, signals, crashed=lost.crashed)
        except _Detached:
            undo.close()
            line_end = "\n" if joined.is_raw else ""
            note(
                f"{line_end}banger: detached from {joined.name}, which goes on: banger session attach {joined.name}"
            )
            return 0


def _greet(joined: Joined) -> None:
    is_over = joined.command.about["session"]["state"] not in ("running", "stopping")
    if joined.method != "session.attach" or not is_terminal(0) or is_over:
        return
    keys = joined.shown_keys.replace(",", " ") if joined.pty else "Ctrl-C"
    role = "" if joined.writes else "; you only look on"
    note(f"banger: attached to {joined.name}{role}; {keys} detaches")


def _give_back(modes: ScreenModes) -> None:
    try:
        os.write(1, modes.render_undo())
    except OSError:
        return  # the terminal has gone


class _SessionAttachment(Attachment):
    """One connection's part of it."""

    def __init__(self, signals: int, joined: Joined) -> None:
        command = joined.command
        attached = joined.method == "session.attach"
        reads = attached and (joined.writes or is_terminal(0))
        super().__init__(command, signals, stdin=reads, pty=attached and joined.is_raw)
        self._joined = joined
        past = command.about["session"]["end"] if attached else _FOR_EVER
        self._replay = Replay(past) if is_terminal(1) else None
        self._text = TextInput(joined.name) if joined.pty and not is_terminal(0) else None

    def run(self) -> dict[str, Any]:
        end = super().run()
        error = end.get("error") or {}
        if error.get("code") == "cancelled" or (
            error.get("code") == "unavailable" and error.get("outcome") == "unknown"
        ):
            raise _Lost(crashed=False)
        return end

    def take_loss(self) -> None:
        raise _Lost(crashed=True)

    def take_output(self, kind: int, data: memoryview | bytes) -> None:
        position = self._joined.position
        self._joined.position += len(data)
        if self._replay is not None and kind == STDOUT:
            data = self._replay.feed(position, bytes(data))
            if self._joined.modes is not None:
                self._joined.modes.feed(data)
        super().take_output(kind, data)

    def take_event(self, event: dict[str, Any]) -> None:
        joined = self._joined
        if "at" in event:
            joined.position = event["at"]
        elif "gap" in event:
            gap = event["gap"]
            joined.position = gap["to"]
            if not joined.is_raw:  # there the program has the screen, and is shown as it is now
                joined.say(f"{gap['to'] - gap['from']} bytes of output are not kept any more")
        elif event.get("writer") is False:
            joined.writes = False
            joined.say(f"somebody else has taken over the input of {joined.name}; you look on")

    def take_input(self, data: bytes) -> None:
        """The end of our input is not that of the session's, which somebody else may go on with."""
        joined = self._joined
        leaves = joined.is_raw and _leaves(joined, data)
        if joined.is_raw:
            data = joined.keys.feed(data)
        if self._text is not None:
            self._text.check(data)
        if data and joined.writes:
            self._command.send_stdin(data)
        if leaves or joined.keys.found:
            raise _Detached
        if not data and not joined.is_raw:
            self._stdin_open = False

    def take_interrupt(self) -> None:
        raise _Detached


def _leaves(joined: Joined, typed: bytes) -> bool:
    """Nothing was typed: the terminal has gone. Who only looks on may leave with Ctrl-C as well."""
    return not typed or (not joined.writes and _CTRL_C in typed)


def _come_back(joined: Joined, signals: int, *, crashed: bool) -> None:
    """The session once more, where we were and as we were: nothing is taken from who has taken over meanwhile. As soon
    as there is a daemon to ask; one that died is started again after a while, one that was stopped is not. Raises
    Failure when the session is lost or the daemon stays away."""
    joined.say(f"the connection to the daemon is lost; waiting to come back to {joined.name}")
    begun_s = time.monotonic()
    params = {name: value for name, value in joined.params.items() if name not in ("tail_lines", "steal")}
    if joined.method == "session.attach" and not joined.writes:
        params["read_only"] = True
    if joined.is_raw:
        params["rows"], params["columns"] = find_size()
    while True:
        _wait(joined, signals)
        waited_s = time.monotonic() - begun_s
        try:
            connection = open_connection() if crashed and waited_s > _START_AFTER_S else find_connection()
            if connection is not None:
                _resume(connection, joined, params)
                joined.say(f"back at {joined.name}")
                return
        except Failure as failure:
            if failure.code != "unavailable":
                raise
            if waited_s > _PATIENCE_S:
                raise
        if waited_s > _PATIENCE_S:
            raise Failure(
                "unavailable",
                "the daemon does not come back",
                hint=f"banger session attach {joined.name}",
            )


def _resume(connection: Connection, joined: Joined, params: dict[str, Any]) -> None:
    try:
        joined.begin(connection.stream(joined.method, params | {"since": joined.position}))
    except RemoteProblem:
        connection.close()
        raise


def _wait(joined: Joined, signals: int) -> None:
    """A moment, in which somebody may leave."""
    poll = select.poll()
    poll.register(signals, select.POLLIN)
    if joined.is_raw:
        poll.register(0, select.POLLIN)
    ready = dict(poll.poll(_TRY_MS))
    if ready.get(0):
        typed = os.read(0, 4096)
        joined.keys.feed(typed)
        if joined.keys.found or not typed or _CTRL_C in typed:
            raise _Detached
    for number in os.read(signals, 64) if signals in ready else b"":
        if number == signal.SIGINT:
            raise _Detached
        if number != signal.SIGWINCH:
            raise SystemExit(128 + number)
