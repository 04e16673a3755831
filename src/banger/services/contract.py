"""What the daemon and services hand to a service with a call: a caller's stream, a verdict. No transport here."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from banger.base.progress import Progress


class End(NamedTuple):
    """What is to happen with a VM that nobody needs any more, and the reason in words for people."""

    delete: bool
    reason: str


class Perform(Protocol):
    """Does what a service begins by itself as an operation, which is recorded like one that somebody asked for."""

    async def __call__(self, kind: str, subject: str, work: Callable[[Progress], Awaitable[Any]]) -> None:
        """Returns when it has ended, however that was. Raises Problem when it cannot begin."""


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

    async def accept(self, **about: object) -> None:
        """The work has begun; data may flow. `about` is what the caller is told of it first, such as a pid."""

    async def tell(self, event: dict[str, object]) -> None:
        """Something that happened between the bytes, in its place among them."""

    def inputs(self) -> AsyncIterator[Input]:
        """What the caller sends, read from its socket only as fast as it is taken here."""

    async def write(self, stream: int, data: bytes) -> None:
        """Output (1 stdout, 2 stderr); returns when the caller's socket has room again."""

    async def finish(self, *, status: int | None = None, signal: int | None = None) -> None:
        """The last word: how the command ended."""
