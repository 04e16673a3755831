"""A helper that does what a test tells it: the far end of the client's socket, in a thread."""

import asyncio
import os
import queue
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from banger.privileged.contract.base import VERSION, Done, Request
from banger.privileged.contract.codec import decode_request, encode_result
from banger.privileged.contract.processes import Greeting, Hello

Answer = Callable[[socket.socket, Request, str], None]


def greet(connection: socket.socket, op: str, version: int = VERSION) -> None:
    connection.send(
        encode_result(op, Greeting(version=version, build="scripted", pid=os.getpid(), owner=os.getuid()))
    )


def say_done(connection: socket.socket, request: Request, op: str) -> None:
    connection.send(encode_result(op, Done()))


def send_answer(connection: socket.socket, answer: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """The descriptors are closed here."""
    try:
        if descriptors:
            socket.send_fds(connection, [answer], list(descriptors))
        else:
            connection.send(answer)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


class ScriptedHelper:
    """Greets by itself. Each request takes the next of `script`, or is done. An `answer` that raises EOFError closes
    the connection. Use in a `with` block."""

    def __init__(
        self, path: Path, *script: Answer, greeting: Callable[[socket.socket, str], None] = greet
    ) -> None:
        self.requests: list[tuple[Request, str]] = []
        self.received: list[int] = []
        self.connections = 0
        self.under_way = 0
        self.most_under_way = 0
        self.path = path
        self._greeting = greeting
        self._script: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        for answer in script:
            self._script.put(answer)
        self._answered = 0
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self.listen()

    def listen(self) -> None:
        self._listener.listen()

    def __enter__(self) -> "ScriptedHelper":
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in tuple(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._listener.close()
        self.path.unlink()
        for descriptor in self.received:
            os.close(descriptor)

    @property
    def methods(self) -> list[str]:
        return [request.method for request, _ in self.requests]

    async def wait_connections(self, count: int) -> None:
        """Until the helper has this many open, each closed on both sides otherwise."""
        await asyncio.to_thread(self._wait, lambda: len(self._open) == count)

    def block_until_answered(self, count: int) -> None:
        """Until it has sent this many answers, greetings included. The event loop stands still meanwhile."""
        self._wait(lambda: self._answered >= count)

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 10)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.connections += 1
                self._open.add(connection)
                self._changed.notify_all()
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, EOFError):
            while self._serve_one(connection):
                self._note_answer()
        with self._changed:
            self._open.discard(connection)
            self._changed.notify_all()

    def _note_answer(self) -> None:
        with self._changed:
            self._answered += 1
            self._changed.notify_all()

    def _serve_one(self, connection: socket.socket) -> bool:
        message, descriptors, _, _ = socket.recv_fds(connection, 1 << 18, 64)
        if not message:
            return False
        self.received += descriptors
        request, op = decode_request(message, len(descriptors))
        self.requests.append((request, op))
        if isinstance(request, Hello):
            self._greeting(connection, op)
            return True
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        answer = say_done if self._script.empty() else self._script.get()
        answer(connection, request, op)
        self.under_way -= 1
        return True
