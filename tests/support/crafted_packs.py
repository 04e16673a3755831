"""Packs as no git would write them (gitformat-pack(5)), and a guest that says whatever a test wants."""

import hashlib
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from banger.guest.command import ExecRequest, ExitStatus
from banger.guest.frames import Stream

COMMIT, TREE, BLOB, TAG, REF_DELTA = 1, 2, 3, 4, 7
_NAMES = {COMMIT: "commit", TREE: "tree", BLOB: "blob", TAG: "tag"}


class Item(NamedTuple):
    kind: int
    content: bytes

    @property
    def id(self) -> str:
        return hashlib.sha1(f"{_NAMES[self.kind]} {len(self.content)}\0".encode() + self.content).hexdigest()


def make_tree(*entries: tuple[str, bytes, str]) -> Item:
    """(mode, name, id), in the order given."""
    return Item(
        TREE,
        b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(id_) for mode, name, id_ in entries),
    )


def make_commit(
    tree: str, *parents: str, message: bytes = b"crafted\n", author: bytes = b"A <a@example.com> 1 +0000"
) -> Item:
    lines = [b"tree " + tree.encode(), *(b"parent " + parent.encode() for parent in parents)]
    return Item(COMMIT, b"\n".join([*lines, b"author " + author, b"committer " + author, b"", message]))


def make_pack(*items: Item, count: int | None = None) -> bytes:
    body = struct.pack(">4sII", b"PACK", 2, len(items) if count is None else count)
    for item in items:
        body += encode_header(item.kind, len(item.content)) + zlib.compress(item.content)
    return seal(body)


def make_delta_bomb(base: Item, size: int) -> bytes:
    """A base, and a delta on it that says that it becomes `size` bytes long, by copying the base again and again."""
    copy = (
        b"\xf0\xff\xff\xff"
        if len(base.content) >= 0xFFFFFF
        else b"\xb0" + struct.pack("<H", min(len(base.content), 0xFFFF))
    )
    length = min(len(base.content), 0xFFFFFF if copy[0] == 0xF0 else 0xFFFF)
    delta = _vary(len(base.content)) + _vary(size) + copy * (size // length)
    body = struct.pack(">4sII", b"PACK", 2, 2)
    body += encode_header(base.kind, len(base.content)) + zlib.compress(base.content)
    body += encode_header(REF_DELTA, len(delta)) + bytes.fromhex(base.id) + zlib.compress(delta)
    return seal(body)


def encode_header(kind: int, size: int) -> bytes:
    first = (kind << 4) | (size & 15)
    size >>= 4
    out = bytearray()
    while size:
        out.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    return bytes([*out, first])


def _vary(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    return bytes([*out, number])


def seal(body: bytes) -> bytes:
    return body + hashlib.sha1(body).digest()


Answer = bytes | Callable[[], AsyncIterator[bytes]]


class HostileAgent:
    """An agent whose guest answers each of our scripts with bytes of the test's."""

    def __init__(
        self,
        *,
        branches: bytes = b"",
        pack: Answer = b"",
        rest: Answer = b"",
        status: int = 0,
        errors: bytes = b"",
    ) -> None:
        self._answers: dict[str, Answer] = {"for-each-ref": branches, "pack-objects": pack}
        self._rest = rest
        self._status = status
        self._errors = errors
        self.requests: list[ExecRequest] = []
        self.taken = 0

    @asynccontextmanager
    async def exec(self, request: ExecRequest) -> AsyncIterator[Any]:
        self.requests.append(request)
        script = request.argv[2]
        answer = next((answer for word, answer in self._answers.items() if word in script), self._rest)
        yield _Command(self, answer, self._status, self._errors)


class _Piece(NamedTuple):
    stream: Stream
    data: bytes


class _Command:
    def __init__(self, agent: HostileAgent, answer: Answer, status: int, errors: bytes) -> None:
        self._agent = agent
        self._pieces = self._say(answer, errors)
        self._status = status

    def __aiter__(self) -> "_Command":
        return self

    async def __anext__(self) -> _Piece:
        return await anext(self._pieces)

    async def _say(self, answer: Answer, errors: bytes) -> AsyncIterator[_Piece]:
        if errors:
            yield _Piece(Stream.STDERR, errors)
        if isinstance(answer, bytes):
            for start in range(0, len(answer), 65536):
                self._agent.taken += len(answer[start : start + 65536])
                yield _Piece(Stream.STDOUT, answer[start : start + 65536])
            return
        async for data in answer():
            self._agent.taken += len(data)
            yield _Piece(Stream.STDOUT, data)

    async def wait(self) -> ExitStatus:
        return ExitStatus(self._status, None)
