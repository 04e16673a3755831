"""What others do in a VM while it is prepared: look, install tools; and a workspace that is read-only stays so."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.preparing import Preparing, open_preparing
from tests.support.repositories import Case, Write, make_plain

from banger.api.workspaces import WorkspacePlanning
from banger.base.problem import Problem, conflict
from banger.services.workspaces import guest
from banger.services.workspaces import service as module


@pytest.fixture
async def preparing(tmp_path: Path) -> AsyncIterator[Preparing]:
    async with open_preparing(tmp_path) as made:
        yield made


@pytest.fixture
async def host(preparing: Preparing) -> Path:
    made = make_plain(preparing.outside / "host", Case("case", (Write(b"README", b"hello\n"),)))
    await preparing.prepare(made)
    return made


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done: list[str] = []

    def note(word: str) -> Any:
        async def act(agent: object, path: str) -> None:
            done.append(word)

        return act

    for word in ("lock", "unlock"):
        monkeypatch.setattr(guest, word, note(word))
    return done


async def test_nobody_looks_into_the_guest_beside_a_prepare(
    preparing: Preparing, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git's lock of the index would be taken from it, and the index be half of each."""
    send, look, sending, may_send = module.send, guest.look, asyncio.Event(), asyncio.Event()
    looks: list[bool] = []

    async def send_later(*arguments: Any) -> Any:
        sending.set()
        await may_send.wait()
        return await send(*arguments)

    async def count(*arguments: Any) -> Any:
        looks.append(sending.is_set() and not may_send.is_set())
        return await look(*arguments)

    monkeypatch.setattr(module, "send", send_later)
    monkeypatch.setattr(guest, "look", count)
    (host / "README").write_text("changed\n")
    work = asyncio.create_task(preparing.prepare())
    await sending.wait()
    assert (await preparing.status()).note == "it is being prepared"
    planning = asyncio.create_task(preparing.service.plan(WorkspacePlanning(path=str(host), vm="web")))
    await asyncio.wait([planning], timeout=0.5)
    assert not planning.done()
    may_send.set()
    assert (await work).changed
    await planning
    assert (await preparing.status()).reachable
    assert looks == [False] * 3


async def test_tools_that_are_installed_meanwhile_stay_known(
    preparing: Preparing, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = module.send

    async def install_and_send(*arguments: Any) -> Any:
        row = preparing.rows.find("1" * 12)
        preparing.rows.save(msgspec.structs.replace(row, environment={"PATH": "/tools"}))
        return await send(*arguments)

    monkeypatch.setattr(module, "send", install_and_send)
    (host / "README").write_text("changed\n")
    prepared = await preparing.prepare()
    assert prepared.workspace.environment == {"PATH": "/tools"}
    assert preparing.rows.find("1" * 12).environment == {"PATH": "/tools"}


async def test_what_is_read_only_is_so_again_after_a_failure(
    preparing: Preparing, host: Path, mounts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await preparing.prepare(host, read_only=True)

    async def fail(*arguments: Any) -> Any:
        raise conflict("in the way")

    monkeypatch.setattr(module, "send", fail)
    (host / "README").write_text("changed\n")
    with pytest.raises(Problem):
        await preparing.prepare()
    assert mounts == ["lock", "unlock", "lock"]


async def test_work_that_is_left_for_another_repository_is_told_before(
    preparing: Preparing, host: Path
) -> None:
    """export and pull know the workspace that commands begin in, and no other."""
    other = make_plain(preparing.outside / "other", Case("other", (Write(b"README", b"other\n"),)))
    elsewhere = str(preparing.outside / "guest" / "elsewhere")
    row = preparing.rows.list()
    changed = preparing.inside / "README"
    changed.write_text("work\n")
    with pytest.raises(Problem, match=f"{preparing.inside} has changes") as refused:
        await preparing.prepare(other, guest_path=elsewhere)
    assert refused.value.hint is not None
    assert "banger workspace export web -o work.patch" in refused.value.hint
    assert preparing.rows.list() == row
    changed.write_text("hello\n")
    await preparing.prepare(other, guest_path=elsewhere)
    assert [each.guest_path for each in preparing.rows.list()] == [elsewhere]
