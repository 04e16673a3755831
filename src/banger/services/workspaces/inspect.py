"""A repository on the host as it is: where it is, what is checked out, who commits. Writes nothing.

Refuses what git would follow out of the repository: a `.git` that points to a place which does not point back, a
`core.worktree` elsewhere, objects borrowed from another repository, links among git's own files. Somebody else may
have made the directory.
"""

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

from banger.base.problem import Code, Outcome, Problem, bad_request, not_found
from banger.base.process import Completed
from banger.base.tasks import in_thread
from banger.model.returned import show_path
from banger.model.workspace import is_object_id, strip_url
from banger.services.workspaces.git import GitPlace, git_failed, run_git
from banger.services.workspaces.links import borrows, require_no_links

_CONFIG = r"^(user\.(name|email)|remote\.origin\.url|core\.(autocrlf|eol|worktree))$"


class Repository(NamedTuple):
    """`root` holds the working tree, `git_dir` what is this one's alone, `common` what it shares with its worktrees.
    `head` is empty before the first commit, `branch` where HEAD is detached.
    `borders` are the commits whose parents the host itself does not have."""

    root: Path
    prefix: str
    git_dir: Path
    common: Path
    object_format: str
    head: str
    branch: str
    origin: str | None
    identity: tuple[str, str]
    line_ends: tuple[tuple[str, str], ...]
    borders: tuple[str, ...]

    @property
    def place(self) -> GitPlace:
        return GitPlace(self.root)

    @property
    def objects(self) -> Path:
        return self.common / "objects"

    @property
    def shown(self) -> str:
        """Where it is, for people."""
        return _show(self.root)

    @property
    def is_detached(self) -> bool:
        return not self.branch


async def inspect(untrusted_path: str) -> Repository:
    """The repository that a directory is in. Raises `bad_request`, `not_found`, `unauthorized`."""
    here = GitPlace(_require_directory(untrusted_path))
    asked = ("rev-parse", "--is-bare-repository", "--is-inside-git-dir", "--absolute-git-dir")
    done = await run_git(here, asked, check=False)
    if done.status != 0:
        raise _no_repository(here.directory, done)
    bare, inside, git_dir = _lines(here.directory, done, 3)
    if bare == "true":
        raise bad_request(
            f"{_show(here.directory)} is a bare repository and has no working tree",
            hint=f"git clone {_show(here.directory)} clone, and name that",
        )
    if inside == "true":
        raise bad_request(
            f"{_show(here.directory)} is git's own directory", hint="name the working tree above it"
        )
    names = ("--path-format=absolute", "--show-toplevel", "--show-object-format", "--git-common-dir")
    done = await run_git(here, ("rev-parse", *names))
    root, object_format, common = _lines(here.directory, done, 3)
    config = await _read_config(here)
    _require_own(here.directory, Path(root), Path(git_dir), Path(common), config.get("core.worktree"))
    await in_thread(require_no_links, Path(root), Path(git_dir), Path(common))
    _require_own_objects(Path(common), Path(root))
    place = GitPlace(Path(root))
    head = await find_commit(place, "HEAD")
    named = await run_git(place, ("symbolic-ref", "-q", "HEAD"), check=False)
    branch = _printable(_text(named.stdout)).strip().removeprefix("refs/heads/")
    origin = config.get("remote.origin.url")
    return Repository(
        root=Path(root),
        prefix="" if here.directory == Path(root) else str(here.directory.relative_to(root)),
        git_dir=Path(git_dir),
        common=Path(common),
        object_format=object_format,
        head=head or "",
        branch=branch,
        origin=strip_url(origin) if origin else None,
        identity=(config.get("user.name", ""), config.get("user.email", "")),
        line_ends=tuple((key, config[key]) for key in ("core.autocrlf", "core.eol") if key in config),
        borders=_read_borders(Path(common), Path(root)),
    )


async def find_commit(place: GitPlace, untrusted_name: str) -> str | None:
    """The id of a commit that the host has."""
    if not untrusted_name or untrusted_name.startswith("-") or "\0" in untrusted_name:
        return None
    asked = ("rev-parse", "-q", "--verify", f"{untrusted_name}^{{commit}}")
    done = await run_git(place, asked, check=False)
    found = _text(done.stdout).strip()
    return found if done.status == 0 and is_object_id(found) else None


async def get_commit(repository: Repository, untrusted_name: str) -> str:
    """Raises `bad_request` for what is no commit of the repository."""
    found = await find_commit(repository.place, untrusted_name)
    if found is None:
        raise bad_request(
            f"{untrusted_name[:80]!r} is no commit of {repository.shown}",
            hint=f"git -C {repository.shown} log --oneline; git fetch brings those of others",
        )
    return found


def _require_directory(untrusted_path: str) -> Path:
    if not untrusted_path.startswith("/") or "\0" in untrusted_path:
        raise bad_request(f"{untrusted_path!r} is not an absolute path", hint="banger vm run ./repo")
    shown = show_path(os.fsencode(untrusted_path))
    try:
        path = Path(untrusted_path).resolve(strict=True)
        if not path.is_dir():
            raise bad_request(f"{shown} is not a directory", hint=f"name {_show(path.parent)}")
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except FileNotFoundError as error:
        raise not_found(
            f"there is no directory {shown}",
            hint="name the directory where the repository is now; a command comes behind --",
        ) from error
    except PermissionError as error:
        raise _unauthorized(f"{shown} cannot be read: permission denied", f"ls -ld {shown}") from error
    except OSError as error:
        raise bad_request(f"{shown} cannot be read: {error.strerror}") from error
    return path


def _unauthorized(brief: str, hint: str) -> Problem:
    return Problem(Code.UNAUTHORIZED, brief, hint=hint, outcome=Outcome.NOT_STARTED)


def _no_repository(path: Path, done: Completed) -> Problem:
    words, shown = _text(done.stderr), _show(path)
    if "dubious ownership" in words:
        return _unauthorized(
            f"{shown} is in a repository of another owner",
            f"git config --global --add safe.directory {shown}",
        )
    if "not a git repository" in words:
        return bad_request(f"{shown} is not in a git repository", hint=f"git -C {shown} init")
    return git_failed(done)


async def _read_config(place: GitPlace) -> dict[str, str]:
    done = await run_git(place, ("config", "-z", "--get-regexp", _CONFIG), check=False)
    if done.status not in (0, 1):
        raise git_failed(done)
    entries = (entry.partition("\n") for entry in _text(done.stdout).split("\0") if entry)
    return {key: _printable(value) for key, separator, value in entries if separator}


def _require_own(path: Path, root: Path, git_dir: Path, common: Path, worktree: str | None) -> None:
    """That the directory's repository is this one, and that it is its own."""
    dot_git = root / ".git"
    try:
        kind = dot_git.lstat().st_mode
        is_own = path.is_relative_to(root) and (
            _is_same(dot_git, git_dir) and _is_same(common, git_dir)
            if stat.S_ISDIR(kind)
            else stat.S_ISREG(kind) and _points_back(dot_git, git_dir, common, worktree)
        )
    except OSError:
        is_own = False
    if not is_own:
        raise bad_request(
            f"{_show(path)} points to a repository elsewhere that does not know it",
            hint=f"git worktree repair {_show(root)}, run where that repository is, or clone it",
        )


def _points_back(dot_git: Path, git_dir: Path, common: Path, worktree: str | None) -> bool:
    """gitrepository-layout(5): a worktree's directory names its `.git`; a submodule's configuration its tree."""
    if not _is_same(git_dir, common):
        back = git_dir / "gitdir"
        named = Path(os.fsdecode(_read_small(back).strip()))
        return _is_same(git_dir.parent.parent, common) and _is_same(git_dir / named, dot_git)
    return worktree is not None and _is_same(git_dir / worktree, dot_git.parent)


def _require_own_objects(common: Path, root: Path) -> None:
    alternates = common / "objects" / "info" / "alternates"
    try:
        lines = _read_small(alternates).splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        raise borrows(root, alternates) from error
    borrowed = [line for line in lines if line.strip() and not line.startswith(b"#")]
    if borrowed:
        raise borrows(root, Path(os.fsdecode(borrowed[0])))


def _read_borders(common: Path, root: Path) -> tuple[str, ...]:
    try:
        words = _read_small(common / "shallow", 64 << 20).decode("ascii", "replace").split()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise bad_request(
            f"{_show(common / 'shallow')} cannot be read: {error.strerror}", hint=f"git -C {_show(root)} fsck"
        ) from error
    return tuple(word for word in words if is_object_id(word))


def _read_small(path: Path, limit_bytes: int = 1 << 20) -> bytes:
    """Of a plain file; nothing that would wait, and no link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit_bytes)
    finally:
        os.close(descriptor)


def _is_same(one: Path, other: Path) -> bool:
    return one.samefile(other)


def _text(raw: bytes) -> str:
    return os.fsdecode(raw)


def _printable(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "replace")


def _show(path: Path) -> str:
    return show_path(os.fsencode(path))


def _lines(path: Path, done: Completed, count: int) -> list[str]:
    lines = _text(done.stdout).removesuffix("\n").split("\n")
    if len(lines) != count:
        raise bad_request(f"the repository of {_show(path)} has a line break in its path", hint="rename it")
    return lines
