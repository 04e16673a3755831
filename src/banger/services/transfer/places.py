"""Paths in a guest as people write them, and what is there. Asks the guest; owns nothing.

The rules are those of `docker cp`: what is copied goes into a directory that is there, and under the name that was
given otherwise.
"""

import posixpath
import re
import stat
from typing import NamedTuple

from banger.base.problem import Code, Outcome, Problem, bad_request, not_found
from banger.guest.agent import Agent
from banger.guest.entries import Entry
from banger.guest.errors import GuestProblem, describe_error

_ENOENT = 2
_PASSWD_BYTES = 1024**2
_MAX_LINKS = 40  # as many as Linux follows
_ROOT_HOME = "/root"
_NUMBER = re.compile(r"[0-9]{1,10}")
_NOBODY = 2**32 - 1  # leaves an owner as it is (chown(2))


class User(NamedTuple):
    uid: int
    gid: int
    home: str


class Place(NamedTuple):
    """A path in a guest, absolute and without `..`. `shown` is how messages name it: VM:PATH as it was written."""

    path: str
    is_directory: bool
    shown: str

    @property
    def parent(self) -> str:
        return posixpath.dirname(self.path)

    @property
    def name(self) -> str:
        """Empty for `/`."""
        return posixpath.basename(self.path)


class Source(NamedTuple):
    """What is copied out: `file`, `directory` or `link`. `is_followed`: a link was named, and this is what it leads
    to."""

    what: str
    size_bytes: int | None
    is_followed: bool


class Destination(NamedTuple):
    """Where entries go: below a directory, under a name or each under its own."""

    directory: str
    name: str | None

    @property
    def path(self) -> str:
        return posixpath.join(self.directory, self.name or "")


def parse_place(vm_name: str, untrusted_path: str, home: str) -> Place:
    if "\0" in untrusted_path:
        raise bad_request("a path has a zero byte in it")
    path = untrusted_path
    if path == "~" or path.startswith("~/"):
        path = "." + path[1:]
    whole = posixpath.normpath(posixpath.join(home, path)).replace("//", "/", 1)
    is_directory = path.rpartition("/")[2] in ("", ".", "..")
    return Place(whole, is_directory, f"{vm_name}:{_show(untrusted_path)}")


def _show(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


async def find_user(agent: Agent, untrusted_user: str | None) -> User:
    """By name or `uid[:gid]`; root without one. Raises `bad_request` for a name that the guest does not know."""
    rows = await _read_passwd(agent)
    uid, _, gid = (untrusted_user or "root").partition(":")
    if _is_number(uid) and (not gid or _is_number(gid)):
        row = next((row for row in rows if int(row[2]) == int(uid)), None)
        home = row[5] if row else "/"
        return User(int(uid), int(gid or (row[3] if row else uid)), home)
    row = next((row for row in rows if row[0] == untrusted_user), None)
    if row is None and untrusted_user in (None, "root"):
        return User(0, 0, _ROOT_HOME)
    if row is None or gid:
        raise bad_request(f"the guest has no user {untrusted_user!r}", hint="give its number: -u UID:GID")
    return User(int(row[2]), int(row[3]), row[5])


async def _read_passwd(agent: Agent) -> list[list[str]]:
    content = b""
    try:
        async with agent.file_read("/etc/passwd", length=_PASSWD_BYTES) as download:
            async for data in download:
                content += data[: _PASSWD_BYTES - len(content)]
                if len(content) == _PASSWD_BYTES:  # a hostile agent sends on and on
                    break
    except GuestProblem as problem:
        if problem.errno != _ENOENT:
            raise
    rows = [line.split(":") for line in content.decode("utf-8", "replace").splitlines()]
    return [
        row
        for row in rows
        if len(row) >= 6 and _is_number(row[2]) and _is_number(row[3]) and row[5][:1] == "/"
    ]


def _is_number(word: str) -> bool:
    return _NUMBER.fullmatch(word) is not None and int(word) < _NOBODY


async def find_entry(agent: Agent, path: str, *, follow: bool) -> Entry | None:
    try:
        return await agent.file_stat(path, follow_links=follow)
    except GuestProblem as problem:
        if problem.errno == _ENOENT:
            return None
        raise


async def settle_source(agent: Agent, place: Place, *, follow: bool) -> Source:
    """What is to be copied out. Raises `not_found`, and `bad_request` for what is neither file, directory nor link."""
    entry = direct = await find_entry(agent, place.path, follow=False)
    if direct is not None and stat.S_ISLNK(direct.mode) and (follow or place.is_directory):
        entry = await find_entry(agent, place.path, follow=True)
    if entry is None:
        raise _missing(f"there is no file {place.shown}")
    if place.is_directory and not stat.S_ISDIR(entry.mode):
        raise _missing(f"{place.shown} is no directory")
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    what = kinds.get(stat.S_IFMT(entry.mode))
    if what is None:
        raise bad_request(f"{place.shown} is neither a file, a directory nor a link")
    return Source(what, None if what == "directory" else entry.size_bytes, entry is not direct)


async def settle_destination(
    agent: Agent, place: Place, *, tree: bool, into: bool, parents: bool
) -> Destination:
    """Raises before anything is written: `not_found` for a directory that should be there, `already_exists` for a file
    where a directory should go."""
    entry = await find_entry(agent, place.path, follow=True)
    if entry is not None and stat.S_ISDIR(entry.mode):
        return Destination(place.path, None)
    if entry is not None and (tree or into or place.is_directory):
        raise Problem(
            Code.ALREADY_EXISTS,
            f"{place.shown} is a file, not a directory",
            hint="name another destination",
            outcome=Outcome.NOT_STARTED,
        )
    if entry is not None and not stat.S_ISREG(entry.mode):
        raise bad_request(f"{place.shown} is no regular file", hint="name a file or a directory")
    if entry is not None:
        path = await _follow(agent, place.path)
        return Destination(posixpath.dirname(path), posixpath.basename(path))
    if parents and (into or (place.is_directory and not tree)):
        return Destination(place.path, None)
    if into or (place.is_directory and not tree):
        raise _missing(f"there is no directory {place.shown}", "give --parents to have it made")
    await _require_parent(agent, place, parents=parents)
    return Destination(place.parent, place.name)


async def _require_parent(agent: Agent, place: Place, *, parents: bool) -> None:
    if await find_entry(agent, place.path, follow=False) is not None:
        raise _missing(f"{place.shown} is a symbolic link to nothing", "remove it first")
    above = await find_entry(agent, place.parent, follow=True)
    if above is None and not parents:
        raise _missing(
            f"there is no directory {_show(place.parent)} in the guest", "give --parents to have it made"
        )
    if above is not None and not stat.S_ISDIR(above.mode):
        raise _missing(f"{place.shown} lies below a file")


async def _follow(agent: Agent, untrusted_path: str) -> str:
    """The file that a path leads to: it is replaced, not the link."""
    path = untrusted_path
    for _ in range(_MAX_LINKS):
        entry = await find_entry(agent, path, follow=False)
        if entry is None or not stat.S_ISLNK(entry.mode) or entry.target is None:
            break
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.target))
    if not path.isprintable():
        raise bad_request(f"the link {_show(untrusted_path)} leads to a name that cannot be told")
    return path


async def find_owner(agent: Agent, directory: str) -> tuple[int, int]:
    """Whose what is made in the directory becomes, when nobody says."""
    entry = await find_entry(agent, directory, follow=True)
    return (entry.uid, entry.gid) if entry is not None else (0, 0)


def explain(problem: GuestProblem, shown: str) -> GuestProblem:
    """The guest's failure with the path as it was written; what it says about an entry below stays as the detail."""
    vm = shown.partition(":")[0]
    hint = f"banger vm exec {vm} -- df -h" if problem.code is Code.NO_SPACE else problem.hint
    return GuestProblem(
        problem.errno,
        f"{shown}: {describe_error(problem.errno)}",
        detail=problem.detail,
        hint=hint,
        outcome=problem.outcome,
    )


def _missing(brief: str, hint: str | None = None) -> Problem:
    return not_found(brief, hint=hint)
