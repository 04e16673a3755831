"""Bytes for a session's input, without joining it: a text, or what we are piped."""

from __future__ import annotations

import codecs
from contextlib import closing

from banger.cli.attach import WATCHED, Attachment, exit_status
from banger.cli.signals import signal_pipe
from banger.cli.values import refuse
from banger.client.statuses import MAX_PAYLOAD_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from banger.client.blocking import CommandConnection


class TextInput:
    """Input that comes from no terminal, for a session that has one: it is text, or refused."""

    def __init__(self, name: str) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._name = name

    def check(self, data: bytes) -> None:
        """Nothing is the end, at which no character may be half there. Raises Failure."""
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise refuse(
                f"the input is not text, and {self._name} has a terminal",
                hint="banger session start -i, without -t, takes any bytes",
            )


def send_input(command: CommandConnection, text: str | None, *, enter: bool) -> int:
    """Returns when the guest has taken it. Text is typed as it is; what is piped in for a terminal is checked."""
    session = command.about["session"]
    key = (b"\r" if session["pty"] else b"\n") if enter else b""
    check = TextInput(f"{session['vm']}/{session['name']}") if session["pty"] and text is None else None
    with closing(command), signal_pipe(*WATCHED) as signals:
        sending = _Sending(command, signals, check=check, enter=key)
        if text is not None:
            sending.take_text(text.encode("utf-8", "surrogateescape"))
        return exit_status(sending.run())


class _Sending(Attachment):
    def __init__(
        self, command: CommandConnection, signals: int, *, check: TextInput | None, enter: bytes
    ) -> None:
        super().__init__(command, signals, stdin=True, pty=False)
        self._check = check
        self._enter = enter

    def take_text(self, text: bytes) -> None:
        for start in range(0, len(text), MAX_PAYLOAD_BYTES):
            self._command.send_stdin(text[start : start + MAX_PAYLOAD_BYTES])
        self.take_input(b"")

    def take_input(self, data: bytes) -> None:
        if self._check is not None:
            self._check.check(data)
        if data:
            self._command.send_stdin(data)
            return
        if self._enter:
            self._command.send_stdin(self._enter)
        self._command.send_stdin(b"")
        self._stdin_open = False

    def take_interrupt(self) -> None:
        raise KeyboardInterrupt
