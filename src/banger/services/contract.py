"""What the daemon hands to a service with a call: how to report, and a caller's stream. No transport here."""

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol


class Stdin(NamedTuple):
    """Bytes for the command; empty means the end of input."""

    data: bytes


class SendSignal(NamedTuple):
    number: int


class Resize(NamedTuple):
    rows: int
    columns: int


Input = Stdin | SendSignal | Resize


class CommandStream(Protocol):
    """The caller's end of a command that runs in a guest. A caller that leaves cancels the handler."""

    async def accept(self, pid: int) -> None:
        """The command has started; data may flow."""

    def inputs(self) -> AsyncIterator[Input]:
        """What the caller sends, read from its socket only as fast as it is taken here."""

    async def write(self, stream: int, data: bytes) -> None:
        """Output (1 stdout, 2 stderr); returns when the caller's socket has room again."""

    async def finish(self, *, status: int | None = None, signal: int | None = None) -> None:
        """The last word: how the command ended."""
