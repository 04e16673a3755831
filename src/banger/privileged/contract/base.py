"""What every request to the root helper is, and by what ways it travels. Standard library only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

VERSION = 2
MESSAGE_BYTES_MAX = 128 * 1024  # one datagram of a Unix socket
DESCRIPTORS_MAX = 64  # SCM_MAX_FD is 253

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Done:
    """There is nothing to tell."""


class Request(Generic[R]):
    """What every request below is: its name, the type of its result, how many descriptors may come along."""

    method: ClassVar[str]
    result: ClassVar[type]
    descriptors: ClassVar[range] = range(1)  # none

    def validate(self) -> None:
        """Raises Refusal."""


@dataclass(frozen=True)
class Reply(Generic[R]):
    """A result and the descriptors that came with it; they belong to the receiver."""

    result: R
    descriptors: tuple[int, ...] = ()


class Privileged(Protocol):
    """Root, by whatever way. Passes `tests/contracts/test_privileged.py`. A refusal arrives as a Problem."""

    @property
    def kind(self) -> str:
        """`helper`, `in-process` or `fake`, for people."""

    async def call(self, request: Request[R], descriptors: Sequence[int] = ()) -> Reply[R]:
        """Validates, then has it done. The descriptors stay the caller's. Raises Problem."""

    async def close(self) -> None: ...
