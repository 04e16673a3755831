"""Copies between this host and a guest, with the rights of who calls: what `banger vm cp` does.

Owns the host's side: which files are meant, by the rules of `docker cp`, and one connection while it copies. The guest
is not trusted: what it sends is unpacked by `base.trees.unpack`, below the directory that was named and nowhere else.
Raises Failure. Interrupted, it leaves no half-written file on either side.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from banger.base.problem import Problem
from banger.base.trees import headers
from banger.base.trees.names import UnsafeName, render_name, split_name
from banger.base.trees.pack import Packed, measure, pack
from banger.base.trees.unpack import Policy, Unpacked, unpack
from banger.client.file_stream import closing, read_stdin, receive, send, telling, write_stdout
from banger.client.wire import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from banger.base.trees.headers import Entry
    from banger.client.blocking import Connection
    from banger.client.file_stream import Told

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_UNNAMED = ("", "~", ".", "..")  # the last part of a path that gives a file no name


class Copied(NamedTuple):
    """What was done. `changed` are files that changed while they were read, `left_out` names with what they are."""

    entries: int
    size_bytes: int
    changed: list[str]
    left_out: list[str]


class Options(NamedTuple):
    """`follow`: copy what a symbolic link on the command line leads to. `into`: the destination must be a directory."""

    follow: bool = False
    archive: bool = False
    parents: bool = False
    into: bool = False
    user: str | None = None


class _Source(NamedTuple):
    """A file or directory of this host: in an open directory, by its name there."""

    parent: int
    name: bytes
    kind: str  # file or tree
    contents_only: bool
    size_bytes: int


def put(connection: Connection, vm: str, path: str, source: str, options: Options, told: Told) -> Copied:
    """A file, a link or a directory of this host into a guest. `told` hears of bytes done, and of all."""
    packed = Packed()
    with _open_source(source, options) as found, _translating("copying from this host"):
        command = connection.stream(
            "vm.put",
            _describe(vm, path, options, what=found.kind, into=options.into, archive=options.archive),
        )
        with closing(command):
            chunks = _pack_source(found, command.about.get("name"), packed)
            send(command, telling(chunks, lambda: packed.size_bytes, found.size_bytes, told))
    left_out = [f"{render_name(name)}: {why}" for name, why in packed.left_out]
    return Copied(packed.entries, packed.size_bytes, [render_name(name) for name in packed.changed], left_out)


def put_stdin(connection: Connection, vm: str, path: str, options: Options, told: Told) -> Copied:
    """Our stdin into a file of a guest, or as a tar stream into a directory."""
    params = _describe(vm, path, options, what="any", into=options.into, archive=options.archive)
    command = connection.stream("vm.put", params)
    done = 0

    def chunks() -> Iterator[bytes]:
        nonlocal done
        while data := read_stdin(command):
            done += len(data)
            yield data

    with closing(command):
        send(command, telling(chunks(), lambda: done, None, told))
    return Copied(1, done, [], [])


def get(connection: Connection, vm: str, path: str, destination: str, options: Options, told: Told) -> Copied:
    """A file, a link or a directory of a guest to this host."""
    if options.archive and os.geteuid() != 0:
        raise Failure(
            "unauthorized", "only root can give files to other owners here", hint="leave out --archive"
        )
    command = connection.stream("vm.get", _describe(vm, path, options, follow=options.follow))
    unpacked = Unpacked()
    with closing(command), _translating("copying to this host"):
        place = _find_place(path, destination, command.about, options)
        with _open_place(place) as directory:
            total = command.about.get("size_bytes")
            unpack(
                directory,
                telling(receive(command), lambda: unpacked.size_bytes, total, told),
                policy=Policy(specials="leave_out", keep_owners=options.archive),
                unpacked=unpacked,
                accept=_Renamer(command.about, place.name).accept,
            )
    left_out = [f"{render_name(name)}: {what}" for name, what in unpacked.left_out]
    return Copied(unpacked.entries, unpacked.size_bytes, [], left_out)


def get_stdout(connection: Connection, vm: str, path: str, options: Options, told: Told) -> Copied:
    """A guest's file to our stdout, or a directory as a tar stream."""
    command = connection.stream("vm.get", _describe(vm, path, options, plain=True))
    done = 0
    with closing(command):
        if command.about.get("what") == "directory" and os.isatty(1):
            raise Failure(
                "bad_request",
                f"{vm}:{path} is a directory: its tar stream is nothing for a terminal",
                hint="add: | tar -x",
            )
        for data in receive(command):
            write_stdout(data)
            done += len(data)
            told(done, command.about.get("size_bytes"))
    return Copied(1, done, [], [])


def _describe(vm: str, path: str, options: Options, **more: Any) -> dict[str, Any]:
    """The request. JSON holds text only."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise Failure(
            "bad_request",
            f"{render_name(path)} is not UTF-8, and cannot be named in a guest",
            hint="copy the directory that holds it",
        ) from None
    params = {"vm": vm, "path": path, "parents": options.parents, "user": options.user, **more}
    return {name: value for name, value in params.items() if value not in (None, False)}


# This host's files


@contextmanager
def _open_source(source: str, options: Options) -> Iterator[_Source]:
    contents_only = _names_contents(source)
    is_directory = contents_only or source.endswith("/")
    follow = options.follow or is_directory
    path = os.path.realpath(source) if follow else os.path.abspath(source)  # noqa: PTH100 (a link stays one)
    shown = render_name(source)
    try:
        found = os.lstat(path)
    except OSError as error:
        raise _host_failure(shown, error) from error
    if is_directory and not stat.S_ISDIR(found.st_mode):
        raise Failure("not_found", f"{shown} is no directory on this host")
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        raise Failure(
            "bad_request",
            f"{shown} is neither a file, a directory nor a link",
            hint=f"banger vm cp - VM:PATH < {shown}",
        )
    if not stat.S_ISLNK(found.st_mode) and not os.access(path, os.R_OK):
        raise Failure("unauthorized", f"{shown} cannot be read: permission denied on this host")
    parent, name = os.path.split(path)
    with _open_directory(parent, shown) as descriptor:
        is_tree = stat.S_ISDIR(found.st_mode)
        size_bytes = found.st_size if stat.S_ISREG(found.st_mode) else 0
        if is_tree:
            with _open_directory(path, shown) as below:
                size_bytes = measure(below)
        kind = "tree" if is_tree else "file"
        yield _Source(descriptor, os.fsencode(name), kind, contents_only or not name, size_bytes)


def _pack_source(found: _Source, name: str | None, packed: Packed) -> Iterator[bytes]:
    """Under the name that the guest's side wants, under its own, or, into a directory that is there, its contents."""
    if name is None and found.contents_only:
        directory = os.open(found.name or b".", _DIRECTORY, dir_fd=found.parent)
        try:
            yield from pack(directory, packed=packed)
        finally:
            os.close(directory)
        return
    stored = {} if name is None else {found.name: os.fsencode(name)}
    yield from pack(found.parent, [found.name], stored=stored, packed=packed)


class _Place(NamedTuple):
    """Where a copy goes on this host: a directory, and the name in it; None: everything under its own name."""

    directory: str
    name: bytes | None
    make: bool  # a directory of that name first


def _find_place(source: str, destination: str, about: dict[str, Any], options: Options) -> _Place:
    own_name = os.fsencode(str(about.get("name") or ""))
    is_tree = about.get("what") == "directory"
    contents_only = is_tree and (_names_contents(source) or not own_name)
    names_directory = _names_contents(destination) or destination.endswith("/")
    wants_directory = options.into or names_directory
    shown = render_name(destination)
    if not names_directory:
        _refuse_link_elsewhere(destination, shown)
    try:
        found = Path(destination).stat()
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise _host_failure(shown, error) from error
    if found is not None and stat.S_ISDIR(found.st_mode):
        name = None if contents_only else own_name
        if name and options.user and source.rstrip("/").rpartition("/")[2] in _UNNAMED:
            _refuse_guests_name(destination, name)
        return _Place(destination, name, is_tree and not contents_only and not about.get("top"))
    if found is not None:
        if is_tree or wants_directory:
            raise Failure("already_exists", f"{shown} is a file, not a directory", hint="name another one")
        if not stat.S_ISREG(found.st_mode):
            raise Failure("bad_request", f"{shown} is no regular file", hint=f"copy to -, and > {shown}")
        above, own = os.path.split(os.path.realpath(destination))
        return _Place(above, os.fsencode(own), False)
    if Path(destination).is_symlink():
        raise Failure("not_found", f"{shown} is a symbolic link to nothing", hint=f"rm {shown}")
    if wants_directory and (options.into or not is_tree):
        raise Failure("not_found", f"there is no directory {shown} on this host", hint=f"mkdir -p {shown}")
    above, own = os.path.split(os.path.abspath(destination))  # noqa: PTH100 (lexical, as docker cp does)
    return _Place(above, os.fsencode(own), is_tree and not about.get("top"))


def _refuse_link_elsewhere(destination: str, shown: str) -> None:
    """An earlier copy may have brought the link: then it is the guest that says where it leads."""
    if not Path(destination).is_symlink():
        return
    above, place = os.path.realpath(Path(destination).parent), os.path.realpath(destination)
    if os.path.commonpath((above, place)) != above:
        here = f"{shown}/" if Path(place).is_dir() else render_name(place)
        raise Failure(
            "bad_request",
            f"{shown} is a symbolic link out of its directory, to {render_name(place)}: refused",
            hint=f"if that is the place, name it: {here}",
        )


def _refuse_guests_name(destination: str, name: bytes) -> None:
    """Nobody has typed the name: it is that of a user's home, as the guest says. `cp -u ann web:~ .` must not land in
    the owner's `.ssh`."""
    if name.startswith(b".") or os.path.lexists(os.fsencode(destination) + b"/" + name):
        raise Failure(
            "already_exists",
            f"the guest calls it {render_name(name)}, which is hidden, or already in {render_name(destination)}",
            hint="give the copy a name: banger vm cp VM:~ ./home",
        )


@contextmanager
def _open_place(place: _Place) -> Iterator[int]:
    """The directory that the entries go below. `name` is a part of theirs, unless nothing says so but the place."""
    with _open_directory(place.directory, render_name(place.directory)) as directory:
        if not place.make or place.name is None:
            yield directory
            return
        try:
            os.mkdir(place.name, dir_fd=directory)
        except FileExistsError:
            pass
        except OSError as error:
            raise _host_failure(render_name(place.name), error) from error
        try:
            below = os.open(place.name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        except OSError as error:
            raise _host_failure(render_name(place.name), error) from error
        try:
            yield below
        finally:
            os.close(below)


class _Renamer:
    """Entries of a guest under the name they are to have here. Refuses what was not asked for."""

    def __init__(self, about: dict[str, Any], name: bytes | None) -> None:
        self._what = about.get("what")
        self._top = os.fsencode(str(about.get("name") or "")) if about.get("top") else None
        self._name = name
        self._seen = 0

    def accept(self, entry: Entry) -> Entry:
        self._seen += 1
        wrong = self._what != "directory" and (
            self._seen > 1 or entry.kind not in (headers.FILE, headers.SYMLINK)
        )
        if wrong:
            raise _unasked(entry)
        if self._top is None:
            return entry
        renamed = entry._replace(name=self._rename(entry, entry.name))
        if entry.kind == headers.HARD_LINK:
            renamed = renamed._replace(target=self._rename(entry, entry.target))
        return renamed

    def _rename(self, entry: Entry, name: bytes) -> bytes:
        try:
            parts = split_name(name)
        except UnsafeName:
            return name  # for the unpacker to refuse, with its reason
        if parts[:1] != (self._top,) or (self._what != "directory" and len(parts) > 1):
            raise _unasked(entry)
        renamed = (*(() if self._name is None else (self._name,)), *parts[1:])
        return b"/".join(renamed) or b"."


def _unasked(entry: Entry) -> Failure:
    return Failure(
        "operation_failed",
        f"the guest sends {render_name(entry.name)}, which nobody asked for: refused",
        outcome="failed",
    )


@contextmanager
def _open_directory(path: str, shown: str) -> Iterator[int]:
    try:
        descriptor = os.open(path, _DIRECTORY)
    except OSError as error:
        raise _host_failure(render_name(path) if error.filename else shown, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _names_contents(path: str) -> bool:
    """`DIR/.` and `.`: what is in it, not the directory itself."""
    return path.rpartition("/")[2] == "."


def _host_failure(shown: str, error: OSError) -> Failure:
    if isinstance(error, FileNotFoundError):
        return Failure("not_found", f"there is no file {shown} on this host")
    if isinstance(error, PermissionError):
        return Failure("unauthorized", f"{shown}: permission denied on this host")
    return Failure("operation_failed", f"{shown} on this host: {error.strerror}")


@contextmanager
def _translating(doing: str) -> Iterator[None]:
    try:
        yield
    except Problem as problem:
        raise Failure(
            problem.code.value,
            f"{doing}: {problem.brief}",
            hint=problem.hint,
            detail=problem.detail,
            outcome=problem.outcome.value,
        ) from problem
