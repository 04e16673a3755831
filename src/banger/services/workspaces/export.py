"""What a guest has made of its workspace, as a stream of bytes: a patch, its commits as mail, or a summary.

The patch is the difference of two trees of the guest's git, so it does not depend on the guest's index, and is one that
`git apply` takes: whole object names, binary content as such, every path as it is, and nothing that a repository's
configuration could make of it. Renames are told as a removal and an addition, which applies in any order. The bytes are
the guest's word: whoever shows them on a terminal makes them harmless first.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import NamedTuple

from banger.base.problem import Code, Problem, bad_request, conflict
from banger.guest.agent import Agent
from banger.guest.command import Command, ExecRequest
from banger.guest.errors import CannotStart
from banger.guest.frames import Stream
from banger.model.workspace import Workspace
from banger.services.contract import CommandStream
from banger.services.workspaces.shell import STALL_S, awaiting
from banger.services.workspaces.snapshot import (
    NO_BASE,
    explain_end,
    plan_script,
    render_plain,
    render_snapshot,
)

_REVISION = re.compile(r"[^\x00-\x20\x7f:?*\[\\-][^\x00-\x20\x7f:?*\[\\]{0,199}")
_ERROR_BYTES = 8192
_DIFF = (
    "--no-ext-diff --no-textconv --no-color --no-relative --no-indent-heuristic --submodule=short "
    "--ignore-submodules=none -O/dev/null "
    '--src-prefix="a$mark/" --dst-prefix="b$mark/"'
)
_CONTEXT = "-U3 --inter-hunk-context=0"  # asks for a patch, whatever else is asked for
# `git apply` reads the name of an empty or binary file from the first line, and gets one with a directory that ends in
# a space wrong unless it is in quotes: a backslash in the prefix, which is cut off, makes git write them.
_MARK = """
mark=
if { %s; } | tr '\\000' '\\n' | grep -q ' /'; then mark='\\'; fi
"""
_PLAIN_MARK = "mark=\n"
_PATCH = (
    _MARK % 'banger_git diff-tree -r --name-only -z --no-renames "$base" "$tree"'
    + f'banger_git diff-tree -r -p --binary --full-index --no-renames {_DIFF} {_CONTEXT} "$base" "$tree"\n'
)
_SHOWN = _PLAIN_MARK + f'banger_git diff-tree -r -p -M {_DIFF} {_CONTEXT} "$base" "$tree"\n'
_STAT = _PLAIN_MARK + f'banger_git diff-tree -r --stat=100,80 -M {_DIFF} "$base" "$tree"\n'
_NAMES = _PLAIN_MARK + f'banger_git diff-tree -r --name-only --no-renames {_DIFF} "$base" "$tree"\n'
_MAIL = f"""
case ${{1:-}} in
    '') set -- --root HEAD ;;
    *) banger_git rev-parse --verify --quiet "$1^{{commit}}" >/dev/null || exit 98; set -- "$1..HEAD" ;;
esac
banger_git rev-parse --verify --quiet HEAD^0 >/dev/null || exit 0
{_MARK % 'banger_git log --format= --name-only -z --no-renames "$@"'}
banger_git -c format.outputDirectory= -c log.showSignature=false -c i18n.logOutputEncoding=UTF-8 format-patch \\
    --stdout --binary --full-index --no-renames --no-attach --no-signature --no-cover-letter --no-signoff --no-thread \\
    --no-to --no-cc --no-add-header --no-base --no-notes --subject-prefix=PATCH {_DIFF} {_CONTEXT} "$@"
"""


class Bounds(NamedTuple):
    """What a guest may cost us before it is cut off. `stall_s` is how long it may say nothing."""

    size_bytes: int = 1 << 30
    stall_s: float = STALL_S
    vm_name: str = "the guest"

    def awaiting(self) -> AbstractAsyncContextManager[object]:
        return awaiting(self.vm_name, self.stall_s)


def plan_export(workspace: Workspace, base_commit: str | None, *, commits: bool) -> ExecRequest:
    """Raises `bad_request` for a base that no guest could have."""
    if base_commit is not None and not _REVISION.fullmatch(base_commit):
        raise bad_request(f"{base_commit!r} is no commit", hint="--base-commit HEAD~1")
    if commits:
        return plan_script(workspace, render_plain(_MAIL), (base_commit or workspace.base_commit,))
    return plan_script(workspace, render_snapshot(_PATCH), (base_commit or workspace.base_tree,))


def plan_diff(workspace: Workspace, *, stat: bool, name_only: bool) -> ExecRequest:
    if stat and name_only:
        raise bad_request("--stat and --name-only contradict each other")
    work = _STAT if stat else _NAMES if name_only else _SHOWN
    return plan_script(workspace, render_snapshot(work), (workspace.base_tree,))


async def relay(
    agent: Agent,
    workspace: Workspace,
    request: ExecRequest,
    stream: CommandStream,
    bounds: Bounds = Bounds(),  # noqa: B008 (immutable)
) -> None:
    """The output of a script in the guest to a caller, who sees its beginning only when there is one, and its end only
    when it is whole."""
    accepted = False
    async with aclosing(read_script(agent, workspace, request, bounds)) as pieces:
        async for data in pieces:
            if not accepted:
                await stream.accept()
                accepted = True
            await stream.write(Stream.STDOUT, data)
    if not accepted:
        await stream.accept()
    await stream.finish(status=0)


async def read_script(
    agent: Agent, workspace: Workspace, request: ExecRequest, bounds: Bounds
) -> AsyncGenerator[bytes, None]:
    """What it writes to its stdout. Raises when it fails, is silent for too long, or says too much; one that ends
    quietly is whole. The guest ends it when nobody reads on."""
    said = bytearray()
    size = 0
    async with _start(agent, workspace, request, bounds) as command:
        while (output := await _read_one(command, bounds)) is not None:
            stream, data = output
            if stream != Stream.STDOUT:
                said += data[: _ERROR_BYTES - len(said)]
                continue
            size += len(data)
            if size > bounds.size_bytes:
                raise Problem(
                    Code.OPERATION_FAILED,
                    f"the guest sends more than {bounds.size_bytes >> 20} MiB",
                    hint="raise the limit with --max-size",
                )
            yield data
        async with bounds.awaiting():
            ended = await command.wait()
    if ended.shell_status != 0:
        raise _explain(workspace, bounds.vm_name, request, ended.shell_status, bytes(said))


@asynccontextmanager
async def _start(
    agent: Agent, workspace: Workspace, request: ExecRequest, bounds: Bounds
) -> AsyncIterator[Command]:
    async with AsyncExitStack() as stack:
        try:
            async with bounds.awaiting():
                command = await stack.enter_async_context(agent.exec(request))
        except CannotStart as problem:
            raise conflict(
                f"nothing can be run in {workspace.guest_path} of the guest: {problem.brief}",
                hint=f"banger workspace prepare {bounds.vm_name}",
            ) from problem
        yield command


async def _read_one(command: Command, bounds: Bounds) -> tuple[int, bytes] | None:
    async with bounds.awaiting():
        output = await anext(command, None)
    return None if output is None else (output.stream, output.data)


def _explain(workspace: Workspace, vm_name: str, request: ExecRequest, status: int, said: bytes) -> Problem:
    base = request.argv[-1]
    if status == NO_BASE and base not in (workspace.base_tree, workspace.base_commit):
        return bad_request(f"the guest has no commit {base}", hint=f"banger vm exec {vm_name} -- git log")
    return explain_end(workspace, vm_name, status, said)
