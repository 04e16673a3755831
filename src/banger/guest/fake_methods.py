"""The methods of the fake guest, one function each. See `fake` for what is real about them."""

import asyncio
import errno
import io
import os
import secrets
import shutil
import signal
import stat
import tarfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from banger.base.process import SEARCH_PATH, start_process
from banger.guest.channel import Channel, Outbox
from banger.guest.entries import (
    Entry,
    encode_entry,
    encode_health,
    encode_listed,
    encode_listener,
    encode_usage,
    need_number,
    need_text,
)
from banger.guest.errors import UNSAFE_PATH
from banger.guest.frames import Fields, FrameType, Stream, encode_fields
from banger.guest.methods import Method

if TYPE_CHECKING:
    from banger.guest.fake import FakeGuest

_CHUNK_BYTES = 65536
Callback = Callable[[], None]
Answer = tuple[bytes, Callback]


def _nothing() -> None: ...


class Refusal(Exception):
    """One of the agent's own errors."""

    def __init__(self, error: int, text: str) -> None:
        super().__init__(text)
        self.error = error
        self.text = text


class Call:
    """One channel and the request that opened it. `control` is replaced by methods that take controls."""

    def __init__(self, guest: "FakeGuest", outbox: Outbox, channel: Channel, fields: Fields) -> None:
        self.guest = guest
        self.channel = channel
        self.fields = fields
        self.control: Callable[[int, Fields], None] = lambda _code, _fields: None
        self._outbox = outbox

    def start(self, *fields: tuple[int, int | bytes]) -> None:
        self._outbox.post(FrameType.STARTED, 0, self.channel.number, encode_fields(fields))

    def path(self, tag: int = 1) -> Path:
        """A path of the guest inside the scratch directory; `..` stops at its root."""
        inside = os.path.normpath("/" + need_text(self.fields, tag))
        return self.guest.scratch / inside.lstrip("/")

    async def send(self, data: bytes) -> None:
        await self.channel.write(Stream.STDOUT, data)

    async def receive(self) -> bytes:
        """All of the host's bytes, in memory: this is a fake."""
        received = bytearray()
        while (piece := await self.channel.read()) is not None:
            received += piece.data
        return bytes(received)


async def _health(call: Call) -> Answer:
    return encode_health(call.guest.health), _nothing


async def _exec(call: Call) -> Answer:
    argv = [os.fsdecode(argument) for argument in call.fields.find_all(1)]
    pairs = (os.fsdecode(pair).partition("=") for pair in call.fields.find_all(2))
    env = {"HOME": str(call.guest.scratch / "root")} | {key: value for key, _, value in pairs}
    flags = call.fields.find_number(5) or 0
    program = shutil.which(argv[0], path=env.get("PATH", SEARCH_PATH))
    if program is None:
        raise OSError(errno.ENOENT, "No such file or directory")
    cwd = call.path(3) if call.fields.find(3) else call.guest.scratch / "root"
    if not cwd.is_dir():
        raise OSError(errno.ENOENT, f"{cwd}: no such directory")
    pipe = asyncio.subprocess.PIPE
    async with start_process(
        (program, *argv[1:]),
        cwd=cwd,
        extra_env=env,
        stdin=pipe if flags & 3 else asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=asyncio.subprocess.STDOUT if flags & 5 else pipe,
    ) as process:
        call.control = lambda code, fields: _control(process, code, fields)
        call.start((1, process.pid))
        try:
            await _pump(call.channel, process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    status = process.returncode
    assert status is not None
    return encode_fields([(1, status)] if status >= 0 else [(2, -status)]), _nothing


def _control(process: asyncio.subprocess.Process, code: int, fields: Fields) -> None:
    if code == 1:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, need_number(fields, 1))


async def _pump(channel: Channel, process: asyncio.subprocess.Process) -> None:
    async def send(reader: asyncio.StreamReader, stream: Stream) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await channel.write(stream, data)
        channel.post_eof(stream)

    async def feed(writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while (piece := await channel.read()) is not None:
                writer.write(piece.data)
                await writer.drain()
            writer.close()

    async with asyncio.TaskGroup() as group:
        feeder = group.create_task(feed(process.stdin)) if process.stdin else None
        assert process.stdout is not None
        group.create_task(send(process.stdout, Stream.STDOUT))
        if process.stderr is not None:
            group.create_task(send(process.stderr, Stream.STDERR))
        await process.wait()
        if feeder is not None:
            feeder.cancel()


async def _file_read(call: Call) -> Answer:
    with call.path().open("rb") as file:
        state = os.fstat(file.fileno())
        call.start((1, state.st_size), (2, state.st_mode))
        file.seek(call.fields.find_number(2) or 0)
        length = call.fields.find_number(3)
        left = state.st_size if length is None else length
        while left > 0 and (data := file.read(min(left, _CHUNK_BYTES))):
            left -= len(data)
            await call.send(data)
    call.channel.post_eof(Stream.STDOUT)
    return b"", _nothing


async def _file_write(call: Call) -> Answer:
    path = call.path()
    if (call.fields.find_number(5) or 0) & 1:
        path.parent.mkdir(parents=True, exist_ok=True)
    mode = call.fields.find_number(2)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    size = 0
    try:
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), 0o644 if mode is None else mode)
            call.start()
            while (piece := await call.channel.read()) is not None:
                size += file.write(piece.data)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    return encode_fields([(1, size)]), _nothing


def _entry_of(path: Path, name: str, *, follow: bool = False) -> Entry:
    state = path.stat() if follow else path.lstat()
    target = str(path.readlink()) if stat.S_ISLNK(state.st_mode) else None
    return Entry(name, state.st_mode, state.st_size, state.st_uid, state.st_gid, state.st_mtime_ns, target)


async def _file_stat(call: Call) -> Answer:
    path = call.path()
    follow = bool((call.fields.find_number(2) or 0) & 1)
    return encode_fields([(1, encode_entry(_entry_of(path, path.name, follow=follow)))]), _nothing


async def _file_list(call: Call) -> Answer:
    names = [path.name for path in call.path().iterdir()]
    call.start()
    for name in names:
        await call.send(encode_listed(_entry_of(call.path() / name, name)))
    call.channel.post_eof(Stream.STDOUT)
    return b"", _nothing


async def _tree_get(call: Call) -> Answer:
    top = call.path()
    top.lstat()
    names = [os.fsdecode(name) for name in call.fields.find_all(2)]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names or (sorted(path.name for path in top.iterdir()) if top.is_dir() else [""]):
            archive.add(top / name if name else top, arcname=name or top.name)
    call.start()
    await call.send(packed.getvalue())
    call.channel.post_eof(Stream.STDOUT)
    return b"", _nothing


def _leaves(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


async def _tree_put(call: Call) -> Answer:
    top = call.path()
    top.mkdir(parents=True, exist_ok=True)
    call.start()
    packed = await call.receive()
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            members = archive.getmembers()
            if unsafe := [member.name for member in members if _leaves(member.name)]:
                raise Refusal(UNSAFE_PATH, f"{unsafe[0]} would leave {top}")
            archive.extractall(top)  # noqa: S202 (checked above; `filter=` is newer than Debian 12's Python)
    except tarfile.TarError as error:
        raise OSError(errno.EINVAL, str(error)) from error
    size = sum(member.size for member in members if member.isreg())
    return encode_fields([(1, len(members)), (2, size)]), _nothing


async def _ports(call: Call) -> Answer:
    return encode_fields([(1, encode_listener(item)) for item in call.guest.listeners]), _nothing


async def _wait_port(call: Call) -> Answer:
    port, timeout_ms = need_number(call.fields, 1), need_number(call.fields, 2)
    guest = call.guest
    try:
        async with asyncio.timeout(timeout_ms / 1000), guest.ports_changed:
            await guest.ports_changed.wait_for(
                lambda: any(item.port == port and item.protocol == "tcp" for item in guest.listeners)
            )
    except TimeoutError as error:
        raise OSError(errno.ETIMEDOUT, f"nothing listens on port {port}") from error
    return b"", _nothing


async def _sync(call: Call) -> Answer:
    call.guest.sync_count += 1
    return b"", _nothing


async def _power_off(call: Call) -> Answer:
    return b"", call.guest.on_power_off


async def _reboot(call: Call) -> Answer:
    return b"", call.guest.on_reboot


async def _clock(call: Call) -> Answer:
    wanted = call.fields.find_number(1)
    if wanted is not None:
        call.guest.clock_offset_ns = wanted - time.time_ns()
    return encode_fields([(1, time.time_ns() + call.guest.clock_offset_ns)]), _nothing


async def _usage(call: Call) -> Answer:
    port = call.fields.find_number(1)
    connections = None if port is None else call.guest.connections.get(port, 0)
    return encode_usage(call.guest.usage._replace(connections=connections)), _nothing


METHODS: Mapping[int, Callable[[Call], Awaitable[Answer]]] = MappingProxyType(
    {
        Method.HEALTH: _health,
        Method.EXEC: _exec,
        Method.FILE_READ: _file_read,
        Method.FILE_WRITE: _file_write,
        Method.FILE_STAT: _file_stat,
        Method.FILE_LIST: _file_list,
        Method.TREE_GET: _tree_get,
        Method.TREE_PUT: _tree_put,
        Method.PORTS: _ports,
        Method.WAIT_PORT: _wait_port,
        Method.SYNC: _sync,
        Method.POWER_OFF: _power_off,
        Method.REBOOT: _reboot,
        Method.CLOCK: _clock,
        Method.USAGE: _usage,
    }
)
