"""Repositories for tests, and changes to them, as data.

A list of steps can be done here (`perform`) or rendered as a shell script and done in a guest (`render_script`): both
leave the same files. `read_working_tree` is the oracle: what of a working tree git would keep, read without git's
index or filters. `corpus` has the nasty ones by name, `repositories()` makes random ones.
"""

import base64
import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from hypothesis import strategies as st

ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "A U Thor",
    "GIT_AUTHOR_EMAIL": "author@example.com",
    "GIT_COMMITTER_NAME": "C O Mitter",
    "GIT_COMMITTER_EMAIL": "committer@example.com",
    "GIT_AUTHOR_DATE": "2024-02-03T04:05:06+0100",
    "GIT_COMMITTER_DATE": "2024-02-03T04:05:06+0100",
    "GIT_ALLOW_PROTOCOL": "file",
}
GIT = ("git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", "-c", "gc.auto=0")


class Write(NamedTuple):
    """A regular file; whatever is in its way goes."""

    path: bytes
    content: bytes = b""
    mode: int = 0o644


class Link(NamedTuple):
    path: bytes
    target: bytes


class Directory(NamedTuple):
    path: bytes


class Remove(NamedTuple):
    """A file, a link or a whole directory; nothing when it is not there."""

    path: bytes


class Move(NamedTuple):
    source: bytes
    target: bytes


class Git(NamedTuple):
    """git with these arguments, in a directory of the working tree."""

    arguments: tuple[str | bytes, ...]
    inside: bytes = b"."


Step = Write | Link | Directory | Remove | Move | Git
Steps = Sequence[Step]


def git(*arguments: str | bytes) -> Git:
    return Git(arguments)


def commit(message: str = "a change") -> tuple[Step, ...]:
    """Everything that git does not ignore."""
    return git("add", "-A"), git("commit", "--quiet", "--allow-empty", "--no-verify", "-m", message)


class Case(NamedTuple):
    """`before` is committed unless the repository is to be unborn; `overlay` is what the host has changed and not
    committed; `change` happens in the guest. `make` builds what steps cannot, and returns the working tree."""

    name: str
    before: Steps = ()
    overlay: Steps = ()
    change: Steps = ()
    object_format: str = "sha1"
    commits: bool = True
    make: Callable[[Path, "Case"], Path] | None = None

    def build(self, directory: Path) -> Path:
        """The working tree, at a place of its own below the directory."""
        directory.mkdir(parents=True, exist_ok=True)
        tree = self.make(directory, self) if self.make else make_plain(directory / "host", self)
        perform(tree, self.overlay)
        return tree


def make_plain(tree: Path, case: Case) -> Path:
    tree.mkdir(parents=True)
    run_git(tree, "init", "--quiet", f"--object-format={case.object_format}")
    perform(tree, case.before)
    if case.commits:
        perform(tree, commit("before"))
    return tree


def run_git(
    tree: Path,
    *arguments: str | bytes,
    input_: bytes = b"",
    check: bool = True,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    done = subprocess.run(
        [*GIT, *arguments],
        cwd=tree,
        env=ENVIRONMENT | environment,
        input=input_,
        capture_output=True,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"git {arguments}: {done.returncode}\n{done.stderr.decode(errors='replace')}")
    return done.stdout


def perform(tree: Path, steps: Iterable[Step]) -> None:
    for step in steps:
        match step:
            case Git(arguments, inside):
                run_git(tree / os.fsdecode(inside), *arguments)
            case Write(path, content, mode):
                file = _make_room(tree, path)
                file.write_bytes(content)
                file.chmod(mode)
            case Link(path, target):
                os.symlink(target, os.fsencode(_make_room(tree, path)))
            case Directory(path):
                _make_room(tree, path).mkdir()
            case Remove(path):
                _remove(tree / os.fsdecode(path))
            case Move(source, target):
                _move(tree, source, target)


def _move(tree: Path, source: bytes, target: bytes) -> None:
    """Into itself, or of nothing, is no move."""
    start = tree / os.fsdecode(source)
    if not os.path.lexists(start) or target == source or target.startswith(source + b"/"):
        return
    if source.startswith(target + b"/"):
        return
    start.rename(_make_room(tree, target))


def _make_room(tree: Path, path: bytes) -> Path:
    place = tree
    *parents, name = path.split(b"/")
    for parent in parents:
        place = place / os.fsdecode(parent)
        if place.is_symlink() or not place.is_dir():
            _remove(place)
            place.mkdir()
    _remove(place / os.fsdecode(name))
    return place / os.fsdecode(name)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        try:
            path.unlink()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
    else:
        shutil.rmtree(path)


def render_script(steps: Iterable[Step]) -> bytes:
    """For `sh -s` in the root of the working tree; needs base64 and git there."""
    lines = [b"set -e", b"umask 022"]
    lines += [
        b"export %s=%s" % (key.encode(), _quote(value.encode()))
        for key, value in ENVIRONMENT.items()
        if key.startswith("GIT_")
    ]
    for step in steps:
        lines += _render(step)
    return b"\n".join(lines) + b"\n"


def _render(step: Step) -> list[bytes]:
    match step:
        case Git(arguments, inside):
            words = [*GIT, "-C", inside, *arguments]
            line = b" ".join(_quote(w.encode() if isinstance(w, str) else w) for w in words)
            return [line + b" </dev/null >/dev/null"]
        case Write(path, content, mode):
            put = b"base64 -d >%s <<'EOF'\n%s\nEOF" % (_place(path), base64.encodebytes(content).strip())
            return [*_render_room(path), put, b"chmod %o %s" % (mode, _place(path))]
        case Link(path, target):
            return [*_render_room(path), b"ln -s -- %s %s" % (_quote(target), _place(path))]
        case Directory(path):
            return [*_render_room(path), b"mkdir -- " + _place(path)]
        case Remove(path):
            return [b"rm -rf -- " + _place(path)]
        case Move(source, target):
            room = b"\n".join(_render_room(target))
            return [
                b"if [ -e %s ] || [ -L %s ]; then\n%s\nmv -T -- %s %s\nfi"
                % (_place(source), _place(source), room, _place(source), _place(target))
            ]


def _render_room(path: bytes) -> list[bytes]:
    lines, place = [], b"."
    *parents, name = path.split(b"/")
    for parent in parents:
        place += b"/" + parent
        lines.append(b"[ -d %s ] && [ ! -L %s ] || { rm -rf -- %s; mkdir -- %s; }" % ((_quote(place),) * 4))
    return [*lines, b"rm -rf -- " + _quote(place + b"/" + name)]


def _place(path: bytes) -> bytes:
    return _quote(b"./" + path)


def _quote(word: bytes) -> bytes:
    return b"'" + word.replace(b"'", b"'\\''") + b"'"


# The oracle

Tree = dict[bytes, tuple[str, bytes]]


def read_working_tree(tree: Path) -> Tree:
    """What git would keep of a working tree, byte for byte: the kind (file, program, link, nested) and the content of
    each path that is tracked or neither tracked nor ignored, and is there."""
    names = run_git(tree, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split(b"\0")
    return read_paths(tree, names)


def read_paths(tree: Path, names: Iterable[bytes]) -> Tree:
    """Those of them that are there, tracked or not."""
    return {name: read for name in names if name and (read := _read(tree, name)) is not None}


def has_link_loops(tree: Path) -> bool:
    """Whether a link leads to itself, by itself or by others: `git apply` does not put a directory in its place."""
    return any(_is_loop(path) for path in tree.rglob("*") if path.is_symlink())


def _is_loop(link: Path) -> bool:
    try:
        link.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def write_tree(tree: Path, names: Iterable[bytes]) -> bytes:
    """The tree that plain git makes of these files."""
    index = {"GIT_INDEX_FILE": str(tree.parent / f"{tree.name}.index")}
    run_git(tree, "update-index", "--add", "-z", "--stdin", input_=b"\0".join(names), environment=index)
    return run_git(tree, "write-tree", environment=index)


def _read(tree: Path, name: bytes) -> tuple[str, bytes] | None:
    path = os.fsencode(tree) + b"/" + name.rstrip(b"/")
    try:
        state = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return None
    if any(os.path.islink(os.fsencode(tree) + b"/" + above) for above in _parents(name)):
        return None
    if stat.S_ISLNK(state.st_mode):
        return "link", os.readlink(path)
    if stat.S_ISDIR(state.st_mode):
        is_repository = name.endswith(b"/") or os.path.lexists(path + b"/.git")
        return ("nested", b"") if is_repository else None
    return ("program" if state.st_mode & 0o100 else "file"), Path(os.fsdecode(path)).read_bytes()


def _parents(name: bytes) -> list[bytes]:
    parts = name.rstrip(b"/").split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]


# Random ones

_SEGMENTS = (
    b"a", b"b", b"src", b"a b", b"-x", b"new\nline", b"tab\there", b'quo"te', b"back\\slash", b"\xff\xfe", b"\xc3\xa4",
    b"HEAD", b"*.c", b" lead", b"trail ", b"--help", b"#", b":(top)", b"..x", b"a.txt", b".gitmodulesx", b"e=mc2", b"%s",
)  # fmt: skip
_PATHS = st.lists(st.sampled_from(_SEGMENTS), min_size=1, max_size=3).map(b"/".join)
_CONTENTS = st.one_of(
    st.just(b""),
    st.binary(max_size=200),
    st.lists(st.sampled_from((b"one", b"two", b"three", b"-- ", b"@@ -1 +1 @@", b"\r", b"", b"diff --git a/x b/x")), max_size=12).map(
        b"\n".join
    ),
    st.integers(1, 60).map(lambda count: b"".join(b"line %d\n" % n for n in range(count))),
    st.sampled_from((b"crlf\r\nlines\r\n", b"mixed\r\nlines\n", b"no newline", b"\0", b"x" * 5000, b"$Id$\n")),
)  # fmt: skip
_TARGETS = st.sampled_from(
    (b"a", b"../outside", b"/etc/passwd", b"nowhere", b".", b"\xff", b"a b", b"src/../a")
)
_WRITES = st.builds(Write, _PATHS, _CONTENTS, st.sampled_from((0o644, 0o755)))
_LINKS = st.builds(Link, _PATHS, _TARGETS)
_FILES = st.one_of(_WRITES, _WRITES, _WRITES, _LINKS, st.builds(Directory, _PATHS))
_ATTRIBUTES = st.sampled_from(
    (
        None, b"* text=auto\n", b"*.txt text eol=crlf\n", b"* -diff\n", b"* binary\n", b"a* filter=none diff=none\n",
        b"* text=auto eol=crlf\n", b"b ident\n", b"src/** export-subst merge=union\n",
    )
)  # fmt: skip
_IGNORES = st.sampled_from((None, b"b\n", b"*\n!a\n", b"src/\n", b"*.txt\n"))


@st.composite
def _changes(draw: st.DrawFn) -> tuple[Step, ...]:
    steps: list[Step] = []
    for _ in range(draw(st.integers(0, 8))):
        match draw(st.integers(0, 9)):
            case 0 | 1 | 2 | 3:
                steps.append(draw(_WRITES))
            case 4:
                steps.append(draw(_LINKS))
            case 5 | 6:
                steps.append(Remove(draw(_PATHS)))
            case 7 | 8:
                steps.append(Move(draw(_PATHS), draw(_PATHS)))
            case _:
                steps += commit("in the guest")
    return tuple(steps)


@st.composite
def repositories(draw: st.DrawFn) -> Case:
    """Any repository, what its owner has changed since, and what happens to both in the guest."""
    before: list[Step] = list(draw(st.lists(_FILES, max_size=8)))
    if (attributes := draw(_ATTRIBUTES)) is not None:
        before.append(Write(b".gitattributes", attributes))
    if (ignores := draw(_IGNORES)) is not None:
        before.append(Write(b".gitignore", ignores))
    overlay = tuple(step for step in draw(_changes()) if not isinstance(step, Git))
    return Case("random", tuple(before), overlay, draw(_changes()))
