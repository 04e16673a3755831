"""Firecracker's API over its Unix socket: one connection that stays, one request at a time, each with a deadline.

Owns the connection. HTTP/1.1 as far as Firecracker speaks it: a status line, headers, a body of Content-Length
bytes. A request that is cancelled or late leaves the connection in an unknown state, so it is dropped and the next
one makes its own.
"""

import asyncio
from typing import Any

import msgspec

from banger.base.problem import Code, Outcome, Problem
from banger.vmm.firecracker.bodies import START, Call

DEADLINE_S = 10.0
START_S = 60.0  # it reads the whole kernel, which takes seconds where the host is emulated itself
_BODY_MAX_BYTES = 1024 * 1024
_LINE_MAX_BYTES = 16 * 1024
_HEADERS_MAX = 32
_FAULT_MAX = 600


class Api:
    """The client of one VMM. Connects when it is first needed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._one_at_a_time = asyncio.Lock()
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, call: Call) -> None:
        """Raises Problem with Firecracker's own reason when it refuses."""
        await self._request(call.method, call.path, call.body, START_S if call == START else DEADLINE_S)

    async def get(self, path: str, *, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        return await self._request("GET", path, None, deadline_s)

    def drop(self) -> None:
        """Lets go of the connection. The next request makes its own."""
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None

    async def _request(
        self, method: str, path: str, body: dict[str, Any] | None, deadline_s: float
    ) -> dict[str, Any]:
        what = f"{method} {path}"
        async with self._one_at_a_time:
            done = False
            try:
                async with asyncio.timeout(deadline_s):
                    reader, writer = await self._connect(what)
                    writer.write(_render_request(method, path, body))
                    await writer.drain()
                    status, answer = await _read_response(reader)
                done = True
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
            finally:
                if not done:
                    self.drop()
        if status >= 400:
            raise Problem(Code.OPERATION_FAILED, f"Firecracker refuses {what}: {_read_fault(status, answer)}")
        return answer

    async def _connect(self, what: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._stream is not None and self._stream[0].at_eof():
            self.drop()
        if self._stream is None:
            try:
                self._stream = await asyncio.open_unix_connection(self._path, limit=_LINE_MAX_BYTES)
            except OSError as error:
                raise Problem(
                    Code.NOT_RUNNING,
                    f"Firecracker does not listen on {self._path} for {what}",
                    outcome=Outcome.NOT_STARTED,
                ) from error
        return self._stream


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
