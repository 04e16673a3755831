import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from banger.base.trees import headers
from banger.base.trees.headers import Entry, render_entry
from banger.base.trees.unpack import Policy, Unpacked, unpack


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    directory = tmp_path / "tree"
    directory.mkdir()
    return directory


@pytest.fixture
def descriptor(tree: Path) -> Iterator[int]:
    opened = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    yield opened
    os.close(opened)


Take = Callable[..., Unpacked]


@pytest.fixture
def take(descriptor: int) -> Take:
    """Unpacks a stream into `tree`; what is beside it stays as it is, and descriptors are closed."""

    def run(stream: bytes | Iterable[bytes], **policy) -> Unpacked:
        before = sorted(os.listdir("/proc/self/fd"))
        try:
            chunks = [stream] if isinstance(stream, bytes) else stream
            return unpack(descriptor, chunks, policy=Policy(umask=policy.pop("umask", 0), **policy))
        finally:
            assert sorted(os.listdir("/proc/self/fd")) == before

    return run


def make_stream(*entries: Entry | tuple[Entry, bytes] | bytes, end: bytes = headers.END) -> bytes:
    stream = b""
    for each in entries:
        if isinstance(each, bytes):
            stream += each
            continue
        entry, content = each if isinstance(each[0], Entry) else (each, b"")
        stream += render_entry(entry) + content + bytes(headers.padding(len(content)))
    return stream + end


def file(name: bytes, content: bytes = b"x", **more) -> tuple[Entry, bytes]:
    return Entry(name, headers.FILE, size=len(content), **more), content
