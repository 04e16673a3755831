"""A guest's commits, brought back as refs of the host's repository: `refs/banger/VM/BRANCH`.

The guest says which branches it has and sends one pack of what the host lacks. Nothing of it counts before it has been
through quarantine. Then the objects enter the host's repository, and after them all refs in one transaction, with
their old values verified. A ref is moved to a commit that does not contain its old one by force only; what it was
stays in its reflog. Nothing is checked out, merged or run: no hook, filter or helper of either side.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from banger.base.problem import Code, Problem, bad_request, conflict, not_found
from banger.base.progress import Progress, stage
from banger.base.tasks import in_thread, to_the_end
from banger.guest.agent import Agent
from banger.guest.command import ExecRequest
from banger.model.returned import Move, Returned, ReturnedBranch, read_branch, show_path
from banger.model.workspace import Workspace, is_object_id
from banger.services.workspaces.export import Bounds, read_script
from banger.services.workspaces.git import git_failed, run_git
from banger.services.workspaces.inspect import Repository, inspect
from banger.services.workspaces.limited import Limits, bad_pack
from banger.services.workspaces.links import require_own_refs
from banger.services.workspaces.quarantine import Pack, Quarantine, open_quarantine
from banger.services.workspaces.report import is_ancestor, judge_tree, read_history
from banger.services.workspaces.snapshot import plan_script, render_plain, render_snapshot

NAMESPACE = "refs/banger"
DETACHED = "HEAD"
_BRANCHES_MAX = 200
_LIST_BYTES = 1 << 20
_NAMES_BYTES = 16 << 20
_WHO = {f"GIT_COMMITTER_{what}": value for what, value in (("NAME", "banger"), ("EMAIL", "banger@localhost"))}
_LIST = """
banger_git for-each-ref --format='%(objectname) %(refname)' refs/heads || exit 95
if ! banger_git symbolic-ref -q HEAD >/dev/null; then
    id=$(banger_git rev-parse -q --verify 'HEAD^{commit}') && printf '%s HEAD\\n' "$id"
fi
:
"""
_PACK = """
wanted=$1
shift
for id do
    if [ "$wanted" -gt 0 ]; then
        wanted=$((wanted - 1))
        printf '%s\\n' "$id"
    elif banger_git cat-file -e "$id^{commit}" 2>/dev/null; then
        printf '^%s\\n' "$id"
    fi
done | banger_git pack-objects --revs --stdout -q --delta-base-offset
"""
_UNCOMMITTED = """
head=$(banger_git rev-parse -q --verify 'HEAD^{tree}') || head=$(banger_git hash-object -t tree /dev/null)
banger_git diff-tree -r -z --name-only --no-renames "$base" "$tree" || exit 95
printf '\\0'
banger_git diff-tree -r -z --name-only --no-renames "$head" "$tree"
"""


class Order(NamedTuple):
    """What is to be pulled. No branches: all that the guest has."""

    vm_name: str
    branches: tuple[str, ...]
    force: bool
    limits: Limits


class Tip(NamedTuple):
    branch: str
    commit: str


class Pulling(NamedTuple):
    """The ends of a pull."""

    agent: Agent
    workspace: Workspace
    repository: Repository
    order: Order

    def ref(self, branch: str) -> str:
        return f"{NAMESPACE}/{self.order.vm_name}/{branch}"

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.order.limits.pack_bytes, self.order.limits.stall_s, self.order.vm_name)


async def pull(agent: Agent, workspace: Workspace, order: Order, root: Path, progress: Progress) -> Returned:
    """`root` is where quarantines are. Raises Problem with nothing changed."""
    work = Pulling(agent, workspace, await inspect(workspace.host_root), order)
    with stage(progress, "ask the guest"):
        tips, notes = await _list_tips(work)
        refs = await _list_refs(work)
        tips = _choose(work, tips, refs)
    returned = Returned(vm=order.vm_name, repository=workspace.host_root, branches=[])
    if tips:
        async with open_quarantine(root, work.repository, order.limits) as quarantine:
            returned = await _pull_into(quarantine, work, tips, refs, progress)
    with stage(progress, "look for what is not committed"):
        uncommitted = await _count_uncommitted(work)
    return msgspec.structs.replace(returned, uncommitted=uncommitted, notes=notes)


async def _pull_into(
    quarantine: Quarantine,
    work: Pulling,
    tips: Sequence[Tip],
    refs: dict[str, str],
    progress: Progress,
) -> Returned:
    known = await _list_known(work, refs)
    with stage(progress, "fetch"):
        pack = await _fetch(quarantine, work, tips, known)
        progress.tell(f"{pack.objects} objects, {pack.pack_bytes >> 10} KiB")
    with stage(progress, "check"):
        branches = [await _report(quarantine, work, tip, refs, known) for tip in tips]
        _refuse_rewritten(work, branches)
    with stage(progress, "publish"):
        moved = [branch for branch in branches if branch.move != "unchanged"]
        await to_the_end(_publish(quarantine, work, pack, moved))
    return Returned(
        vm=work.order.vm_name,
        repository=work.workspace.host_root,
        branches=branches,
        objects=pack.objects,
        pack_bytes=pack.pack_bytes,
        unpacked_bytes=pack.unpacked_bytes,
    )


async def _fetch(quarantine: Quarantine, work: Pulling, tips: Sequence[Tip], known: Sequence[str]) -> Pack:
    workspace = work.workspace
    wanted = [*dict.fromkeys(tip.commit for tip in tips)]
    have = [
        each
        for each in dict.fromkeys((workspace.base_commit, workspace.head_commit, *_newest(known)))
        if each
    ]
    request = plan_script(workspace, render_plain(_PACK), (str(len(wanted)), *wanted, *have))
    pack = await quarantine.take(read_script(work.agent, workspace, request, work.bounds))
    described = await quarantine.describe([each.encode() for each in wanted])
    strange = [words for words in described if words[1] != b"commit"]
    if strange:
        raise bad_pack(f"{strange[0][0].decode()} is a {strange[0][1].decode()}, not a commit")
    return pack


async def _report(
    quarantine: Quarantine, work: Pulling, tip: Tip, refs: dict[str, str], known: Sequence[str]
) -> ReturnedBranch:
    history = await read_history(quarantine, tip.commit, known)
    base = work.workspace.base_commit if work.workspace.base_commit in known else ""
    tree = await judge_tree(quarantine, work.repository.object_format, base, tip.commit)
    ref = work.ref(tip.branch)
    before = refs.get(ref, "")
    return ReturnedBranch(
        branch=tip.branch,
        ref=ref,
        commit=tip.commit,
        before=before,
        move=await _judge_move(quarantine, before, tip.commit),
        commit_count=history.length,
        commits=history.newest,
        files=tree.files,
        findings=tree.findings,
    )


async def _judge_move(quarantine: Quarantine, before: str, now: str) -> Move:
    if not before:
        return "new"
    if before == now:
        return "unchanged"
    return "forward" if await is_ancestor(quarantine, before, now) else "rewritten"


def _refuse_rewritten(work: Pulling, branches: Sequence[ReturnedBranch]) -> None:
    rewritten = [branch.branch for branch in branches if branch.move == "rewritten"]
    if rewritten and not work.order.force:
        raise conflict(
            f"the guest has rewritten {', '.join(rewritten)}: the commits that were pulled before are not in it",
            hint=f"banger workspace pull --force {work.order.vm_name} (the old ones stay in the ref's reflog)",
        )


async def _publish(
    quarantine: Quarantine, work: Pulling, pack: Pack, moved: Sequence[ReturnedBranch]
) -> None:
    """Objects first, refs last and together."""
    if not moved:
        return
    host = work.repository
    await in_thread(require_own_refs, host.root, host.git_dir, host.common, [each.ref for each in moved])
    if pack.objects:
        await quarantine.publish(pack)
    lines = []
    for branch in moved:
        old = f"{branch.before}\0" if branch.before else ""
        verb = "update" if branch.before else "create"
        lines.append(f"{verb} {branch.ref}\0{branch.commit}\0{old}")
    arguments = (
        "update-ref",
        "--no-deref",
        "--create-reflog",
        "-m",
        "banger workspace pull",
        "--stdin",
        "-z",
    )
    done = await run_git(host.place, arguments, stdin="".join(lines).encode(), environment=_WHO, check=False)
    if done.status != 0:
        problem = git_failed(done)
        raise Problem(
            Code.CONFLICT,
            f"the refs below {work.ref('')} cannot be moved",
            detail=problem.detail,
            hint=f"git -C {host.shown} for-each-ref {work.ref('')}",
        )


# What both sides have


async def _list_tips(work: Pulling) -> tuple[list[Tip], list[str]]:
    """The guest's branches, and notes about those whose names are no names for us."""
    request = plan_script(work.workspace, render_plain(_LIST))
    listed = await _read_all(work, limit_bytes=_LIST_BYTES, request=request)
    tips: dict[str, Tip] = {}
    odd = 0
    for line in listed.splitlines():
        id_, _, ref = line.partition(b" ")
        branch = DETACHED if ref == b"HEAD" else read_branch(ref.removeprefix(b"refs/heads/"))
        commit = id_.decode("ascii", "replace")
        if ref != b"HEAD" and not ref.startswith(b"refs/heads/"):
            branch = None
        if branch is None or not is_object_id(commit) or len(commit) != _id_length(work) or branch in tips:
            odd += 1
            continue
        tips[branch] = Tip(branch, commit)
    if len(tips) > _BRANCHES_MAX and not work.order.branches:
        raise bad_request(
            f"the guest has {len(tips)} branches, at most {_BRANCHES_MAX} are pulled together",
            hint=f"banger workspace pull --branch NAME {work.order.vm_name}",
        )
    return [*tips.values()], [f"{odd} branches have names that cannot be taken over"] if odd else []


def _id_length(work: Pulling) -> int:
    return 64 if work.repository.object_format == "sha256" else 40


def _choose(work: Pulling, tips: Sequence[Tip], refs: dict[str, str]) -> list[Tip]:
    """Those that were asked for; otherwise all that are somewhere else than at the beginning, or were pulled before."""
    if not work.order.branches:
        base = work.workspace.base_commit
        return [tip for tip in tips if tip.commit != base or work.ref(tip.branch) in refs]
    by_name = {tip.branch: tip for tip in tips}
    missing = [name for name in work.order.branches if name not in by_name]
    if missing:
        raise not_found(
            f"the guest has no branch {show_path(missing[0].encode())[:100]}",
            hint=f"it has {', '.join(sorted(by_name)[:10]) or 'none'}",
        )
    return [by_name[name] for name in dict.fromkeys(work.order.branches)]


async def _list_refs(work: Pulling) -> dict[str, str]:
    listed = await _for_each_ref(work, "%(objectname) %(refname)", work.ref(""))
    pairs = (line.partition(" ") for line in listed)
    return {ref: id_ for id_, _, ref in pairs}


async def _list_known(work: Pulling, refs: dict[str, str]) -> list[str]:
    """Commits whose whole history the host has: those that the guest may know first, then whatever a ref names."""
    ids = [*refs.values(), *await _for_each_ref(work, "%(objectname)", "refs/")]
    base = work.workspace.base_commit
    asked = ("cat-file", "-e", f"{base}^{{commit}}")
    has_base = base and (await run_git(work.repository.place, asked, check=False)).status == 0
    first = [each for each in (base if has_base else "", work.repository.head) if each]
    return [*dict.fromkeys([*first, *ids])]


def _newest(known: Sequence[str]) -> Sequence[str]:
    """The guest is not told every ref of the host's: what was brought or pulled is among the first."""
    return known[:_BRANCHES_MAX]


async def _for_each_ref(work: Pulling, form: str, *below: str) -> list[str]:
    done = await run_git(work.repository.place, ("for-each-ref", f"--format={form}", *below))
    return done.stdout.decode("utf-8", "surrogateescape").splitlines()


async def _count_uncommitted(work: Pulling) -> int | None:
    """Files that are neither as they came nor as the guest's newest commit has them."""
    script = plan_script(work.workspace, render_snapshot(_UNCOMMITTED), (work.workspace.base_tree,))
    try:
        listed = await _read_all(work, limit_bytes=_NAMES_BYTES, request=script)
    except Problem:
        return None
    words = listed.split(b"\0")
    if b"" not in words[:-1]:
        return None
    middle = words.index(b"")
    return len(set(words[:middle]) & set(words[middle + 1 : -1]))


async def _read_all(work: Pulling, *, limit_bytes: int, request: ExecRequest) -> bytes:
    bounds = work.bounds._replace(size_bytes=limit_bytes)
    return b"".join([data async for data in read_script(work.agent, work.workspace, request, bounds)])
