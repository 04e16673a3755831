"""What mise says while it installs: kept in a file on the host, told line by line, its end remembered for a failure.

Owns the file, which is the VM's. Bounded: a guest may talk for as long as it likes.
"""

import io
import logging
import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from banger.base.progress import Progress

_log = logging.getLogger(__name__)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LOG_MAX_BYTES = 4 * 1024 * 1024
_LINE_MAX_BYTES = 2000
_TAIL_LINES = 12
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[^\[]")


class InstallLog:
    """One installation's."""

    def __init__(self, file: io.FileIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self._room = _LOG_MAX_BYTES
        self._open = bytearray()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    @property
    def tail(self) -> str:
        """The last lines, for people."""
        return "\n".join(self._tail)

    def add(self, data: bytes) -> None:
        """Output as it comes, in pieces of any size."""
        self._keep(data[: self._room])
        self._open += data.replace(b"\r", b"\n")
        *lines, rest = bytes(self._open).split(b"\n")
        self._open = bytearray(rest[-_LINE_MAX_BYTES:])
        for line in lines:
            self._say(line)

    def end(self) -> None:
        """What has no end of line is a line, too."""
        self._say(bytes(self._open))
        self._open.clear()

    def _keep(self, data: bytes) -> None:
        """A host's disk that is full ends the log, not the installation."""
        try:
            self._file.write(data)
            self._room -= len(data)
        except OSError as error:
            _log.warning("a log is cut off", extra={"why": str(error)})
            self._room = 0

    def _say(self, line: bytes) -> None:
        text = _ESCAPES.sub("", line[:_LINE_MAX_BYTES].decode("utf-8", "replace"))
        text = "".join(letter for letter in text if letter.isprintable()).strip()
        if text:
            self._tail.append(text)
            self._progress.tell(text)


@contextmanager
def open_log(path: Path, progress: Progress) -> Iterator[InstallLog]:
    """Anew: of each VM the last installation's is kept."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, _NEW, 0o600), "wb", buffering=0) as file:
        yield InstallLog(file, progress)
