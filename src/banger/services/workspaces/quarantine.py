"""Where objects from a guest are looked at before a repository of the host's has them: a bare repository of ours.

Owns one directory for each pull, with its own configuration and no other, which borrows the objects of the host's
repository and writes only to its own. Every git in it runs with limits on memory, on processor time and on the size of
a file, so that a pack that unpacks to more than it looks like ends itself and nobody else. What index-pack --strict
lets through is well formed, has no names that any git would refuse to check out, and refers to nothing that is
missing. `publish` puts the whole pack into the host's repository: first the pack, then the index that makes it count.
A daemon that dies leaves this directory, which `sweep` removes together with an unfinished copy.
"""

import asyncio
import errno
import os
import secrets
import shutil
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from banger.base.files import ensure_private_directory, free_bytes, remove_tree
from banger.base.problem import Code, Problem
from banger.base.process import Completed
from banger.base.tasks import in_thread
from banger.model.workspace import is_object_id
from banger.services.workspaces.inspect import Repository
from banger.services.workspaces.limited import GIT_DIR, LimitedGit, Limits, TooLong, bad_pack, too_much

_TARGET = "target"
_COPY = "tmp_banger_"  # git prunes what begins with tmp_, too (git-prune(1))
_HINT_READ_ONLY = (
    "the installed daemon writes below your home, /tmp and /var/tmp only: have the repository there"
)
_HEADER = struct.Struct(">4sII")


class Pack(NamedTuple):
    """What has arrived and is well formed."""

    path: Path
    objects: int
    pack_bytes: int
    unpacked_bytes: int


class Quarantine:
    """One pull's. Made by `open_quarantine`."""

    def __init__(self, directory: Path, repository: Repository, limits: Limits) -> None:
        self.directory = directory
        self._git = LimitedGit(directory, limits)
        self._limits = limits
        self._repository = repository
        self._names_left = limits.names_bytes

    async def take(self, pieces: AsyncGenerator[bytes, None]) -> Pack:
        """Stores and checks a pack as it comes. Raises `operation_failed` for one that is unsound or costs too much."""
        arguments = ("index-pack", "--stdin", "--strict", f"--max-input-size={self._limits.pack_bytes}")
        announced = _Announced(self._limits)
        async with aclosing(pieces), aclosing(announced.read(pieces)) as checked:
            answer = await self._git.run(arguments, checked, within_s=self._limits.pull_s)
        name = answer.stdout.decode("ascii", "replace").removeprefix("pack\t").rstrip("\n")
        if not is_object_id(name):  # what comes after the pack, index-pack passes on to its own stdout
            raise bad_pack("something follows it")
        path = self.directory / GIT_DIR / "objects" / "pack" / f"pack-{name}.pack"
        unpacked = await self._measure(path, announced.objects)
        return Pack(path, announced.objects, announced.size_bytes, unpacked)

    async def git(self, arguments: Sequence[str], *, stdin: bytes = b"", check: bool = True) -> Completed:
        """One that looks at what is here. Raises `operation_failed` when it fails, or costs too much."""
        return await self._git.run(arguments, _once(stdin), check=check)

    async def list_changes(self, arguments: Sequence[str], most_bytes: int) -> bytes:
        """What a git says of changed files. Raises `operation_failed` when that is more than `most_bytes`, or with all
        that was listed before more than the pull may have."""
        allowed = min(most_bytes, self._names_left)
        listed = (await self._git.run(arguments, _once(b""), most_bytes=allowed)).stdout
        self._names_left -= len(listed)
        return listed

    async def find_names(self, arguments: Sequence[str], most_bytes: int) -> bytes | None:
        """What a git lists; None when that is more than `most_bytes`."""
        try:
            return (await self._git.run(arguments, _once(b""), most_bytes=most_bytes)).stdout
        except TooLong:
            return None

    async def describe(self, ids: Sequence[bytes]) -> list[list[bytes]]:
        """[id, type, size] of each object. Raises `operation_failed` when one is missing."""
        if not ids:
            return []
        asked = await self.git(("cat-file", "--batch-check", "--buffer"), stdin=b"\n".join(ids) + b"\n")
        lines = await asyncio.to_thread(_split, asked.stdout)
        missing = [words[0] for words in lines if len(words) != 3]
        if missing or len(lines) != len(ids):
            raise bad_pack(
                f"object {missing[0].decode('ascii', 'replace')[:64] if missing else ''} is missing"
            )
        return lines

    async def publish(self, pack: Pack) -> None:
        """The host's repository has the objects from now on. No ref names them yet."""
        (self.directory / _TARGET).write_bytes(os.fsencode(self._repository.objects / "pack"))
        await in_thread(_copy_pack, pack.path, self._repository.objects / "pack", _COPY + self.directory.name)

    async def _measure(self, pack: Path, count: int) -> int:
        """The sum of what all objects of the pack are unpacked. Reads their headers only."""
        index = await asyncio.to_thread(pack.with_suffix(".idx").read_bytes)
        form = f"--object-format={self._repository.object_format}"
        listed = await self.git(("show-index", form), stdin=index)
        ids = [words[1] for words in await asyncio.to_thread(_split, listed.stdout)]
        if len(ids) != count:
            raise bad_pack(f"it announces {count} objects and has {len(ids)}")
        sizes = [int(words[2]) for words in await self.describe(ids)]
        unpacked: int = sum(sizes)
        if max(sizes, default=0) > self._limits.object_bytes:
            raise too_much(f"a file of {max(sizes) >> 20} MiB", f"{self._limits.object_bytes >> 20} MiB")
        if unpacked > self._limits.unpacked_bytes:
            raise too_much(f"{unpacked >> 20} MiB unpacked", f"{self._limits.unpacked_bytes >> 20} MiB")
        return unpacked


class _Announced:
    """What the header of a pack says, checked before git sees it, which makes room for all that is announced."""

    def __init__(self, limits: Limits) -> None:
        self.objects = 0
        self.size_bytes = 0
        self._limits = limits

    async def read(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        header = bytearray()
        async for data in pieces:
            self.size_bytes += len(data)
            if len(header) >= _HEADER.size:
                yield data
                continue
            header += data
            if len(header) >= _HEADER.size:
                self.objects = self._check(bytes(header[: _HEADER.size]))
                yield bytes(header)
        if len(header) < _HEADER.size:
            raise bad_pack("it ends before it begins")

    def _check(self, header: bytes) -> int:
        """gitformat-pack(5)."""
        magic, version, count = _HEADER.unpack(header)
        if magic != b"PACK" or version not in (2, 3):
            raise bad_pack("it does not begin like one")
        if count > self._limits.objects:
            raise too_much(f"{count} objects", f"{self._limits.objects}")
        return int(count)


def _split(lines: bytes) -> list[list[bytes]]:
    """As many as a pack has objects: not for the loop's thread."""
    return [line.split(b" ") for line in lines.splitlines()]


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


@asynccontextmanager
async def open_quarantine(root: Path, repository: Repository, limits: Limits) -> AsyncIterator[Quarantine]:
    """A fresh one below `root`, gone when the block ends."""
    ensure_private_directory(root)
    if free_bytes(root) < 64 << 20:
        raise Problem(Code.NO_SPACE, f"there is no room for objects from a guest in {root}", hint="banger df")
    directory = root / secrets.token_hex(8)
    directory.mkdir(mode=0o700)
    try:
        git = Quarantine(directory, repository, limits)
        form = f"--object-format={repository.object_format}"
        await git.git(("init", "--quiet", "--bare", "--template=", form, str(directory / GIT_DIR)))
        objects = directory / GIT_DIR / "objects"
        (objects / "pack").mkdir(exist_ok=True)
        (objects / "info").mkdir(exist_ok=True)
        (objects / "info" / "alternates").write_bytes(_quote(os.fsencode(repository.objects)) + b"\n")
        if repository.borders:
            (directory / GIT_DIR / "shallow").write_text("".join(f"{each}\n" for each in repository.borders))
        yield git
    finally:
        await in_thread(_remove, directory)


def sweep(root: Path) -> None:
    """Removes what a daemon that died has left: quarantines, and copies of packs that have no name yet. Blocks."""
    for directory in root.iterdir() if root.is_dir() else ():
        _remove(directory)


def _remove(directory: Path) -> None:
    with suppress(OSError):
        target = Path(os.fsdecode((directory / _TARGET).read_bytes()))
        for copy in target.glob(f"{_COPY}{directory.name}*"):
            copy.unlink(missing_ok=True)
    remove_tree(directory)


def _copy_pack(pack: Path, target: Path, temporary: str) -> None:
    """With all bytes on disk before the names: the index last, which makes git look into the pack."""
    try:
        for suffix in (".pack", ".idx"):
            copy = target / f"{temporary}{suffix}"
            shutil.copyfile(pack.with_suffix(suffix), copy)
            copy.chmod(0o444)
            descriptor = os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        for suffix in (".pack", ".idx"):
            (target / f"{temporary}{suffix}").rename(target / f"{pack.stem}{suffix}")
    except OSError as error:
        for suffix in (".pack", ".idx"):
            (target / f"{temporary}{suffix}").unlink(missing_ok=True)
        raise Problem(
            Code.NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else Code.OPERATION_FAILED,
            f"objects cannot be written to {target}: {error.strerror}",
            hint=_HINT_READ_ONLY if error.errno == errno.EROFS else f"ls -ld {target}",
        ) from error


def _quote(path: bytes) -> bytes:
    """As objects/info/alternates has paths that contain anything (gitrepository-layout(5)): quoted like in C."""
    return b'"' + b"".join(b"\\%03o" % byte for byte in path) + b'"'
