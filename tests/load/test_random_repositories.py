"""Random repositories, random changes on both sides, plain git as the oracle: 300 and more, without a machine."""

import asyncio
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from tests.support.repositories import Case, perform, repositories, run_git
from tests.support.workspace_guest import open_workspace
from tests.unit.workspaces.test_export import has_attributes, round_trip, tidy
from tests.unit.workspaces.test_pull import do_pull

CASES = 320
pytestmark = [pytest.mark.load, pytest.mark.timeout(3600)]
_SETTINGS = settings(max_examples=CASES)


@given(case=repositories())
@_SETTINGS
def test_what_git_apply_makes_of_an_export_is_the_guests_tree(
    case: Case, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("any", numbered=True)
    try:
        asyncio.run(round_trip(case, place, is_exact=not has_attributes(case), is_random=True))
    finally:
        shutil.rmtree(place)


async def _pull(case: Case, place: Path) -> None:
    host = case.build(place / "work")
    tidy(host)
    async with open_workspace(host, place / "guest") as brought:
        perform(brought.inside, case.change)
        returned = await do_pull(brought)
        head = run_git(brought.inside, "rev-parse", "HEAD").decode().strip()
        if head == brought.workspace.base_commit:
            assert returned.branches == []
            return
        (branch,) = returned.branches
        assert branch.commit == head
        assert run_git(host, "rev-parse", f"{branch.ref}^{{tree}}") == run_git(
            brought.inside, "rev-parse", "HEAD^{tree}"
        )
        wanted = run_git(brought.inside, "log", "--format=%H %s", f"{brought.workspace.base_commit}..HEAD")
        assert run_git(host, "log", "--format=%H %s", f"HEAD..{branch.ref}") == wanted
        assert run_git(host, "log", "-p", "--binary", "--format=", f"HEAD..{branch.ref}") == run_git(
            brought.inside, "log", "-p", "--binary", "--format=", f"{brought.workspace.base_commit}..HEAD"
        )


@given(case=repositories())
@_SETTINGS
def test_what_a_pull_brings_is_the_guests_history(
    case: Case, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("any", numbered=True)
    try:
        asyncio.run(_pull(case, place))
    finally:
        shutil.rmtree(place)
