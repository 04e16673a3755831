"""Repositories that steps alone cannot build: each of these takes a case and makes it somewhere odd.

Each is given a directory of its own and returns the working tree.
"""

from pathlib import Path

from tests.support.repositories import Case, Write, commit, make_plain, perform, run_git


def make_worktree(directory: Path, case: Case) -> Path:
    """A linked one: `.git` is a file, and refs and objects are elsewhere."""
    main = make_plain(directory / "main", case)
    run_git(main, "worktree", "add", "--quiet", "-b", "side", str(directory / "host"))
    return directory / "host"


def make_detached(directory: Path, case: Case) -> Path:
    tree = make_plain(directory / "host", case)
    run_git(tree, "checkout", "--quiet", "--detach")
    return tree


def make_packed(directory: Path, case: Case) -> Path:
    tree = make_plain(directory / "host", case)
    run_git(tree, "tag", "-a", "-m", "a tag", "v1")
    run_git(tree, "branch", "other/branch")
    run_git(tree, "pack-refs", "--all")
    run_git(tree, "repack", "-a", "-d", "--quiet")
    return tree


def make_borrowing(directory: Path, case: Case) -> Path:
    """Its history is in another repository's objects."""
    source = make_plain(directory / "so urce", case)
    run_git(directory, "clone", "--quiet", "--shared", str(source), "host")
    return directory / "host"


def make_shallow(directory: Path, case: Case) -> Path:
    source = make_plain(directory / "source", case)
    for number in range(4):
        perform(source, [Write(b"counter", b"%d\n" % number), *commit(f"count {number}")])
    run_git(directory, "clone", "--quiet", "--depth=2", f"file://{source}", "host")
    return directory / "host"


def make_grafted(directory: Path, case: Case) -> Path:
    """refs/replace gives a commit another face."""
    tree = make_plain(directory / "host", case)
    perform(tree, [Write(b"second", b"2\n"), *commit("second")])
    run_git(tree, "replace", "--graft", "HEAD")
    return tree


def make_with_submodule(directory: Path, case: Case) -> Path:
    inner = make_plain(directory / "inner", Case("inner", [Write(b"in", b"inner\n")]))
    tree = make_plain(directory / "host", case)
    run_git(tree, "submodule", "--quiet", "add", str(inner), "sub")
    perform(tree, commit("with a submodule"))
    return tree


def make_nested(directory: Path, case: Case) -> Path:
    """A repository in the repository that is no submodule, and that git does not track."""
    tree = make_plain(directory / "host", case)
    make_plain(tree / "nested", Case("nested", [Write(b"in", b"nested\n")]))
    return tree


def make_guarded(directory: Path, case: Case) -> Path:
    """Hooks and configuration that run programs: none of them may run, on the host or because of us."""
    tree = make_plain(directory / "host", case)
    for hook in ("pre-commit", "post-checkout", "post-merge", "reference-transaction", "post-index-change"):
        path = tree / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch '{directory}/ran-{hook}'\n")
        path.chmod(0o755)
    trip = f"touch '{directory}/ran-config'; cat"
    for key in (
        "core.fsmonitor",
        "diff.external",
        "filter.trip.clean",
        "filter.trip.smudge",
        "diff.trip.textconv",
    ):
        run_git(tree, "config", key, trip)
    run_git(tree, "config", "filter.trip.required", "true")
    run_git(tree, "config", "core.pager", trip)
    run_git(tree, "config", "core.sshCommand", trip)
    return tree
