"""An untrusted tar stream unpacked below a directory. Blocking; takes the stream as it comes.

Invariant: nothing outside of the directory is written, whatever the stream says and whatever a process beside us does:
every path is walked by descriptors, component by component, and never through a symbolic link, be it there already or
made by the stream. Refused, naming the entry: `..`, absolute, empty and endless names, hard links to anything but a
file that the same stream has brought, a file in place of a directory and the other way round. Devices and FIFOs are
refused or left out. Set-id and sticky bits are dropped always, owners unless they are asked for.

Each file takes its name when it is whole, in place of what had it, so that a stream that ends early leaves the old
file or the new one. What is in existing directories stays, and so do their modes and times.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from banger.base.problem import Code, Outcome, Problem
from banger.base.trees import headers
from banger.base.trees.headers import Entry, MalformedTar
from banger.base.trees.names import UnsafeName, leaves_directory, render_name, split_name
from banger.base.trees.reader import TarReader

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_TOLD = 100
_NOBODY = 2**32 - 1  # leaves an owner as it is (chown(2))
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_CODES = {errno.EACCES: Code.UNAUTHORIZED, errno.EPERM: Code.UNAUTHORIZED} | dict.fromkeys(
    _NO_ROOM, Code.NO_SPACE
)


class Policy(NamedTuple):
    """What a stream may do.

    `links` is about symbolic links whose target leaves the directory: they are kept as links, through which nothing is
    written, or refused. `specials` are devices and FIFOs. `umask` None is the process's own.
    """

    links: Literal["keep", "refuse"] = "keep"
    specials: Literal["refuse", "leave_out"] = "refuse"
    keep_owners: bool = False
    umask: int | None = None
    max_entries: int = 2_000_000
    max_bytes: int | None = None


PLAIN = Policy()


class Unpacked:
    """What has been made so far. `left_out` holds the first hundred."""

    def __init__(self) -> None:
        self.entries = 0
        self.size_bytes = 0
        self.left_out: list[tuple[bytes, str]] = []
        self.left_out_count = 0


def unpack(
    directory: int,
    chunks: Iterable[bytes],
    *,
    policy: Policy = PLAIN,
    unpacked: Unpacked | None = None,
    accept: Callable[[Entry], Entry] = lambda entry: entry,
) -> Unpacked:
    """Unpacks to the stream's end, below the descriptor `directory`, which the caller keeps open.

    `accept` sees each entry first, and may raise or give it another name. Raises Problem for a stream that is refused
    and for a disk that is full; what was made before stays. What the source raises is passed on.
    """
    unpacked = unpacked if unpacked is not None else Unpacked()
    with _Unpacker(directory, policy, unpacked) as unpacker:
        try:
            reader = TarReader(chunks)
            for entry in reader:
                unpacker.make(accept(entry), reader)
        except MalformedTar as error:
            raise Problem(
                Code.OPERATION_FAILED, f"the tar stream is refused: {error}", outcome=Outcome.FAILED
            ) from error
    return unpacked


def find_umask() -> int:
    """The process's own, without changing it for a moment (proc_pid_status(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


class _Level(NamedTuple):
    """An open directory on the way to the current entry; `settle` is what it gets when we leave it."""

    name: bytes
    descriptor: int
    settle: Entry | None


class _Unpacker:
    def __init__(self, directory: int, policy: Policy, unpacked: Unpacked) -> None:
        self._root = directory
        self._policy = policy
        self._umask = find_umask() if policy.umask is None else policy.umask
        self._unpacked = unpacked
        self._seen = 0
        self._levels: list[_Level] = []
        self._brought: set[tuple[int, int]] = set()  # files that this stream has made

    def __enter__(self) -> "_Unpacker":
        return self

    def __exit__(self, *_: object) -> None:
        self._leave(0)

    def make(self, entry: Entry, reader: TarReader) -> None:
        self._seen += 1
        if self._seen > self._policy.max_entries:
            raise _refused(entry, f"is one too many, after {self._policy.max_entries}")
        try:
            parts = split_name(entry.name)
        except UnsafeName as error:
            raise _refused(entry, str(error)) from error
        if self._policy.keep_owners and max(entry.uid, entry.gid) >= _NOBODY:
            raise _refused(entry, "belongs to a number that nobody has")
        if not parts:
            if entry.kind != headers.DIRECTORY:
                raise _refused(entry, "takes the place of the directory itself")
            return
        try:
            self._make(parts, entry, reader)
        except OSError as error:
            raise _failed(entry, error) from error

    def _make(self, parts: tuple[bytes, ...], entry: Entry, reader: TarReader) -> None:
        parent, leaf = self._enter(parts[:-1], entry), parts[-1]
        if entry.kind == headers.DIRECTORY:
            self._open_level(parent, leaf, entry, settle=entry)
        elif entry.kind == headers.FILE:
            self._make_file(parent, leaf, entry, reader)
        elif entry.kind == headers.SYMLINK:
            self._make_symlink(parts, parent, leaf, entry)
        elif entry.kind == headers.HARD_LINK:
            self._make_hard_link(parts, parent, leaf, entry)
        else:
            self._pass_special(entry)
            return
        self._unpacked.entries += 1

    def _pass_special(self, entry: Entry) -> None:
        kinds = {
            headers.FIFO: "a FIFO",
            headers.CHARACTER: "a device",
            headers.BLOCK_DEVICE: "a device",
        }
        what = kinds.get(entry.kind)
        if what is None:
            raise _refused(entry, f"is of an unknown type, {render_name(entry.kind)}")
        if self._policy.specials == "refuse":
            raise _refused(entry, f"is {what}")
        self._unpacked.left_out_count += 1
        if len(self._unpacked.left_out) < _MAX_TOLD:
            self._unpacked.left_out.append((entry.name, what))

    # The way down

    def _enter(self, parts: tuple[bytes, ...], entry: Entry) -> int:
        """The descriptor of a directory, made where it is missing. Those on the way to it stay open."""
        common = 0
        while common < min(len(parts), len(self._levels)) and self._levels[common].name == parts[common]:
            common += 1
        self._leave(common)
        for part in parts[common:]:
            self._open_level(self._here(), part, entry, settle=None)
        return self._here()

    def _here(self) -> int:
        return self._levels[-1].descriptor if self._levels else self._root

    def _open_level(self, parent: int, name: bytes, entry: Entry, *, settle: Entry | None) -> None:
        made = False
        try:
            os.mkdir(name, 0o700 if settle else 0o777 & ~self._umask, dir_fd=parent)
            made = True
        except FileExistsError:
            pass
        try:
            descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise _refused(entry, f"leads through {render_name(name)}, a symbolic link") from error
            raise _in_the_way(entry, f"{render_name(name)} is no directory") from error
        if made and settle and self._policy.keep_owners:
            os.chown(descriptor, entry.uid, entry.gid)
        self._levels.append(_Level(name, descriptor, settle if made else None))

    def _leave(self, depth: int) -> None:
        """Closes what is deeper. Times and modes come last: each file made in a directory changes its time, and none
        could be made in one that is read-only."""
        while len(self._levels) > depth:
            level = self._levels.pop()
            try:
                if level.settle is not None:
                    with suppress(OSError):  # somebody changed it meanwhile
                        os.fchmod(level.descriptor, self._allowed_mode(level.settle))
                        _set_time(level.descriptor, level.settle)
            finally:
                os.close(level.descriptor)

    # The kinds

    def _make_file(self, parent: int, leaf: bytes, entry: Entry, reader: TarReader) -> None:
        limit = self._policy.max_bytes
        if limit is not None and self._unpacked.size_bytes + entry.size > limit:
            raise _refused(entry, f"makes it more than {limit} bytes")
        with self._taking_its_place(parent, leaf, entry) as temporary:
            file = os.open(temporary, _NEW_FILE, 0o600, dir_fd=parent)
            try:
                self._write(file, entry, reader)
                if self._policy.keep_owners:
                    os.fchown(file, entry.uid, entry.gid)
                os.fchmod(file, self._allowed_mode(entry))
                _set_time(file, entry)
                made = os.fstat(file)
            finally:
                os.close(file)
        self._brought.add((made.st_dev, made.st_ino))

    def _write(self, file: int, entry: Entry, reader: TarReader) -> None:
        begun = self._unpacked.size_bytes
        if entry.segments is not None:
            os.ftruncate(file, entry.size)
        for offset, piece in reader.content():
            written = 0
            while written < len(piece):
                written += os.pwrite(file, piece[written:], offset + written)
            self._unpacked.size_bytes = begun + offset + len(piece)
        self._unpacked.size_bytes = begun + entry.size

    def _make_symlink(self, parts: tuple[bytes, ...], parent: int, leaf: bytes, entry: Entry) -> None:
        if not entry.target or b"\0" in entry.target:
            raise _refused(entry, "is a symbolic link to nothing")
        if self._policy.links == "refuse" and leaves_directory(parts[:-1], entry.target):
            raise _refused(entry, f"is a symbolic link out of the directory, to {render_name(entry.target)}")
        with self._taking_its_place(parent, leaf, entry) as temporary:
            os.symlink(entry.target, temporary, dir_fd=parent)
            if self._policy.keep_owners:
                os.chown(temporary, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            with suppress(OSError, OverflowError):
                times = (entry.mtime_ns, entry.mtime_ns)
                os.utime(temporary, ns=times, dir_fd=parent, follow_symlinks=False)

    def _make_hard_link(self, parts: tuple[bytes, ...], parent: int, leaf: bytes, entry: Entry) -> None:
        shown = render_name(entry.target)
        try:
            *above, target = split_name(entry.target)
        except (UnsafeName, ValueError) as error:
            raise _refused(entry, f"is a hard link to {shown}, which leaves the directory") from error
        if (*above, target) == parts:
            raise _refused(entry, "is a hard link to itself")
        with _walked(self._root, above) as holder:
            found = _find(holder, target) if holder is not None else None
            if holder is None or found is None or (found.st_dev, found.st_ino) not in self._brought:
                raise _refused(entry, f"is a hard link to {shown}, which is no file that came before it")
            with self._taking_its_place(parent, leaf, entry) as temporary:
                os.link(target, temporary, src_dir_fd=holder, dst_dir_fd=parent, follow_symlinks=False)

    @contextmanager
    def _taking_its_place(self, parent: int, leaf: bytes, entry: Entry) -> Iterator[bytes]:
        """A name beside the final one. When the block ends well it becomes that, else what it names is removed."""
        found = _find(parent, leaf)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise _in_the_way(entry, "a directory has its name")
        temporary = b".banger-%s.part" % secrets.token_hex(6).encode()
        try:
            yield temporary
            os.rename(temporary, leaf, src_dir_fd=parent, dst_dir_fd=parent)
        finally:
            # rename(2) between two names of one file does nothing and leaves both.
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)

    def _allowed_mode(self, entry: Entry) -> int:
        return entry.mode & 0o777 & ~(0 if self._policy.keep_owners else self._umask)


def _set_time(descriptor: int, entry: Entry) -> None:
    with suppress(OSError, OverflowError):  # a wrong time is no reason to fail
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))


def _find(directory: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


@contextmanager
def _walked(root: int, parts: Iterable[bytes]) -> Iterator[int | None]:
    """The directory below root; None when it is not there, or not without passing a link."""
    directory = os.dup(root)
    try:
        for part in parts:
            try:
                below = os.open(part, _OPEN_DIRECTORY, dir_fd=directory)
            except OSError:
                yield None
                return
            os.close(directory)
            directory = below
        yield directory
    finally:
        os.close(directory)


def _refused(entry: Entry, why: str) -> Problem:
    return Problem(
        Code.OPERATION_FAILED, f"the entry {render_name(entry.name)} {why}: refused", outcome=Outcome.FAILED
    )


def _in_the_way(entry: Entry, why: str) -> Problem:
    return Problem(
        Code.ALREADY_EXISTS,
        f"{render_name(entry.name)} cannot be written: {why}",
        hint="move it away, or choose another directory",
        outcome=Outcome.FAILED,
    )


def _failed(entry: Entry, error: OSError) -> Problem:
    code = _CODES.get(error.errno or 0, Code.OPERATION_FAILED)
    return Problem(
        code,
        f"{render_name(entry.name)} cannot be written: {error.strerror}",
        hint="df -h" if code is Code.NO_SPACE else None,
        outcome=Outcome.FAILED,
    )
