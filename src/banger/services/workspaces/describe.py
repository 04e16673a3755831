"""A plan as callers see it."""

from collections.abc import Sequence

from banger.api.workspaces import WorkspaceFile, WorkspacePlan
from banger.base.tasks import in_thread
from banger.model.returned import show_path
from banger.model.workspace import Wanted
from banger.services.workspaces.overlay import Change
from banger.services.workspaces.plan import Staged, join_path
from banger.services.workspaces.prepare import Step, count_bytes, list_losses


async def describe_plan(
    staged: Staged, steps: Sequence[Step], wanted: Wanted, guest_path: str, *, measure: bool
) -> WorkspacePlan:
    """Exactly what goes. `measure` packs everything to say how many bytes that is."""
    repository = staged.repository
    name, email = repository.identity
    return WorkspacePlan(
        host_root=str(repository.root),
        subdirectory=repository.prefix,
        guest_path=guest_path,
        mode=wanted.mode,
        branch=staged.branch,
        detached=not staged.branch,
        commit=staged.base,
        commits=staged.window.commits,
        objects=sum(len(step.missing) for step in steps),
        transfer_bytes=await count_bytes(steps) if measure else 0,
        files=await in_thread(_describe_all, staged),
        stays_home=[show_path(join_path(each.path, path)) for each in staged.all for path in each.home],
        submodules=[show_path(each.path) for each in staged.all if each.path],
        origin=repository.origin or "",
        identity=f"{name} <{email}>" if name or email else "",
        up_to_date=all(step.is_done for step in steps),
        guest_work=list_losses(steps),
        warnings=[warning for each in staged.all for warning in each.warnings],
    )


def _describe_all(staged: Staged) -> list[WorkspaceFile]:
    return [_describe(each, change) for each in staged.all for change in each.overlay.changes]


def _describe(staged: Staged, change: Change) -> WorkspaceFile:
    item = change.item
    return WorkspaceFile(
        path=show_path(join_path(staged.path, change.path)),
        change=change.word,
        size_bytes=item.size_bytes if item is not None else 0,
        mode=item.mode if item is not None else "",
        untracked=change.untracked,
    )
