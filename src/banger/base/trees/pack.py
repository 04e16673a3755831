"""Files below a directory as a tar stream. Blocking; the stream is made as it is taken.

Walks by descriptors, component by component, and never through a symbolic link, whatever changes meanwhile: nothing
outside the directory is read. Links stay links, hard ones too; sparse files go as their data only. Left out and
reported: sockets, FIFOs, devices. A file that shrinks meanwhile is filled up with zeros, one that grows is cut, one
that vanishes is left out: all reported as changed.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from banger.base.problem import Code, Outcome, Problem, not_found
from banger.base.trees import headers
from banger.base.trees.headers import Entry, Segments, padding, render_entry
from banger.base.trees.names import MAX_DEPTH, UnsafeName, render_name, split_name

_CHUNK_BYTES = 256 * 1024
_MAX_TOLD = 100
_MAX_SEGMENTS = 16384  # of a sparse file that is sent as one; readers take more
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening what has become a FIFO must not wait for its writer
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Packed:
    """What went into the stream so far. `left_out` (name and why) and `changed` hold the first hundred names each."""

    def __init__(self) -> None:
        self.entries = 0
        self.size_bytes = 0
        self.left_out: list[tuple[bytes, str]] = []
        self.left_out_count = 0
        self.changed: list[bytes] = []
        self.changed_count = 0

    def leave_out(self, name: bytes, why: str) -> None:
        self.left_out_count += 1
        if len(self.left_out) < _MAX_TOLD:
            self.left_out.append((name, why))

    def note_change(self, name: bytes) -> None:
        self.changed_count += 1
        if len(self.changed) < _MAX_TOLD:
            self.changed.append(name)


def pack(
    directory: int,
    names: Iterable[bytes] | None = None,
    *,
    stored: Mapping[bytes, bytes] | None = None,
    packed: Packed | None = None,
) -> Iterator[bytes]:
    """The named files and directories (with all below them), or everything, as chunks of a tar stream.

    `directory` is a descriptor that the caller keeps open. Names are relative to it and keep their order; what is found
    below a directory is sorted. `stored` gives a named one another name in the stream. `packed` tells how far it is.
    Raises Problem: a name that is not there or leads elsewhere, a file that cannot be read.
    """
    packer = _Packer(packed if packed is not None else Packed())
    if names is None:
        yield from _gather(packer.pack_below(directory, b""))
    else:
        yield from _gather(_pack_named(packer, directory, names, stored or {}))


def measure(directory: int, *, depth: int = MAX_DEPTH) -> int:
    """The bytes of all files below, as far as they can be seen: what `Packed.size_bytes` comes to."""
    total = 0
    for entry in _scan(directory):
        try:
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                total += found.st_size
            elif stat.S_ISDIR(found.st_mode) and depth:
                below = os.open(entry.name, _OPEN_DIRECTORY, dir_fd=directory)
                try:
                    total += measure(below, depth=depth - 1)
                finally:
                    os.close(below)
        except OSError:
            continue
    return total


def _scan(directory: int) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []


def _gather(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Small pieces joined: a chunk a header would cost more than the header. Ends the stream."""
    gathered = bytearray()
    for piece in pieces:
        if len(piece) >= _CHUNK_BYTES and not gathered:
            yield piece
            continue
        gathered += piece
        if len(gathered) >= _CHUNK_BYTES:
            yield bytes(gathered)
            gathered.clear()
    gathered += headers.END
    yield bytes(gathered)


def _pack_named(
    packer: "_Packer", directory: int, names: Iterable[bytes], stored: Mapping[bytes, bytes]
) -> Iterator[bytes]:
    for name in names:
        with ExitStack() as held:
            try:
                *parents, leaf = split_name(name)
            except (UnsafeName, ValueError) as error:
                raise Problem(
                    Code.BAD_REQUEST, f"{render_name(name)} is no name below the directory", detail=str(error)
                ) from error
            parent = directory
            try:
                for part in parents:
                    parent = os.open(part, _OPEN_DIRECTORY, dir_fd=parent)
                    held.callback(os.close, parent)
                path = stored.get(name, b"/".join((*parents, leaf)))
                yield from packer.pack_one(parent, leaf, path)
            except OSError as error:
                raise _unreadable(name, error) from error


class _Packer:
    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self._links: dict[tuple[int, int], bytes] = {}  # files of several names, by their first one

    def pack_below(self, directory: int, prefix: bytes) -> Iterator[bytes]:
        """Depth first, with a descriptor for each level. No recursion: generators in generators are slow and few."""
        levels = [(directory, prefix, _list_names(directory, prefix))]
        try:
            while levels:
                here, prefix, names = levels[-1]
                if (name := next(names, None)) is None:
                    levels.pop()
                    if here != directory:
                        os.close(here)
                    continue
                path = prefix + name
                with self._noting_changes(path):
                    found = os.stat(name, dir_fd=here, follow_symlinks=False)
                    if not stat.S_ISDIR(found.st_mode):
                        yield from self._pack_item(here, name, path, found)
                        continue
                    if len(levels) == MAX_DEPTH:
                        raise _too_deep(path)
                    below = os.open(name, _OPEN_DIRECTORY, dir_fd=here)
                    path += b"/"
                    levels.append((below, path, _list_names(below, path)))
                    yield self._render(path, headers.DIRECTORY, found)
        finally:
            for descriptor, _, _ in levels[1:]:
                os.close(descriptor)

    def pack_one(self, directory: int, name: bytes, path: bytes) -> Iterator[bytes]:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            yield from self._pack_item(directory, name, path, found)
            return
        below = os.open(name, _OPEN_DIRECTORY, dir_fd=directory)
        try:
            yield self._render(path + b"/", headers.DIRECTORY, found)
            yield from self.pack_below(below, path + b"/")
        finally:
            os.close(below)

    @contextmanager
    def _noting_changes(self, path: bytes) -> Iterator[None]:
        """What was listed and vanishes, or becomes something else, is left out and noted."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EINVAL):
                raise _unreadable(path, error) from error
            self._packed.note_change(path)

    def _pack_item(self, directory: int, name: bytes, path: bytes, found: os.stat_result) -> Iterator[bytes]:
        if stat.S_ISREG(found.st_mode):
            yield from self._pack_file(directory, name, path, found)
        elif stat.S_ISLNK(found.st_mode):
            yield self._render(path, headers.SYMLINK, found, target=os.readlink(name, dir_fd=directory))
        else:
            self._packed.leave_out(path, _describe_kind(found.st_mode))

    def _pack_file(self, directory: int, name: bytes, path: bytes, found: os.stat_result) -> Iterator[bytes]:
        identity = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and identity in self._links:
            yield self._render(path, headers.HARD_LINK, found, target=self._links[identity])
            return
        file = os.open(name, _OPEN_FILE, dir_fd=directory)
        try:
            opened = os.fstat(file)
            if not stat.S_ISREG(opened.st_mode):
                self._packed.note_change(path)
                return
            if opened.st_nlink > 1:
                self._links[(opened.st_dev, opened.st_ino)] = path
            segments = _find_segments(file, opened)
            yield self._render(path, headers.FILE, opened, segments=segments)
            yield from self._pack_content(file, path, opened, segments)
        finally:
            os.close(file)

    def _pack_content(
        self, file: int, path: bytes, opened: os.stat_result, segments: Segments | None
    ) -> Iterator[bytes]:
        """The header has promised a size, which is kept whatever happens to the file."""
        whole = True
        stored = at = 0
        for offset, length in ((0, opened.st_size),) if segments is None else segments:
            self._packed.size_bytes += offset - at
            end = at = offset + length
            stored += length
            while offset < end:
                data = os.pread(file, min(_CHUNK_BYTES, end - offset), offset)
                if not data:
                    whole = False
                    data = bytes(min(_CHUNK_BYTES, end - offset))
                offset += len(data)
                self._packed.size_bytes += len(data)
                yield data
        self._packed.size_bytes += opened.st_size - at
        yield bytes(padding(stored))
        now = os.fstat(file)
        if not whole or (now.st_size, now.st_mtime_ns) != (opened.st_size, opened.st_mtime_ns):
            self._packed.note_change(path)

    def _render(
        self,
        path: bytes,
        kind: bytes,
        found: os.stat_result,
        *,
        target: bytes = b"",
        segments: Segments | None = None,
    ) -> bytes:
        self._packed.entries += 1
        size = found.st_size if kind == headers.FILE else 0
        mode = stat.S_IMODE(found.st_mode)
        return render_entry(
            Entry(path, kind, mode, found.st_uid, found.st_gid, size, found.st_mtime_ns, target, segments)
        )


def _find_segments(file: int, opened: os.stat_result) -> Segments | None:
    """Where a sparse file has data; None for one without holes, or with too many. Ends with an empty segment at the
    file's end when a hole is there, as GNU tar wants it."""
    size = opened.st_size
    if opened.st_blocks * 512 >= size:
        return None
    segments: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
            end = min(os.lseek(file, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            return None
        if len(segments) == _MAX_SEGMENTS or end <= start:
            return None
        segments.append((start, end - start))
        at = end
    if at < size:
        segments.append((size, 0))
    return None if segments == [(0, size)] else tuple(segments)


def _list_names(directory: int, prefix: bytes) -> Iterator[bytes]:
    try:
        yield from sorted(os.fsencode(name) for name in os.listdir(directory))
    except OSError as error:
        raise _unreadable(prefix or b".", error) from error


def _too_deep(path: bytes) -> Problem:
    return Problem(Code.BAD_REQUEST, f"{render_name(path)} lies more than {MAX_DEPTH} directories deep")


def _describe_kind(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a FIFO" if stat.S_ISFIFO(mode) else "a device"


def _unreadable(name: bytes, error: OSError) -> Problem:
    shown = render_name(name)
    if error.errno == errno.ENOENT:
        return not_found(f"there is no file {shown}")
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return not_found(f"{shown} leads through something that is no directory")
    code = Code.UNAUTHORIZED if error.errno in (errno.EACCES, errno.EPERM) else Code.OPERATION_FAILED
    return Problem(code, f"{shown} cannot be read: {error.strerror}", outcome=Outcome.FAILED)
