"""Root file systems that arrive as tar archives, from anywhere: read, checked, changed, and passed on.

One pass, nothing unpacked here: entries flow from the archive through the checks and the edit into another
tar stream, which is safe to unpack. Refused: names and links that leave the root, entries through symbolic
links, archives that are cut short. Left out: device nodes and what is below /dev.
"""

import fnmatch
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple, cast

from banger.base.problem import Code, Outcome, Problem, bad_request
from banger.base.progress import Progress
from banger.base.units import render_size
from banger.images.tar_input import DAMAGE, Input, open_archive, too_large

_TOLD_EVERY_BYTES = 64 * 1024**2
_KEPT_XATTRS = ("SCHILY.xattr.security.capability", "SCHILY.xattr.user.")
_OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
_OS_RELEASE_LIMIT = 64 * 1024
_MAX_ENTRIES = 2_000_000
_MAX_NAME = 4095  # Linux's PATH_MAX without its NUL
_NAMES_LIMIT = 256 * 1024**2  # characters of all names: they are remembered until the end


class AddedFile(NamedTuple):
    content: bytes = b""
    mode: int = 0o644


@dataclass(frozen=True, kw_only=True)
class TreeEdit:
    """What becomes different on the way. Names are relative to the root; all additions are root's.

    `drop` are patterns (fnmatch, `*` crosses slashes); `directories` are made only where they are missing.
    """

    drop: tuple[str, ...] = ()
    files: Mapping[str, AddedFile] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    directories: Mapping[str, int] = field(default_factory=dict)

    def drops(self, name: str) -> bool:
        if name in self.files or name in self.links:
            return True
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.drop)


MOUNT_POINTS: Mapping[str, int] = {
    "dev": 0o755,
    "etc": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
}


class Copied(NamedTuple):
    """What went through. `os_release` is empty when the userland has none."""

    entries: int
    size_bytes: int
    os_release: dict[str, str]


def copy_archive(
    source: Path, target: IO[bytes], edit: TreeEdit, progress: Progress, *, limit_bytes: int
) -> Copied:
    """Passes the archive through. Blocking. Raises `bad_request` naming what is wrong with the archive.

    `target` gets a POSIX (pax) tar stream. `limit_bytes` bounds the files' content, so that a small archive
    cannot fill the disk.
    """
    try:
        with open_archive(source, limit_bytes=limit_bytes) as reader:
            writer = _Writer(target, edit, progress, limit_bytes)
            for entry in reader:
                writer.add(entry, reader)
            return writer.finish()
    except DAMAGE as error:
        raise bad_request(
            f"{source} is not a whole tar archive: {str(error) or type(error).__name__}",
            hint="give a tar file, plain or compressed with gzip, xz or zstd",
        ) from error
    except FileNotFoundError as error:
        raise Problem(
            Code.NOT_FOUND,
            f"there is no file {source}",
            hint=f"ls {source.parent}",
            outcome=Outcome.NOT_STARTED,
        ) from error
    except (IsADirectoryError, PermissionError) as error:
        raise bad_request(f"{source} cannot be read: {error.strerror}") from error


def normalise_name(untrusted_name: str) -> str:
    """The entry's name relative to the root, "" for the root itself. Refuses what leaves it."""
    if untrusted_name.startswith("/") or "\0" in untrusted_name:
        raise _unsafe(untrusted_name, "is absolute")
    parts = [part for part in untrusted_name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _unsafe(untrusted_name, "leaves the root")
    if len(untrusted_name) > _MAX_NAME:
        raise _unsafe(f"{untrusted_name[:40]}…", "has too long a name")
    return "/".join(parts)


def _unsafe(name: str, why: str) -> Problem:
    return bad_request(f"the archive's entry {name!r} {why}", hint="make the archive with: tar -C ROOT -c .")


class _Counted:
    """A pipe that knows how much went in, which is all that tarfile asks of a file it writes."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self._written = 0

    def write(self, content: bytes) -> int:
        self._target.write(content)
        self._written += len(content)
        return len(content)

    def tell(self) -> int:
        return self._written


class _Writer:
    """The state of one pass: which names were seen and as what, and how much went through."""

    def __init__(self, target: IO[bytes], edit: TreeEdit, progress: Progress, limit_bytes: int) -> None:
        self._tar = tarfile.TarFile(
            fileobj=cast("IO[bytes]", _Counted(target)),
            mode="w",
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
        )
        self._edit = edit
        self._progress = progress
        self._limit_bytes = limit_bytes
        self._kinds: dict[str, bytes] = {}
        self._names_size = 0
        self._seen = 0
        self._entries = 0
        self._size_bytes = 0
        self._told_bytes = 0
        self._os_release: dict[str, str] = {}

    def add(self, entry: tarfile.TarInfo, reader: Input) -> None:
        """Checks one entry and passes it on, unless it is to be left out."""
        name = normalise_name(entry.name)
        self._count(name)
        clean = tarfile.TarInfo(name or ".")
        clean.mode, clean.uid, clean.gid, clean.mtime = entry.mode & 0o7777, entry.uid, entry.gid, entry.mtime
        clean.pax_headers = {k: v for k, v in entry.pax_headers.items() if k.startswith(_KEPT_XATTRS)}
        clean.type = tarfile.REGTYPE if entry.isreg() else entry.type
        self._check_place(name, clean.type)
        if entry.ischr() or entry.isblk() or name.startswith("dev/") or self._edit.drops(name):
            return
        if entry.isreg():
            self._add_file(clean, entry, reader)
            return
        if entry.islnk():
            clean.linkname = self._check_hard_link(name, entry.linkname)
        elif entry.issym():
            clean.linkname = entry.linkname
        elif not (entry.isdir() or entry.isfifo()):
            raise _unsafe(name, f"has the unknown type {entry.type!r}")
        self._put(clean)

    def _count(self, name: str) -> None:
        self._seen += 1
        self._names_size += len(name)
        if self._seen > _MAX_ENTRIES or self._names_size > _NAMES_LIMIT:
            raise bad_request(f"the archive has more than {_MAX_ENTRIES} entries, or too long names")

    def _check_place(self, name: str, kind: bytes) -> None:
        """No parent may be anything but a directory, and no name may change what it is."""
        parent = name.rpartition("/")[0]
        while parent:
            if self._kinds.get(parent, tarfile.DIRTYPE) != tarfile.DIRTYPE:
                raise _unsafe(name, f"goes through {parent!r}, which is no directory")
            parent = parent.rpartition("/")[0]
        if kind != tarfile.DIRTYPE and (not name or name in MOUNT_POINTS):
            raise _unsafe(name or ".", "is no directory")
        if not name:
            return
        if self._kinds.setdefault(name, kind) != kind:
            raise _unsafe(name, "comes twice, as different things")

    def _check_hard_link(self, name: str, untrusted_target: str) -> str:
        target = normalise_name(untrusted_target)
        if self._kinds.get(target) not in (tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE):
            raise _unsafe(name, f"is a hard link to {untrusted_target!r}, which does not come before it")
        if self._edit.drops(target):
            raise _unsafe(name, f"is a hard link to {untrusted_target!r}, which is left out")
        return target

    def _add_file(self, clean: tarfile.TarInfo, entry: tarfile.TarInfo, reader: Input) -> None:
        clean.size = entry.size
        self._size_bytes += entry.size
        if self._size_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        content = reader.open(entry)
        if clean.name in _OS_RELEASE and entry.size <= _OS_RELEASE_LIMIT:
            data = content.read()
            self._os_release = self._os_release or parse_os_release(data.decode("utf-8", "replace"))
            self._put(clean, io.BytesIO(data))
        else:
            self._put(clean, content)
        if self._size_bytes - self._told_bytes >= _TOLD_EVERY_BYTES:
            self._told_bytes = self._size_bytes
            self._progress.tell(f"{render_size(self._size_bytes)} in {self._entries} entries")

    def _put(self, entry: tarfile.TarInfo, content: IO[bytes] | None = None) -> None:
        self._tar.addfile(entry, content)
        self._tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all
        self._entries += 1

    def finish(self) -> Copied:
        """Adds what the edit adds, and the end."""
        for name, mode in self._edit.directories.items():
            if name not in self._kinds:
                self._add_directory(name, mode)
        for name, file in self._edit.files.items():
            self._add_parents(name)
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = file.mode, len(file.content)
            self._put(entry, io.BytesIO(file.content))
        for name, target in self._edit.links.items():
            self._add_parents(name)
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
            self._put(entry)
        self._tar.close()
        return Copied(self._entries, self._size_bytes, self._os_release)

    def _add_parents(self, name: str) -> None:
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = "/".join(parts[:depth])
            kind = self._kinds.get(parent)
            if kind is None:
                self._add_directory(parent, 0o755)
            elif kind != tarfile.DIRTYPE:
                raise _unsafe(parent, "is no directory")

    def _add_directory(self, name: str, mode: int) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        self._kinds[name] = tarfile.DIRTYPE
        self._put(entry)


def parse_os_release(text: str) -> dict[str, str]:
    """os-release(5) as a mapping; quotes and control characters taken off, odd lines left out."""
    values = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and key.replace("_", "").isalnum():
            values[key] = "".join(c for c in value if c.isprintable()).strip("\"'")
    return values
