"""A guest that does not answer, or never has enough: what waits for it ends by itself, says why, and holds nothing."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.preparing import Preparing, RunningVm, Vms, require_same
from tests.support.repositories import Case, Write, make_plain
from tests.support.workspace_guest import open_agent
from tests.unit.workspaces.test_export import Stream

from banger.api.workspaces import WorkspaceDiff, WorkspaceExport, WorkspacePull
from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.guest.agent import Agent
from banger.guest.fake import FakeGuest
from banger.model.workspace import Workspace
from banger.services.workspaces import guest
from banger.services.workspaces.outgoing import OutgoingService
from banger.services.workspaces.service import WorkspaceService
from banger.services.workspaces.shell import Shell
from banger.services.workspaces.snapshot import record_base

STALL_S = 0.3

pytestmark = pytest.mark.timeout(120)


class Quiet(NamedTuple):
    """A VM whose guest says nothing from some time on."""

    fake: FakeGuest
    agent: Agent
    preparing: Preparing
    outgoing: OutgoingService

    @property
    def shell(self) -> Shell:
        return Shell(self.agent, "web", STALL_S)

    def reopen(self, stall_s: float) -> None:
        made = self.preparing
        made.service = WorkspaceService(made.vms, made.rows, made.scratch, made.tasks, stall_s=stall_s)


class RunningOnceMore(RunningVm):
    runtime = object()


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[Quiet]:
    fake = FakeGuest(tmp_path)
    async with open_agent(fake) as agent:
        preparing = Preparing(tmp_path, Vms(agent, RunningOnceMore()))
        outgoing = OutgoingService(preparing.vms, preparing.rows, tmp_path / "quarantine", stall_s=STALL_S)
        yield Quiet(fake, agent, preparing, outgoing)


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[Quiet]:
    async with opened(tmp_path) as made:
        yield made


def make(quiet: Quiet) -> Path:
    return make_plain(quiet.preparing.outside / "host", Case("case", (Write(b"README", b"hello\n"),)))


def require_silence(caught: pytest.ExceptionInfo[Problem], name: str = "web") -> None:
    problem = caught.value
    assert problem.code is Code.UNAVAILABLE
    assert f"git in {name} has kept us waiting" in problem.brief
    assert f"banger vm health {name}" in (problem.hint or "")
    assert f"banger vm restart {name}" in (problem.hint or "")


async def test_a_prepare_ends_and_the_next_one_has_its_turn(quiet: Quiet) -> None:
    host = make(quiet)
    quiet.reopen(STALL_S)
    quiet.fake.is_silent = True
    for _ in range(2):
        with pytest.raises(Problem) as caught:
            await quiet.preparing.prepare(host)
        require_silence(caught)
    assert list(quiet.preparing.scratch.iterdir()) == []
    assert quiet.preparing.rows.list() == []


async def test_a_guest_that_is_not_locked_again_keeps_no_prepare_waiting(
    quiet: Quiet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None: ...

    host, lock = make(quiet), guest.lock
    monkeypatch.setattr(guest, "lock", nothing)
    monkeypatch.setattr(guest, "unlock", nothing)
    quiet.reopen(5.0)
    quiet.preparing.service.open()
    await quiet.preparing.prepare(host, read_only=True)
    monkeypatch.setattr(guest, "lock", lock)
    async with opened(tmp_path / "dead") as dead:
        dead.fake.is_silent = True
        async with quiet.preparing.tasks:
            quiet.preparing.vms.met(quiet.preparing.vms.vm.id, dead.agent)
            await asyncio.sleep(0)
            await quiet.preparing.prepare()
    require_same(quiet.preparing, host)


async def test_a_status_says_who_did_not_answer(quiet: Quiet) -> None:
    host = make(quiet)
    await quiet.preparing.prepare(host)
    quiet.reopen(STALL_S)
    quiet.fake.is_silent = True
    state = await quiet.preparing.status()
    assert not state.reachable
    assert "git in web has kept us waiting" in state.note
    assert "banger vm health web" in state.note
    assert state.host_commit


async def test_nothing_on_the_way_out_waits_for_ever(quiet: Quiet) -> None:
    host = make(quiet)
    await quiet.preparing.prepare(host)
    quiet.fake.is_silent = True
    for call in (
        lambda: quiet.outgoing.export(WorkspaceExport(vm="web"), Stream()),  # type: ignore[arg-type]
        lambda: quiet.outgoing.diff(WorkspaceDiff(vm="web"), Stream()),  # type: ignore[arg-type]
        lambda: quiet.outgoing.pull(WorkspacePull(vm="web"), Silent()),
    ):
        with pytest.raises(Problem) as caught:
            await call()
        require_silence(caught)
    quarantine = quiet.preparing.outside / "quarantine"
    assert not quarantine.exists() or list(quarantine.iterdir()) == []


async def test_what_is_remembered_of_a_workspace_is_not_waited_for(quiet: Quiet) -> None:
    quiet.fake.is_silent = True
    with pytest.raises(Problem) as caught:
        await record_base(quiet.shell, Workspace(vm_id="x", host_root="/x", guest_path="/root/x"))
    require_silence(caught)


@pytest.mark.parametrize(
    "script",
    [
        "exec sleep 60",
        "while :; do echo more; sleep 0.02; done",
        "while :; do echo more >&2; sleep 0.02; done",
        "trap '' TERM; while :; do sleep 1; done",
    ],
)
async def test_a_program_without_end_is_ended(quiet: Quiet, script: str) -> None:
    with pytest.raises(Problem) as caught:
        await quiet.shell.run(script, ())
    require_silence(caught)


async def pieces(count: int, size: int, pause_s: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(count):
        await asyncio.sleep(pause_s)
        yield os.urandom(size)


@pytest.mark.parametrize("count", [1, 100], ids=["all is taken", "nothing is taken"])
async def test_a_program_that_makes_nothing_of_its_input_is_ended(quiet: Quiet, count: int) -> None:
    with pytest.raises(Problem) as caught:
        await quiet.shell.run("exec sleep 60", (), pieces(count, 65536))  # type: ignore[arg-type]
    require_silence(caught)


async def test_a_guest_need_not_answer_for_a_slow_host(quiet: Quiet) -> None:
    shell = Shell(quiet.agent, "web", 1.0)
    said = await shell.run("wc -c", (), pieces(2, 1000, 1.5))  # type: ignore[arg-type]
    assert said.strip() == b"2000"


async def test_a_list_that_is_cut_off_is_not_taken_for_the_whole(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing of it would be work of the guest's that the next prepare throws away."""
    host = make(quiet)
    await quiet.preparing.prepare(host)
    (quiet.preparing.inside / "README").write_bytes(b"changed\n")
    monkeypatch.setattr(guest, "OUTPUT_BYTES", 100)
    with pytest.raises(Problem, match=r"web tells of more changed files in .* than can be listed"):
        await quiet.preparing.prepare(host)
    assert (quiet.preparing.inside / "README").read_bytes() == b"changed\n"
