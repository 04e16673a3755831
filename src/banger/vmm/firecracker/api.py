"""Firecracker's API over its Unix socket: one connection that stays, one request at a time, each with a deadline.

Owns the connection. HTTP/1.1 as far as Firecracker speaks it: a status line, headers, a body of Content-Length bytes.

A connection is never closed while an answer is due: Firecracker 1.12 that writes to a closed one is hit by SIGPIPE and,
now and then, ended by its own system call filter on the way out of the handler, and the guest with it. So a request
that is cancelled or late goes on; the next one waits for its answer first, and throws it away.
"""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec

from banger.base.problem import Code, Outcome, Problem
from banger.vmm.firecracker.bodies import START, Call
from banger.vmm.firecracker.sockets import API_SOCKET, Sockets, Stream

DEADLINE_S = 10.0
START_S = 60.0  # it reads the whole kernel, which takes seconds where the host is emulated itself
_BODY_MAX_BYTES = 1024 * 1024
_LINE_MAX_BYTES = 16 * 1024
_HEADERS_MAX = 32
_FAULT_MAX = 600


Answer = tuple[int, dict[str, Any]]


class Api:
    """The client of one VMM. Connects when it is first needed."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self._one_at_a_time = asyncio.Lock()
        self._stream: Stream | None = None
        self._due: asyncio.Future[Answer] | None = None

    async def call(self, call: Call) -> None:
        """Raises Problem with Firecracker's own reason when it refuses."""
        await self._request(call.method, call.path, call.body, START_S if call == START else DEADLINE_S)

    async def get(self, path: str, *, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        return await self._request("GET", path, None, deadline_s)

    async def settle(self, at_most_s: float) -> None:
        """Waits for an answer that nobody wants any more: before `drop`, of a VMM that lives on."""
        if self._due is not None:
            await asyncio.wait((self._due,), timeout=at_most_s)

    def drop(self) -> None:
        """Lets go of the connection. The next request makes its own."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None

    async def _request(
        self, method: str, path: str, body: dict[str, Any] | None, deadline_s: float
    ) -> dict[str, Any]:
        what = f"{method} {path}"
        try:
            async with asyncio.timeout(deadline_s), self._one_at_a_time:
                await self._let_pass()
                status, answer = await self._exchange(what, _render_request(method, path, body))
        except TimeoutError as error:
            raise Problem(
                Code.UNAVAILABLE,
                f"Firecracker does not answer {what} within {deadline_s:.0f} s",
                outcome=Outcome.UNKNOWN,
            ) from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Problem(
                Code.NOT_RUNNING, f"Firecracker ended during {what}", outcome=Outcome.UNKNOWN
            ) from error
        except (ValueError, msgspec.DecodeError) as error:
            raise Problem(
                Code.OPERATION_FAILED, f"Firecracker's answer to {what} is malformed: {error}"
            ) from error
        if status >= 400:
            raise Problem(Code.OPERATION_FAILED, f"Firecracker refuses {what}: {_read_fault(status, answer)}")
        return answer

    async def _let_pass(self) -> None:
        """An answer that is still due is not the next request's."""
        if self._due is not None:
            with suppress(OSError, asyncio.IncompleteReadError, ValueError, msgspec.DecodeError):
                await self._take(self._due)

    async def _exchange(self, what: str, request: bytes) -> Answer:
        """The answer is read by itself, so that whoever is cancelled here leaves it due."""
        reader, writer = await self._connect(what)
        writer.write(request)  # at most some kilobytes: the socket takes them
        self._due = asyncio.ensure_future(_read_response(reader))
        self._due.add_done_callback(_look_at)
        return await self._take(self._due)

    async def _take(self, due: "asyncio.Future[Answer]") -> Answer:
        """What is read, or why it cannot be: then the connection is of no use any more."""
        await asyncio.wait((due,))
        self._due = None
        if due.cancelled():
            raise ConnectionResetError("it was let go of")
        if due.exception() is not None:
            self.drop()
        return due.result()

    async def _connect(self, what: str) -> Stream:
        if self._stream is not None and self._stream[0].at_eof():
            self.drop()
        if self._stream is None:
            try:
                self._stream = await self._sockets.connect(API_SOCKET, limit=_LINE_MAX_BYTES)
            except OSError as error:
                raise Problem(
                    Code.NOT_RUNNING,
                    f"Firecracker does not listen on {API_SOCKET} for {what}",
                    outcome=Outcome.NOT_STARTED,
                ) from error
        return self._stream


def _look_at(due: "asyncio.Future[Answer]") -> None:
    """An answer that nobody takes is no error to be told of."""
    if not due.cancelled():
        due.exception()


def _render_request(method: str, path: str, body: dict[str, Any] | None) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    content = msgspec.json.encode(body)
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def _read_response(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    """Status and body; an absent body is an empty one. Raises ValueError for what is no HTTP."""
    words = (await _read_line(reader)).split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
        raise ValueError("no status line")
    status, length = int(words[1]), 0
    for _ in range(_HEADERS_MAX):
        line = await _read_line(reader)
        if not line:
            break
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    else:
        raise ValueError("too many headers")
    if not 0 <= length <= _BODY_MAX_BYTES:
        raise ValueError(f"a body of {length} bytes")
    content = await reader.readexactly(length)
    return status, msgspec.json.decode(content, type=dict[str, Any]) if content else {}


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await reader.readuntil(b"\r\n"))[:-2]
    except asyncio.LimitOverrunError as error:
        raise ValueError("a line without end") from error


def _read_fault(status: int, answer: dict[str, Any]) -> str:
    """Firecracker's reason as one line for people."""
    text = str(answer.get("fault_message") or f"status {status}")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_FAULT_MAX].rstrip(".")
