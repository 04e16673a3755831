"""Links in git's own directory, which it would follow out of the repository. Blocks.

git reads objects and refs through links, and writes refs and reflogs through them. Whoever made the directory may have
laid some: into another repository, whose objects would then go into a guest, or to a file of the owner's, to which a
line would then be added. Owns what is refused there; looks at the kind of each entry, at no content.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

from banger.base.problem import Problem, bad_request
from banger.model.returned import show_path

_ENTRIES_MAX = 2_000_000  # objects and refs that are files of their own; git packs objects at 6,700
_FOLLOWED = (
    "HEAD",
    "commondir",
    "config",
    "config.worktree",
    "gitdir",
    "index",
    "logs",
    "logs/HEAD",
    "objects",
    "packed-refs",
    "refs",
    "reftable",
    "shallow",
)


def require_no_links(root: Path, git_dir: Path, common: Path) -> None:
    """That what git reads as objects, refs and configuration is the repository's own. Raises `bad_request`."""
    objects = common / "objects"
    try:
        for above in {git_dir, common}:
            names = [*_FOLLOWED, *(each.name for each in above.glob("sharedindex.*"))]
            for name in names:
                if _is_strange(above / name):
                    raise (
                        borrows(root, above / name) if name == "objects" else _leads_away(root, above / name)
                    )
        for link in _find_strange(root, objects):
            raise borrows(root, link)
        for top in {above / name for above in (git_dir, common) for name in ("refs", "reftable")}:
            for link in _find_strange(root, top):
                raise _leads_away(root, link)
    except OSError as error:
        raise bad_request(
            f"the repository in {_show(root)} cannot be read: {error.strerror}",
            hint=f"git -C {_show(root)} fsck",
        ) from error


def require_own_refs(root: Path, git_dir: Path, common: Path, refs: Iterable[str]) -> None:
    """That writing the refs and their reflogs writes nothing else. git writes the reflog of a HEAD that names one of
    them, too. Raises `bad_request`."""
    ways = [(git_dir, "logs/HEAD"), (common, "packed-refs")]
    ways += [(common, above + ref) for ref in refs for above in ("", "logs/")]
    for top, way in ways:
        for place in accumulate(way.split("/"), lambda above, part: above / part, initial=top):
            if place != top and _is_strange(place):
                raise _leads_away(root, place)


def borrows(root: Path, where: Path) -> Problem:
    return bad_request(
        f"the repository in {_show(root)} borrows objects of another ({_show(where)})",
        hint=f"git -C {_show(root)} repack -a -d && rm .git/objects/info/alternates; or clone it, and name the clone",
    )


def _leads_away(root: Path, place: Path) -> Problem:
    return bad_request(
        f"the repository in {_show(root)} is not all its own: {_show(place)} is a link, or no file",
        hint=f"ls -l {_show(place)}; clone the repository, and name the clone",
    )


def _find_strange(root: Path, top: Path) -> Iterator[Path]:
    """What is neither file nor directory, at any depth. Asks the directories only, not each file."""
    left = _ENTRIES_MAX
    below = [os.fspath(top)]
    while below:
        try:
            entries = os.scandir(below.pop())
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                left -= 1
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)
        if left < 0:
            raise bad_request(
                f"the repository in {_show(root)} has more than {_ENTRIES_MAX} files in {_show(top)}",
                hint=f"git -C {_show(root)} gc",
            )


def _is_strange(place: Path) -> bool:
    """Something other than a file or a directory."""
    try:
        kind = place.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))


def _show(path: Path) -> str:
    return show_path(os.fsencode(path))
