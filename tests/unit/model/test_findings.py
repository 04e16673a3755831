"""What deserves a look, and how the guest's bytes are shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.model.findings import FINDINGS_MAX, LARGE_BYTES, Contents, list_findings
from banger.model.returned import (
    ABSENT,
    LINK,
    NESTED,
    PROGRAM,
    REGULAR,
    Change,
    FileCounts,
    count_files,
    parse_changes,
    read_branch,
    show_line,
    show_path,
)

ZERO, OLD, NEW = "0" * 40, "1" * 40, "2" * 40


def added(path: bytes, mode: str = REGULAR) -> Change:
    return Change(path, ABSENT, mode, ZERO, NEW)


def judge(
    *changes: Change, content: bytes | None = b"", size: int = 0, **others: object
) -> list[tuple[str, str]]:
    contents = Contents({NEW: content}, {NEW: size}, **others)  # type: ignore[arg-type]
    return [
        (found.kind, found.what)
        for found in list_findings(changes, contents, [change.path for change in changes])
    ]


def kinds(*changes: Change, content: bytes | None = b"", size: int = 0) -> list[str]:
    return [kind for kind, _ in judge(*changes, content=content, size=size)]


@pytest.mark.parametrize(
    "path", [b"src/a.c", b"README", b".gitignore", b"docs/hooks.md", b"a b/c", b"\xc3\xa4"]
)
def test_ordinary_files_are_no_finding(path: bytes) -> None:
    assert kinds(added(path)) == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b".githooks/pre-commit", "hook"), (b"sub/.husky/x", "hook"), (b".pre-commit-config.yaml", "hook"), (b"hooks/update", "hook"),
        (b".github/workflows/x.yml", "automation"), (b".gitlab-ci.yml", "automation"), (b"Jenkinsfile", "automation"),
        (b".circleci/config.yml", "automation"), (b".vscode/tasks.json", "automation"), (b"a/.envrc", "automation"),
        (b".GITHUB/workflows/x.yml", "automation"), (b"mise.toml", "automation"), (b".devcontainer/devcontainer.json", "automation"),
        (b"a\nb", "name"), (b"\xff", "name"), (b"-rf", "name"), (b"con.txt", "name"), (b"x/nul", "name"), (b"a.", "name"), (b"a:b", "name"),
        ("a\u202eb".encode(), "name"), ("a\u200bb".encode(), "name"), (b"x" * 241, "name"),
    ],
)  # fmt: skip
def test_places_and_names_that_deserve_a_look(path: bytes, kind: str) -> None:
    assert kinds(added(path)) == [kind]


@pytest.mark.parametrize(
    ("path", "target", "is_found"),
    [
        (b"a", b"b", False), (b"a", b"../b", True), (b"d/a", b"../b", False), (b"d/a", b"../../b", True), (b"a", b"/etc", True),
        (b"a", b"x/../../b", True), (b"d/a", b"x/../../b", False), (b"a", b".git/config", True), (b"d/a", b"../.GIT/hooks", True),
        (b"a", b"..", True), (b"a", b".", False), (b"a", b"...", False), (b"d/e/a", b"./.././../b", False), (b"a", None, True),
    ],
)  # fmt: skip
def test_links_that_leave_the_tree(path: bytes, target: bytes | None, is_found: bool) -> None:
    assert kinds(added(path, LINK), content=target) == (["link"] if is_found else [])


def test_attributes_that_name_programs() -> None:
    content = b"*.a filter=lfs -text\n*.b diff=word merge=union\n*.c merge=mine working-tree-encoding=UTF-16\n*.d text\n"
    found = judge(added(b"sub/.gitattributes"), content=content)
    assert [kind for kind, _ in found] == ["attribute"] * 4
    assert [what.split(":")[0] for _, what in found] == [
        "filter=lfs",
        "diff=word",
        "merge=mine",
        "working-tree-encoding",
    ]
    assert kinds(added(b".gitattributes"), content=None) == ["attribute"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://example.com/x", "comes from https"), ("-x", "option"), ("ext::sh -c x", "helper"), ("/srv/x", "your own machine"),
        ("file:///x", "your own machine"), ("../x", "beside"), ("http://example.com/x", "not encrypted"),
    ],
)  # fmt: skip
def test_submodules_that_are_new(url: str, words: str) -> None:
    found = judge(added(b".gitmodules"), submodules=[("submodule.x.url", url), ("submodule.x.path", "x")])
    assert [kind for kind, _ in found] == ["submodule", "submodule"]
    assert words in found[0][1]
    known = [("submodule.x.url", url), ("submodule.x.path", "x")]
    assert judge(added(b".gitmodules"), submodules=known, old_submodules=known) == []
    assert judge(added(b".gitmodules"), submodules=None) == [("submodule", "cannot be read as settings")]


def test_modes_and_sizes() -> None:
    assert kinds(Change(b"a", REGULAR, PROGRAM, OLD, NEW)) == ["mode"]
    assert kinds(Change(b"a", REGULAR, LINK, OLD, NEW), content=b"b") == ["mode"]
    assert kinds(Change(b"a", ABSENT, NESTED, ZERO, NEW)) == ["nested"]
    assert kinds(Change(b"a", NESTED, NESTED, OLD, NEW)) == ["nested"]
    assert kinds(added(b"a", PROGRAM)) == []
    assert kinds(added(b"a"), size=LARGE_BYTES) == ["size"]
    assert kinds(Change(b"a", REGULAR, ABSENT, OLD, ZERO)) == []


def test_names_that_are_one_name_elsewhere() -> None:
    assert [what for _, what in judge(added(b"A"), added(b"a"))] == [
        "is the same as a on systems that do not tell them apart",
        "is the same as A on systems that do not tell them apart",
    ]
    assert kinds(added(b"SRC/x"), added(b"src/y")) == ["name", "name"]
    assert kinds(added("\u00e4".encode()), added("a\u0308".encode())) == ["name", "name"]
    assert kinds(added(b"a/b"), added(b"a/c")) == []


def test_findings_without_end_are_counted() -> None:
    found = list_findings([added(b"-%d" % number) for number in range(FINDINGS_MAX + 7)], Contents({}, {}))
    assert len(found) == FINDINGS_MAX + 1
    assert found[-1].what == "7 more findings are not listed"


def test_changes_are_read_as_git_writes_them() -> None:
    raw = f":100644 100755 {OLD} {NEW} M\0a b\nc\0:000000 120000 {ZERO} {NEW} A\0\xff\0".encode("latin-1")
    changes = parse_changes(raw)
    assert [change.path for change in changes] == [b"a b\nc", b"\xff"]
    assert count_files(changes) == FileCounts(added=1, modified=1)
    assert parse_changes(b"") == []
    for bad in (b"x", raw[:-1], b"x\0y\0"):
        with pytest.raises(ValueError):
            parse_changes(bad)


@pytest.mark.parametrize("name", [b"main", b"feature/x", b"a-b_c.d", "ä".encode(), b"v1.0", b"HEAD", b"a@b"])
def test_branches_that_become_refs(name: bytes) -> None:
    assert read_branch(name) == name.decode()


@given(st.binary(max_size=40))
def test_no_branch_leaves_its_place(name: bytes) -> None:
    branch = read_branch(name)
    if branch is not None:
        parts = branch.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert not any(part.startswith(("-", ".")) or part.endswith(".lock") for part in parts)
        assert branch.isprintable()
        assert not set(branch) & set(" ~^:?*[\\")


@given(st.binary(max_size=60))
def test_no_two_paths_look_the_same_and_none_drives_a_terminal(path: bytes) -> None:
    shown = show_path(path)
    assert shown.isprintable()
    assert shown == show_path(bytes(path))
    assert show_path(path + b"x") != shown


@given(st.text(max_size=400))
def test_a_line_is_one_line(text: str) -> None:
    assert show_line(text).isprintable()
    assert len(show_line(text)) <= 300
