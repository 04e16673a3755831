"""A staged repository on its way into a guest: judged against what is there, sent, checked out.

Invariant: what a guest has is either as before or as it is to be, or is told from both by the next prepare. A new
workspace is made aside and renamed; one that exists gets its objects first, then its tree by one git, which looks at
everything before it touches anything; what was begun is written down in the guest and mended from there.
"""

from asyncio import CancelledError
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import NamedTuple

from banger.base.problem import Code, Outcome, Problem, bad_request, conflict
from banger.base.progress import Progress, stage
from banger.base.tasks import to_the_end
from banger.base.units import render_size
from banger.model.returned import show_path
from banger.services.workspaces import guest
from banger.services.workspaces.bundle import Has, keep_known, list_missing, stream_pack
from banger.services.workspaces.guest import Seen, Target, describe_paths, parse_seen, require_git, staging_of
from banger.services.workspaces.plan import Staged
from banger.services.workspaces.shell import Shell

_SMALL_BYTES = 1 << 20


class Order(NamedTuple):
    """Where a staged repository goes, and by whose right. `source` names the repository to the guest. `is_settled`: the
    branch is the one that was asked for before."""

    shell: Shell
    guest_path: str
    source: str
    is_settled: bool
    force: bool


class Step(NamedTuple):
    """What is to be done about one repository. `missing` are the objects that go."""

    staged: Staged
    place: str
    seen: Seen
    is_new: bool
    is_done: bool
    missing: list[str]
    unknown_commits: tuple[str, ...]

    @property
    def work(self) -> list[bytes]:
        """Paths that the guest has changed, and that nobody else has so."""
        return self.seen.list_work(commits_are_known=not self.unknown_commits)


class Sent(NamedTuple):
    changed: bool
    commits: int
    sent_bytes: int


async def plan_steps(order: Order, staged: Staged) -> list[Step]:
    """For each repository, the one above first. Raises Problem for what stands in the way of all of it."""
    steps: list[Step] = []
    for each in staged.all:
        place = order.guest_path + ("/" + _get_text(each.path) if each.path else "")
        seen = await guest.look(order.shell, place, each.branch)
        require_git(seen, order.shell.vm_name)
        is_new = seen.kind != "ours" or seen.source != order.source or not seen.prepared
        if not steps:
            _require_place(order, seen, is_new)
        is_new = is_new or (bool(steps) and steps[0].is_new)
        is_done = (
            not is_new
            and order.is_settled
            and seen.prepared == each.snapshot
            and not seen.is_interrupted
            and not (order.force and (seen.work or seen.head != each.base))
        )
        unknown = () if is_new else await _find_unknown(each, seen)
        missing: list[str] = []
        if is_new or seen.prepared != each.snapshot:
            objects = frozenset() if is_new else await guest.list_objects(order.shell, place, seen)
            has = Has() if is_new else Has((seen.base, *seen.commits), objects)
            missing = await list_missing(each.scratch, each.repository, each.window, each.snapshot, has)
        steps.append(Step(each, place, seen, is_new, is_done, missing, unknown))
    _require_room(order, steps[0].seen, staged)
    return steps


async def plan_alone(staged: Staged, guest_path: str) -> list[Step]:
    """As for a guest that has nothing."""
    steps = []
    for each in staged.all:
        place = guest_path + ("/" + _get_text(each.path) if each.path else "")
        missing = await list_missing(each.scratch, each.repository, each.window, each.snapshot, Has())
        steps.append(Step(each, place, parse_seen(b""), True, False, missing, ()))
    return steps


def list_losses(steps: Sequence[Step]) -> list[str]:
    """The guest's work that would be gone, in words; nothing is lost where nothing is to be done."""
    losses = []
    for step in steps:
        if step.is_done or step.is_new:
            continue
        if step.work:
            losses.append(f"changed in {step.place}: {describe_paths(step.work)}")
        if step.unknown_commits:
            count = len(step.unknown_commits)
            losses.append(f"{count} commit{'s' * (count != 1)} in {step.place} that the host has not")
    return losses


async def send(order: Order, steps: list[Step], config: Mapping[str, str], progress: Progress) -> Sent:
    """Brings everything in. The first workspace's directory appears when all in it is there."""
    if all(step.is_done for step in steps):
        return Sent(changed=False, commits=0, sent_bytes=0)
    root, aside = steps[0], staging_of(order.guest_path)
    total = 0
    try:
        for step in steps:
            if step.is_done:
                continue
            if not root.is_new:
                made_at, to = (staging_of(step.place), step.place) if step.is_new else (step.place, "")
            else:
                made_at = aside + step.place[len(order.guest_path) :]
                to = order.guest_path if len(steps) == 1 else ""
            total += await _send_one(order, step, made_at, to, config, progress)
        if root.is_new and len(steps) > 1:
            await guest.swap(order.shell, aside, order.guest_path, replace=order.force)
    except (Problem, CancelledError) as error:
        if root.is_new and not (isinstance(error, Problem) and error.code is Code.UNAVAILABLE):
            with suppress(Problem):  # the next prepare begins with it
                await to_the_end(guest.clean(order.shell, aside))
        raise
    return Sent(changed=True, commits=root.staged.window.commits, sent_bytes=total)


async def count_bytes(steps: Sequence[Step]) -> int:
    """How many bytes would be sent."""
    total = 0
    for step in steps:
        if step.missing:
            async for data in _stream(step):
                total += len(data)
    return total


async def _send_one(
    order: Order, step: Step, made_at: str, to: str, config: Mapping[str, str], progress: Progress
) -> int:
    """How many bytes went."""
    staged, counted = step.staged, _Counted(_stream(step), progress)
    target = Target(
        snapshot=staged.snapshot,
        base=staged.base,
        branch=staged.branch,
        tree=staged.tree if staged.is_plain else "",
        is_clean=not staged.overlay.changes,
        object_count=len(step.missing),
        borders=staged.window.borders,
        tags=staged.window.tags,
    )
    with stage(progress, f"send {show_path(staged.path)}" if staged.path else "send repository"):
        if step.is_new:
            about = (
                guest.render_config(_list_config(staged, config), staged.repository.object_format),
                order.source,
            )
            await guest.build(order.shell, made_at, to, target, about, counted.pieces(), replace=order.force)
        else:
            accepts = (step.seen.is_interrupted or step.seen.work) and not step.work
            force: guest.Force = "yes" if order.force else "accept" if accepts else ""
            await guest.update(order.shell, made_at, target, counted.pieces(), force)
    return counted.sent_bytes


class _Counted:
    """A pack on its way, told of as it goes."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], progress: Progress) -> None:
        self._pieces = pieces
        self._progress = progress
        self._told = 0
        self.sent_bytes = 0

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._pieces) as pieces:
            async for data in pieces:
                self.sent_bytes += len(data)
                if self.sent_bytes - self._told >= _SMALL_BYTES:
                    self._told = self.sent_bytes
                    self._progress.tell(render_size(self.sent_bytes))
                yield data


async def _stream(step: Step) -> AsyncGenerator[bytes, None]:
    staged = step.staged
    is_small = bool(staged.window.borders) or not staged.window.commits
    if step.missing:
        pack = stream_pack(staged.scratch, staged.repository, step.missing, is_small=is_small)
        async with aclosing(pack) as pieces:
            async for data in pieces:
                yield data


def _list_config(staged: Staged, identity: Mapping[str, str]) -> dict[str, str]:
    """What the checkout is told of its origin; no more of the host's configuration than this."""
    repository = staged.repository
    config = dict(identity) | dict(repository.line_ends)
    if repository.origin is not None:
        config["remote.origin.url"] = repository.origin
        config["remote.origin.fetch"] = "+refs/heads/*:refs/remotes/origin/*"
    return config


async def _find_unknown(staged: Staged, seen: Seen) -> tuple[str, ...]:
    known = await keep_known(staged.scratch, seen.commits)
    return tuple(commit for commit in seen.commits if commit not in known)


def _require_place(order: Order, seen: Seen, is_new: bool) -> None:
    path = order.guest_path
    if seen.is_locked:
        raise conflict(
            f"git is at work in {path} in {order.shell.vm_name}",
            hint=f"wait for it; if it has died: banger vm exec {order.shell.vm_name} -- rm {path}/.git/index.lock",
        )
    if not is_new or seen.kind in ("absent", "empty") or order.force:
        return
    what = "holds another repository" if seen.kind == "ours" else "is there and is no workspace of banger's"
    raise conflict(
        f"{path} in {order.shell.vm_name} {what}",
        hint="choose another place with --guest-path, or replace it with --force",
    )


def _require_room(order: Order, seen: Seen, staged: Staged) -> None:
    if seen.kind != "ours" and seen.free_bytes and staged.size_bytes > seen.free_bytes:
        name = order.shell.vm_name
        raise Problem(
            Code.NO_SPACE,
            f"{name} has {render_size(seen.free_bytes)} free for {render_size(staged.size_bytes)} of files",
            hint=f"banger vm stop {name} && banger vm set {name} --disk-size SIZE",
            outcome=Outcome.NOT_STARTED,
        )


def _get_text(path: bytes) -> str:
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_request("a submodule's path is no text", hint="git mv it") from error
