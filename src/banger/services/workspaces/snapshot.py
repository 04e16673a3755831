"""The guest's working tree as a tree of its git: the shell that makes it there, and what it was when it was brought.

Runs in the guest only. The user's index is copied, never written; new objects go to a directory that is removed again,
beside the repository's own. `refs/banger/base` alone stays: the tree as it was right after a prepare, cleaned as
git does (line ends, filters of the guest's own configuration), so that it compares with what git makes of the tree
today. Programs that the guest's repository is configured to run would run in the guest, where they belong; those that
would change the output are off all the same.
"""

from collections.abc import Sequence

from banger.base.problem import Code, Problem
from banger.guest.command import ExecRequest
from banger.model.workspace import Workspace, is_object_id
from banger.services.workspaces.shell import Shell, awaiting

BASE_REF = "refs/banger/base"
PREPARED_REF = "refs/banger/prepared"
NO_REPOSITORY, NO_GIT, NO_BASE = 96, 97, 98
_ERROR_CHARACTERS = 2000

_ENVIRONMENT = (
    ("LC_ALL", "C"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_PAGER", "cat"),
)
# Git's own variables are dropped: what a login profile sets is not meant for us.
_OPENING = """
set -u
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_NAMESPACE
command -v git >/dev/null || exit 97
banger_git() {
    git --no-pager -c safe.directory='*' -c core.hooksPath=/dev/null -c core.fsmonitor=false \\
        -c core.untrackedCache=false -c core.splitIndex=false -c core.safecrlf=false -c core.protectHFS=true \\
        -c core.warnAmbiguousRefs=false -c advice.addEmbeddedRepo=false -c gc.auto=0 -c maintenance.auto=false "$@"
}
directory=$(banger_git rev-parse --absolute-git-dir && echo x) || exit 96
directory=${directory%?x}
"""
_TEMPORARY = """
umask 077
find "$directory" -maxdepth 1 -name 'banger-out.*' -mmin +60 -exec rm -rf {} + 2>/dev/null
place=$(mktemp -d "$directory/banger-out.XXXXXX" 2>/dev/null) || place=$(mktemp -d) || exit 95
trap 'rm -rf "$place"' EXIT
trap 'exit 143' TERM HUP INT PIPE
index=$(banger_git rev-parse --git-path index && echo x) || exit 96
index=${index%?x}
[ ! -f "$index" ] || cp -p -- "$index" "$place/index" || exit 95
GIT_INDEX_FILE=$place/index
export GIT_INDEX_FILE
"""
_APART = """
objects=$(banger_git rev-parse --git-path objects && echo x) || exit 96
objects=${objects%?x}
case $objects in /*) ;; *) objects=$(pwd)/$objects ;; esac
mkdir "$place/objects" || exit 95
GIT_OBJECT_DIRECTORY=$place/objects
GIT_ALTERNATE_OBJECT_DIRECTORIES=$(printf '%s' "$objects" | sed -e 's/[\\\\"]/\\\\&/g' -e '1s/^/"/' -e '$s/$/"/')
export GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
"""
# What base has and the index has not may still be there, ignored. It is added one by one, since update-index stops at
# the first that is a directory by now or is behind a link.
_SNAPSHOT = """
base=$(banger_git rev-parse --verify --quiet "$1^{tree}") || exit 98
banger_git diff-index --cached --no-renames --name-only -z --diff-filter=D "$base" >"$place/gone" || exit 95
if [ -s "$place/gone" ]; then
    xargs -0 sh -c 'for file do
        if [ -L "$file" ] || [ -f "$file" ]; then
            git -c safe.directory="*" -c core.safecrlf=false -c core.fsmonitor=false -c core.hooksPath=/dev/null \\
                update-index --add --replace -- "$file" 2>/dev/null
        fi
    done; :' sh <"$place/gone" || exit 95
fi
banger_git ls-files -z --others --exclude-standard >"$place/new" || exit 95
banger_git update-index --add --replace -z --stdin <"$place/new" || exit 95
banger_git add -u >/dev/null || exit 95
tree=$(banger_git write-tree) || exit 95
"""
_RECORD = """
banger_git ls-tree -r -z --name-only --full-tree refs/banger/prepared >"$place/names" || exit 98
banger_git update-index --add --remove --replace -z --stdin <"$place/names" || exit 95
banger_git diff-index --cached --no-renames --name-only -z --diff-filter=A refs/banger/prepared >"$place/extra" ||
    exit 95
banger_git update-index --force-remove -z --stdin <"$place/extra" || exit 95
tree=$(banger_git write-tree) || exit 95
banger_git update-ref refs/banger/base "$tree" || exit 95
printf '%s\\n' "$tree"
"""


def render_plain(work: str) -> str:
    """A shell script that has `banger_git` and changes nothing itself."""
    return _OPENING + work


def render_snapshot(work: str) -> str:
    """A shell script whose `work` has $base and $tree, of which the first argument is the base. Nothing of it stays."""
    return _OPENING + _TEMPORARY + _APART + _SNAPSHOT + work


def plan_script(workspace: Workspace, script: str, arguments: Sequence[str] = ()) -> ExecRequest:
    return ExecRequest(
        argv=("/bin/sh", "-c", script, "sh", *arguments), env=_ENVIRONMENT, cwd=workspace.guest_path
    )


async def record_base(shell: Shell, workspace: Workspace) -> str:
    """What the working tree is right now, of the paths of `refs/banger/prepared`, becomes the base; its tree's id.
    Raises `unavailable` when the guest keeps silent."""
    request = plan_script(workspace, _OPENING + _TEMPORARY + _RECORD)
    async with awaiting(shell.vm_name, shell.stall_s):
        result = await shell.agent.run(request.argv, env=request.env, cwd=request.cwd)
    tree = result.stdout.decode("ascii", "replace").strip()
    if result.status != 0 or not is_object_id(tree):
        raise explain_end(workspace, shell.vm_name, result.status, result.stderr)
    return tree


def explain_end(workspace: Workspace, vm_name: str, status: int, stderr: bytes) -> Problem:
    """Why a script of ours ended in the guest. What it said is the guest's word: printable, and not too much of it."""
    path = workspace.guest_path
    if status == NO_REPOSITORY:
        return Problem(
            Code.CONFLICT,
            f"{path} in the guest is no git repository",
            hint=f"banger workspace prepare {vm_name}",
        )
    if status == NO_GIT:
        return Problem(
            Code.UNAVAILABLE,
            "the guest has no git",
            hint=f"banger vm exec {vm_name} -- apt-get install -y git",
        )
    if status == NO_BASE:
        return Problem(
            Code.CONFLICT,
            f"the repository at {path} in the guest has lost what it was prepared with",
            hint=f"banger workspace export --base-commit COMMIT {vm_name}",
        )
    said = "\n".join(stderr.decode("utf-8", "replace").strip().splitlines()[-8:])
    return Problem(
        Code.OPERATION_FAILED,
        f"git in the guest failed at {path} (status {status})",
        detail=defuse(said)[:_ERROR_CHARACTERS] or None,
    )


def defuse(untrusted_text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in untrusted_text)
