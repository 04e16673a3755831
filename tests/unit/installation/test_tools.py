"""`banger setup tools`: which programs, from where, and what is said."""

import hashlib
import json

import pytest

from banger.base.problem import unavailable
from banger.cli.main import main
from banger.installation import tools
from banger.pinned import obtain
from banger.pinned.catalog import get_pinned

CONTENT = {"mise": b"for tools", "opencode": b"an agent"}


@pytest.fixture(autouse=True)
def pinned(monkeypatch, tmp_path):
    """As if these few bytes were the programs; nothing can be downloaded."""

    def get(name):
        row = get_pinned(name, "x86_64")
        content = CONTENT[name]
        return row._replace(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))

    async def unreachable(*_):
        raise unavailable("no such host")

    monkeypatch.setattr(tools, "get_pinned", get)
    monkeypatch.setattr(obtain, "_fetch_release", unreachable)
    monkeypatch.setattr(obtain, "_fetch_npm", unreachable)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "data").mkdir(mode=0o700)
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)


def test_what_is_brought_is_recognised_by_its_content(tmp_path, capsys):
    for name in ("opencode", "mise"):
        (tmp_path / "file").write_bytes(CONTENT[name])
        assert main(["setup", "tools", "--from", str(tmp_path / "file"), "-q"]) == 0
        assert capsys.readouterr().out.startswith(f"{name} ")
    kept = sorted(
        path.name for path in (tmp_path / "data" / "banger" / "programs").rglob("*") if path.is_file()
    )
    assert kept == ["mise", "opencode"]


def test_once_all_are_there_nothing_is_fetched(tmp_path, capsys):
    for name in CONTENT:
        assert main(["setup", "tools", name, "--from", str(tmp_path / name), "-q"]) == 0
    capsys.readouterr()
    assert main(["setup", "tools", "--json", "-q"]) == 0
    done = json.loads(capsys.readouterr().out)["tools"]
    assert [(each["name"], each["fetched"]) for each in done] == [("mise", False), ("opencode", False)]


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ((), 69, "mise 2026.9.15 cannot be downloaded: no such host"),
        (("nothing",), 66, "there is no pinned program 'nothing'"),
        (("--from", "/no/such"), 66, "there is no file or directory"),
        (("mise", "--from", "{tmp}/opencode"), 71, "is not the pinned one"),
        (("--from", "{tmp}/data"), 64, "is no file"),
        (("--from", "{tmp}/other"), 64, "is neither mise 2026.9.15 nor opencode"),
    ],
)
def test_what_cannot_be_had_is_one_line_with_a_hint(tmp_path, capsys, monkeypatch, words, status, text):
    monkeypatch.setattr(tools, "get_pinned", tools.get_pinned if "nothing" not in words else get_pinned)
    (tmp_path / "other").write_bytes(b"other")
    assert main(["setup", "tools", "-q", *(word.format(tmp=tmp_path) for word in words)]) == status
    error = capsys.readouterr().err
    assert error.startswith("banger: ")
    assert text in error
    assert "hint: " in error
