"""What a program's output does to the terminal it is shown on, as far as somebody who leaves must undo it, and as far
as output of the past must not do it again.

Control sequences: ECMA-48 and XTerm's ctlseqs.
"""

from __future__ import annotations

import re

_MODES = re.compile(rb"\x1b\[\?([0-9;]+)([hl])")
_QUERIES = re.compile(
    rb"\x1b\[[?>=]?[0-9;]*[cn]"  # device attributes, device status
    rb"|\x1b\[>[0-9;]*q|\x1b\[\??[0-9;]*\$p|\x1b\[\?u"  # version, modes, keyboard
    rb"|\x1b\[(?:1[1345689]|2[01])(?:;[0-9]+)*t"  # reports of the window
    rb"|\x1b\][0-9;]+;\?(?:\x07|\x1b\\)"  # colours
    rb"|\x1bP[+$]q[^\x1b]*\x1b\\|\x05"  # capabilities, settings, answer-back
)
_SEQUENCE_BYTES = 64
_USUALLY_SET = {b"7", b"25"}  # line wrap, the cursor is shown
_UNDONE = {
    *_USUALLY_SET, b"1", b"5", b"9", b"47", b"66", b"1000", b"1002", b"1003", b"1004", b"1005", b"1006", b"1015",
    b"1047", b"1049", b"2004",
}  # fmt: skip
_PLAIN = b"\x1b[0m\x1b[?25h\x1b>"


class ScreenModes:
    """Which modes the output has left other than it found them."""

    def __init__(self) -> None:
        self._changed: dict[bytes, bool] = {}
        self._tail = b""

    def feed(self, data: bytes) -> None:
        text = self._tail + data
        if b"\x1b[?" in text:
            for match in _MODES.finditer(text):
                for mode in match[1].split(b";"):
                    self._note(mode, match[2] == b"h")
        start = text.rfind(b"\x1b", max(0, len(text) - _SEQUENCE_BYTES))
        self._tail = text[start:] if start >= 0 and not _MODES.match(text, start) else b""

    def _note(self, mode: bytes, on: bool) -> None:
        if mode in _UNDONE and on is not (mode in _USUALLY_SET):
            self._changed[mode] = on
        else:
            self._changed.pop(mode, None)

    def render_undo(self) -> bytes:
        """What gives the terminal back as it was, the other screen last."""
        modes = sorted(self._changed, key=lambda mode: mode in (b"47", b"1047", b"1049"))
        undone = b"".join(b"\x1b[?" + mode + (b"l" if self._changed[mode] else b"h") for mode in modes)
        self._changed.clear()
        return undone + _PLAIN


class Replay:
    """Output from before somebody looked, without the questions in it: their terminal's answers would be typed into
    the program."""

    def __init__(self, end: int) -> None:
        """Up to this sequence number."""
        self._end = end
        self._kept = b""

    def feed(self, position: int, data: bytes) -> bytes:
        """What may be shown of output that begins at a sequence number. A sequence that is not whole waits for the
        rest of it."""
        left = self._end - position
        if left <= 0 and not self._kept:
            return data
        past, now = data[: max(0, left)], data[max(0, left) :]
        text, self._kept = self._kept + past, b""
        start = text.rfind(b"\x1b", max(0, len(text) - _SEQUENCE_BYTES))
        if left > len(past) and start >= 0 and not _is_whole(text[start:]):
            text, self._kept = text[:start], text[start:]
        return _QUERIES.sub(b"", text) + now


def _is_whole(sequence: bytes) -> bool:
    """Whether a sequence that begins here has its end here, too."""
    body = sequence[2:]
    if sequence[1:2] == b"[":
        return any(0x40 <= byte <= 0x7E for byte in body)
    if sequence[1:2] in (b"]", b"P"):
        return b"\x07" in body
    return len(sequence) > 1
