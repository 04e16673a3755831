"""Trees through our own packer and unpacker, and through the system's tar as the oracle, in every pairing."""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banger.base.trees.pack import pack
from banger.base.trees.unpack import Policy, unpack

Maker = Callable[[Path], bytes]
Taker = Callable[[Path, bytes], None]


def pack_ours(tree: Path) -> bytes:
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return b"".join(pack(descriptor))
    finally:
        os.close(descriptor)


def unpack_ours(tree: Path, stream: bytes, chunk_bytes: int = 7000) -> None:
    chunks = [stream[at : at + chunk_bytes] for at in range(0, len(stream), chunk_bytes)]
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        unpack(descriptor, chunks, policy=Policy(umask=0))
    finally:
        os.close(descriptor)


def pack_theirs(tree: Path) -> bytes:
    argv = ("tar", "--format=pax", "--sparse", "--sparse-version=1.0", "-C", str(tree), "-c", ".")
    return subprocess.run(argv, capture_output=True, check=True).stdout


def unpack_theirs(tree: Path, stream: bytes) -> None:
    subprocess.run(("tar", "-C", str(tree), "-xp"), input=stream, check=True)


def describe(tree: Path) -> dict[bytes, tuple[object, ...]]:
    """All that must survive, by name. Hard links are told by the names that share a file."""
    root = os.fsencode(tree)
    seen: dict[int, bytes] = {}
    described: dict[bytes, tuple[object, ...]] = {}
    for name in _walk(root):
        path = root + b"/" + name
        found = os.lstat(path)
        kind, mode, mtime = stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode), int(found.st_mtime)
        if stat.S_ISLNK(found.st_mode):
            described[name] = (kind, os.readlink(path))
        elif stat.S_ISREG(found.st_mode):
            first = seen.setdefault(found.st_ino, name)
            described[name] = (kind, mode, mtime, first, Path(os.fsdecode(path)).read_bytes())
        else:
            described[name] = (kind, mode, mtime)
    return described


def _walk(root: bytes, below: bytes = b"") -> Iterator[bytes]:
    for name in sorted(os.listdir(root + b"/" + below)):
        yield below + name
        if stat.S_ISDIR(os.lstat(root + b"/" + below + name).st_mode):
            yield from _walk(root, below + name + b"/")


PARTS = st.binary(min_size=1, max_size=40).map(
    lambda name: name.replace(b"/", b"_").replace(b"\0", b"\n")
).filter(lambda name: name not in (b".", b"..")) | st.sampled_from(
    [b"a", b"b" * 255, b" ", b"-rf", b"new\nline", b"\xff\xfe", b"c" * 101, "ü".encode()]
)
FILES = st.tuples(st.just("file"), st.binary(max_size=1500), st.sampled_from([0o644, 0o755, 0o400, 0o666]))
LINKS = st.tuples(
    st.just("link"), st.binary(min_size=1, max_size=150).map(lambda t: t.replace(b"\0", b"x")), st.just(0)
)
HARD = st.tuples(st.just("hard"), st.integers(0, 5), st.just(0))
SPARSE = st.tuples(st.just("sparse"), st.lists(st.integers(0, 60), max_size=4), st.just(0o600))
TREES = st.lists(
    st.tuples(st.lists(PARTS, min_size=1, max_size=4), FILES | LINKS | HARD | SPARSE), min_size=0, max_size=12
)


def build(tree: Path, plan: list[tuple[list[bytes], tuple[str, object, int]]]) -> None:
    made: list[bytes] = []
    for number, (parts, (kind, what, mode)) in enumerate(plan):
        path = os.path.join(os.fsencode(tree), *parts)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.lexists(path):
                continue
            if kind == "link":
                os.symlink(what, path)  # type: ignore[arg-type]
                continue
            if kind == "hard":
                if made:
                    os.link(made[int(what) % len(made)], path)  # type: ignore[call-overload]
                continue
        except (FileExistsError, FileNotFoundError, NotADirectoryError):  # below a file or a link
            continue
        with open(path, "wb") as file:
            if kind == "file":
                file.write(what)  # type: ignore[arg-type]
            else:
                for block in what:  # type: ignore[attr-defined]
                    file.seek(block * 65536)
                    file.write(b"data" * 1000)
                file.truncate(max([*what, 1]) * 65536 + 100_000)  # type: ignore[misc]
        os.chmod(path, mode)
        os.utime(path, (number * 1000, number * 1000))
        made.append(path)


PAIRS = {
    "ours": (pack_ours, unpack_ours),
    "ours-theirs": (pack_ours, unpack_theirs),
    "theirs-ours": (pack_theirs, unpack_ours),
}


@pytest.mark.parametrize("pair", PAIRS)
@settings(max_examples=60)
@given(plan=TREES)
def test_a_tree_comes_out_as_it_went_in(tmp_path: Path, pair: str, plan: list[object]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for tree in (source, target):
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
    build(source, plan)  # type: ignore[arg-type]
    make, take = PAIRS[pair]
    take(target, make(source))
    assert describe(target) == describe(source)
