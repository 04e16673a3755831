"""The files of a repository on the host that speak of tools. Blocking; writes nothing.

Reads the closed list of `model.tooling.plan` and nothing else, through no symbolic link, and of each file no more than
the plan takes: somebody else may have made the repository.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from banger.base.problem import bad_request, not_found
from banger.model.tooling.plan import (
    CONTENT_MAX_BYTES,
    FILES,
    PRESENCE_ONLY,
    ToolPlan,
    ToolWarning,
    plan_tools,
)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


class Place(NamedTuple):
    """A repository's root, and where below it somebody works."""

    root: Path
    subdirectory: str


def find_place(untrusted_path: str) -> Place:
    """The repository that a directory is in; the directory itself where it is in none. Raises `bad_request`,
    `not_found`."""
    if not untrusted_path.startswith("/") or "\0" in untrusted_path:
        raise bad_request(
            f"{untrusted_path!r} is not an absolute path", hint=f"name {os.sep}… or use the command line"
        )
    path = Path(os.path.realpath(untrusted_path))
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
        raise not_found(f"{untrusted_path} {what}", hint="name the directory of a repository")
    root = next((each for each in (path, *path.parents) if (each / ".git").exists()), path)
    return Place(root, "" if root == path else str(path.relative_to(root)))


def read_plan(place: Place) -> ToolPlan:
    """Raises `not_found` for a directory that is not there any more."""
    contents: dict[str, bytes] = {}
    warnings: list[ToolWarning] = []
    with _open_root(place.root) as root:
        for directory in dict.fromkeys((place.subdirectory, "")):
            for name in FILES:
                path = f"{directory}/{name}" if directory else name
                try:
                    content = _read(root, path, 0 if name in PRESENCE_ONLY else CONTENT_MAX_BYTES + 1)
                except OSError as error:
                    if error.errno not in _ABSENT:
                        warnings.append(ToolWarning(file=path, line=1, text=_explain(error)))
                else:
                    contents[path] = content
    plan = plan_tools(contents, subdirectory=place.subdirectory)
    return msgspec.structs.replace(plan, warnings=(*warnings, *plan.warnings))


@contextmanager
def _open_root(root: Path) -> Iterator[int]:
    try:
        descriptor = os.open(root, _DIRECTORY)
    except OSError as error:
        raise not_found(f"{root} cannot be read: {error.strerror}", hint=f"ls -ld {root}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(root: int, path: str, size_max: int) -> bytes:
    """A regular file below the root's descriptor, its beginning. Raises OSError; ELOOP for a symbolic link."""
    *directories, name = path.split("/")
    at = os.dup(root)
    try:
        for directory in directories:
            below = os.open(directory, _DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        descriptor = os.open(name, _FILE, dir_fd=at)
    finally:
        os.close(at)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        return file.read(size_max)


def _explain(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a symbolic link, which is not followed"
    return f"it cannot be read: {error.strerror}"
