"""Pinned programs put in place from what was downloaded or brought: only what was pinned, whole or not at all."""

import gzip
import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from banger.base.problem import Code, Problem, unavailable
from banger.base.progress import Silent
from banger.pinned import obtain
from banger.pinned.catalog import NAMES, PINNED, get_pinned
from banger.pinned.obtain import Source, get_kept, is_whole, obtain_pinned, plan_npm

CONTENT = b"the program" * 1000


def make_archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def mise():
    """As if these few bytes were mise."""
    pinned = get_pinned("mise", "x86_64")
    return pinned._replace(sha256=hashlib.sha256(CONTENT).hexdigest(), size_bytes=len(CONTENT))


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "programs"


@pytest.fixture
def sources(monkeypatch, mise):
    """What a source brings as the program's content, or the problem that it has; and which were asked."""
    brings: dict[Source, bytes | Problem] = {Source.RELEASE: CONTENT, Source.NPM: CONTENT}
    asked: list[Source] = []

    async def fetch_https(url: str, target: Path) -> None:
        assert url == mise.release.url
        give(Source.RELEASE, target, mise.release.member)

    async def run(argv, *, cwd, **_):
        assert argv[1:3] == ("pack", mise.npm.package)
        give(Source.NPM, cwd / "package.tgz", mise.npm.member)

    def give(source: Source, target: Path, member: str) -> None:
        asked.append(source)
        found = brings[source]
        if isinstance(found, Problem):
            raise found
        make_archive(target, {"README": b"x", member: found})

    monkeypatch.setattr(obtain, "fetch_https", fetch_https)
    monkeypatch.setattr(obtain, "run", run)
    monkeypatch.setattr(obtain, "find_tool", lambda name: Path("/usr/bin/npm"))
    return brings, asked


def kept_files(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*") if path.is_file()]


async def test_a_program_is_executable_and_fetched_once(sources, mise, directory):
    _, asked = sources
    former = os.umask(0o077)
    try:
        for _ in range(2):
            path = await obtain_pinned(mise, directory, Silent())
    finally:
        os.umask(former)
    assert asked == [Source.RELEASE]
    assert path == get_kept(directory, mise) == directory / "mise" / mise.version / "mise"
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert kept_files(directory) == ["mise"]


@pytest.mark.parametrize("damage", ["changed", "longer", "mode", "missing"])
async def test_a_program_that_is_not_whole_is_replaced(sources, mise, directory, damage):
    _, asked = sources
    path = await obtain_pinned(mise, directory, Silent())
    match damage:
        case "changed":
            path.write_bytes(b"X" + CONTENT[1:])
        case "longer":
            path.write_bytes(CONTENT + b"X")
        case "mode":
            path.chmod(0o644)
        case _:
            path.unlink()
    assert not is_whole(path, mise)
    await obtain_pinned(mise, directory, Silent())
    assert is_whole(path, mise)
    assert len(asked) == 2


async def test_npm_comes_where_the_release_cannot_be_reached(sources, mise, directory):
    brings, asked = sources
    brings[Source.RELEASE] = unavailable("no such host")
    assert is_whole(await obtain_pinned(mise, directory, Silent()), mise)
    assert asked == [Source.RELEASE, Source.NPM]


async def test_no_source_at_all_says_each_ones_reason_and_what_to_do(sources, mise, directory):
    brings, _ = sources
    brings[Source.RELEASE], brings[Source.NPM] = unavailable("no such host"), unavailable("no npm")
    with pytest.raises(Problem, match="cannot be downloaded: no such host") as caught:
        await obtain_pinned(mise, directory, Silent())
    assert caught.value.code is Code.UNAVAILABLE
    assert "no npm" in caught.value.detail
    assert "setup tools --from FILE" in caught.value.hint


@pytest.mark.parametrize("content", [b"something else", CONTENT + b"more", CONTENT[:-1], b""])
async def test_other_bytes_than_the_pinned_ones_are_never_put_in_place(sources, mise, directory, content):
    brings, _ = sources
    brings[Source.RELEASE] = brings[Source.NPM] = content
    with pytest.raises(Problem, match="is not the pinned one"):
        await obtain_pinned(mise, directory, Silent())
    assert kept_files(directory) == []


async def test_without_npm_its_package_is_named(sources, mise, directory, monkeypatch):
    monkeypatch.setattr(obtain, "find_tool", lambda name: None)
    with pytest.raises(Problem, match="npm is not installed"):
        await obtain_pinned(mise, directory, Silent(), source=Source.NPM)


def brought_files(mise, tmp_path):
    (tmp_path / "mise").write_bytes(CONTENT)
    return [
        make_archive(tmp_path / "release.tar.gz", {"mise/README": b"x", mise.release.member: CONTENT}),
        make_archive(tmp_path / "dotted.tar.gz", {f"./{mise.release.member}": CONTENT}),
        make_archive(tmp_path / "package.tgz", {mise.npm.member: CONTENT}),
        tmp_path / "mise",
    ]


async def test_whatever_somebody_has_brought_it_in_will_do(mise, tmp_path):
    for number, file in enumerate(brought_files(mise, tmp_path)):
        path = await obtain_pinned(mise, tmp_path / f"to{number}", Silent(), brought=file)
        assert path.read_bytes() == CONTENT


async def test_a_file_that_is_brought_is_looked_at_even_if_the_program_is_there(mise, tmp_path, directory):
    await obtain_pinned(mise, directory, Silent(), brought=brought_files(mise, tmp_path)[0])
    (tmp_path / "other").write_bytes(b"other")
    with pytest.raises(Problem, match="is not the pinned one"):
        await obtain_pinned(mise, directory, Silent(), brought=tmp_path / "other")
    assert is_whole(get_kept(directory, mise), mise)


@pytest.mark.parametrize("kind", ["directory", "missing", "fifo", "damaged", "cut", "without"])
async def test_a_brought_file_that_carries_no_program_is_refused(mise, tmp_path, directory, kind):
    file = tmp_path / "brought"
    match kind:
        case "directory":
            file.mkdir()
        case "fifo":
            os.mkfifo(file)
        case "damaged":
            file.write_bytes(gzip.compress(b"no archive"))
        case "cut":
            whole = make_archive(tmp_path / "whole", {mise.release.member: os.urandom(5000)}).read_bytes()
            file.write_bytes(whole[: len(whole) // 2])
        case "without":
            make_archive(file, {"bin/other": CONTENT})
    with pytest.raises(Problem) as caught:
        await obtain_pinned(mise, directory, Silent(), brought=file)
    assert caught.value.code in (Code.BAD_REQUEST, Code.OPERATION_FAILED)
    assert kept_files(directory) == []


async def test_a_link_in_an_archive_is_no_program(mise, tmp_path, directory):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        entry = tarfile.TarInfo(mise.release.member)
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(Problem, match="holds no mise"):
        await obtain_pinned(mise, directory, Silent(), brought=tmp_path / "a.tgz")


async def test_a_directory_that_is_somebody_elses_is_not_used(sources, mise, directory, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Problem, match="symbolic link"):
        await obtain_pinned(mise, directory, Silent())


def test_npm_packs_one_package_and_runs_no_script():
    assert " ".join(plan_npm("/usr/bin/npm", "a@1", Path("/d"))) == (
        "/usr/bin/npm pack a@1 --pack-destination /d --cache /d/cache --silent --ignore-scripts"
    )


def test_every_row_of_the_catalog_is_whole():
    for row in PINNED:
        assert len(bytes.fromhex(row.sha256)) == 32
        assert row.release.url.startswith("https://")
        assert row.version in row.release.url
        assert row.npm.package.endswith(f"@{row.version}")
        assert row.guest_path.startswith("/usr/local/bin/")
        assert row.size_bytes > 0
    assert len({(row.name, row.machine) for row in PINNED}) == len(PINNED)


def test_what_is_not_in_the_catalog_is_refused_with_what_is():
    with pytest.raises(Problem) as caught:
        get_pinned("missing")
    assert all(name in caught.value.hint for name in NAMES)
    with pytest.raises(Problem, match="no mise is pinned for sparc"):
        get_pinned("mise", "sparc")
