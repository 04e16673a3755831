"""The corpus through one real guest: what was changed there is here, byte for byte, by patch and by history."""

from pathlib import Path

import pytest
from tests.support.banger import Banger, refused
from tests.support.nasty import CORPUS, find_case
from tests.support.repositories import (
    Case,
    Tree,
    Write,
    commit,
    git,
    perform,
    read_paths,
    read_working_tree,
    render_script,
    run_git,
)

BORROWED = "borrowed objects"  # refused on the way in
CASES = [case for case in CORPUS if case.name != BORROWED]


def change_in_guest(banger: Banger, vm: str, path: str, case: Case) -> None:
    script = b"cd '%s'\n" % path.encode() + render_script(case.change)
    banger.run("vm", "exec", "-i", vm, "--", "sh", "-s", input=script)


def change_twin(case: Case, directory: Path) -> Path:
    """The same, done here by plain git: what the guest's tree has to be."""
    twin = case.build(directory)
    perform(twin, case.change)
    return twin


def plain(tree: Tree) -> Tree:
    """Without repositories in the repository, and where those come from: each has a place of its own."""
    return {
        name: value for name, value in tree.items() if value[0] != "nested" and b"\turl = /" not in value[1]
    }


def list_tree(tree: Path, commit_: str) -> list[bytes]:
    """Modes, objects and names, but for the file that names a place."""
    listed = run_git(tree, "ls-tree", "-r", "-z", "--full-tree", commit_).split(b"\0")
    return [line for line in listed if not line.endswith(b"\t.gitmodules") or b"sub" not in b"".join(listed)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_was_done_in_the_guest_comes_back(banger: Banger, vm: str, case: Case, tmp_path: Path) -> None:
    host = case.build(tmp_path / "work")
    twin = change_twin(case, tmp_path / "twin")
    path = f"/root/{CASES.index(case)}"
    flags = ["--untracked", "--guest-path", path, "--force"]
    if run_git(host, "ls-files", "--stage").find(b"160000") >= 0:
        flags.append("--full")
    banger.run("workspace", "prepare", vm, str(host), *flags)
    change_in_guest(banger, vm, path, case)
    returned = banger.json("workspace", "pull", vm, "--force")
    patch = banger.run("workspace", "export", vm).stdout
    if patch:
        run_git(host, "apply", "--whitespace=nowarn", input_=patch)
    wanted = plain(read_working_tree(twin))
    assert read_paths(host, wanted) == wanted
    assert plain(read_working_tree(host)).keys() <= wanted.keys()
    heads = run_git(twin, "for-each-ref", "--format=%(refname:short)", "refs/heads").decode().split()
    for branch in returned["branches"]:
        ref = branch["ref"]
        name = ref.removeprefix("refs/banger/shared/")
        assert name in heads or name == "HEAD"
        assert list_tree(host, ref) == list_tree(twin, name)
    run_git(host, "fsck", "--strict", "--connectivity-only")


def test_what_a_user_types(banger: Banger, vm: str, tmp_path: Path) -> None:
    case = find_case("an ordinary change")
    host = case.build(tmp_path / "work")
    path = "/root/typed"
    banger.run("workspace", "prepare", vm, str(host), "--guest-path", path, "--force")
    workflow = [Write(b".github/workflows/ci.yml", b"on: push\n"), *commit("with a workflow")]
    change_in_guest(banger, vm, path, case._replace(change=[*workflow, *case.change]))
    assert "README" in banger.run("workspace", "diff", vm, "--stat").stdout.decode()
    names = banger.run("vm", "workspace", "diff", vm, "--name-only").stdout.decode().split()
    assert names == [".github/workflows/ci.yml", "README", "new"]
    text = banger.run("workspace", "pull", vm).stdout.decode()
    assert "refs/banger/shared/main" in text
    assert "2 new commits" in text
    assert ".github/workflows/ci.yml is new" in text
    assert "1 file is changed in the guest and not committed" in text
    patch = tmp_path / "work.patch"
    banger.run("workspace", "export", vm, "-o", str(patch))
    run_git(host, "apply", str(patch))
    assert (host / "new").read_bytes() == b"n\n"
    amend = [git("commit", "--quiet", "--amend", "-m", "another")]
    change_in_guest(banger, vm, path, case._replace(change=amend))
    refused(banger, "workspace", "pull", vm, status=75, words="has rewritten main", hint="--force")
    banger.run("workspace", "pull", vm, "--force")
    refused(
        banger, "workspace", "export", vm, "--base-commit", "nothing", status=64, words="no commit nothing"
    )
    assert banger.guest(vm, "sh", "-c", f"ls -d {path}/.git/banger-out.* 2>/dev/null; true") == ""
    mail = banger.run("workspace", "export", vm, "--commits").stdout
    assert mail.count(b"Subject: [PATCH") == 2
