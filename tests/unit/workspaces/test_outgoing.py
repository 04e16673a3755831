"""The use cases on the way out, through the service: which workspace, which VM, what is said when there is none."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.support.nasty import find_case
from tests.support.repositories import perform, run_git
from tests.support.workspace_guest import Brought, open_workspace
from tests.unit.workspaces.test_export import Stream

from banger.api.workspaces import WorkspaceDiff, WorkspaceExport, WorkspacePull
from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.guest.agent import Agent
from banger.model.vm import VmState
from banger.model.workspace import Workspace
from banger.services.workspaces.outgoing import OutgoingService


class Vms:
    """One VM, and how often it was used."""

    def __init__(self, agent: Agent) -> None:
        self.vm: Any = SimpleNamespace(id="1" * 12, name="box", state=VmState.RUNNING, runtime=object())
        self.touched = 0
        self._agent = agent

    def resolve(self, untrusted_reference: str) -> Any:
        assert untrusted_reference == "box"
        return self.vm

    def get_agent(self, vm: Any) -> Agent:
        assert vm is self.vm
        return self._agent

    @contextmanager
    def using(self, vm_id: str) -> Iterator[None]:
        assert vm_id == self.vm.id
        self.touched += 1
        yield


class Rows:
    def __init__(self, workspace: Workspace | None) -> None:
        self.workspace = workspace

    def find(self, _vm_id: str) -> Workspace | None:
        return self.workspace


class Place(msgspec.Struct):
    brought: Any
    vms: Any
    rows: Any
    service: Any
    quarantine: Path


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[Place]:
    case = find_case("an ordinary change")
    async with open_workspace(case.build(tmp_path / "work"), tmp_path / "guest") as brought:
        perform(brought.inside, case.change)
        vms, rows = Vms(brought.agent), Rows(brought.workspace)
        quarantine = tmp_path / "quarantine"
        service = OutgoingService(vms, rows, quarantine)  # type: ignore[arg-type]
        yield Place(brought, vms, rows, service, quarantine)


async def test_a_patch_a_diff_and_a_pull_are_of_the_vms_workspace(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        brought: Brought = place.brought
        patch, diff = Stream(), Stream()
        await place.service.export(WorkspaceExport(vm="box"), patch)
        await place.service.diff(WorkspaceDiff(vm="box", name_only=True), diff)
        returned = await place.service.pull(WorkspacePull(vm="box", max_size_bytes=8 << 20), Silent())
        assert patch.data.startswith(b"diff --git")
        assert diff.data == b"README\nnew\n"
        assert (returned.vm, returned.repository, returned.uncommitted) == ("box", str(brought.host), 1)
        assert (
            run_git(brought.host, "rev-parse", "refs/banger/box/main").decode().strip()
            == returned.branches[0].commit
        )
        assert place.vms.touched == 3
        assert place.service.subject(WorkspacePull(vm="box")) == "box"


async def test_without_a_workspace_there_is_one_line_and_a_hint(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        place.rows.workspace = None
        with pytest.raises(Problem, match="box has no workspace") as caught:
            await place.service.pull(WorkspacePull(vm="box"), Silent())
        assert caught.value.code is Code.NOT_FOUND
        assert caught.value.hint == "banger workspace prepare box ./repo"


async def test_a_vm_that_does_not_run_gives_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        place.vms.vm.state = VmState.STOPPED
        for call in (
            place.service.export(WorkspaceExport(vm="box"), Stream()),
            place.service.diff(WorkspaceDiff(vm="box"), Stream()),
            place.service.pull(WorkspacePull(vm="box"), Silent()),
        ):
            with pytest.raises(Problem) as caught:
                await call
            assert caught.value.code is Code.NOT_RUNNING


async def test_what_a_dead_daemon_has_left_is_swept(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        place.service.sweep()
        packs = place.brought.host / ".git/objects/pack"
        left = place.quarantine / "0123456789abcdef"
        (left / "git").mkdir(parents=True)
        (left / "target").write_text(str(packs))
        (packs / "tmp_banger_0123456789abcdef.pack").write_bytes(b"half")
        (packs / "tmp_other.pack").write_bytes(b"somebody else's")
        place.service.sweep()
        assert [*place.quarantine.iterdir()] == []
        assert [path.name for path in packs.glob("tmp_*")] == ["tmp_other.pack"]
