import pytest

from banger.base.problem import Problem
from banger.model.workspace import (
    Workspace,
    list_some,
    looks_secret,
    pick_guest_path,
    strip_url,
    validate_branch,
)


@pytest.mark.parametrize(
    ("url", "stripped"),
    [
        ("https://example.com/a/b.git", "https://example.com/a/b.git"),
        ("https://me:token@example.com/a.git", "https://example.com/a.git"),
        ("https://token@example.com:8443/a.git?access_token=x#y", "https://example.com:8443/a.git"),
        ("https://a@b:p@example.com/x@y", "https://example.com/x@y"),
        ("ssh://me:pw@example.com:2222/a.git", "ssh://git@example.com:2222/a.git"),
        ("me@example.com:a/b.git", "git@example.com:a/b.git"),
        ("example.com:a.git", "git@example.com:a.git"),
        ("/home/me/private.git", None),
        ("../other", None),
        ("file:///home/me/private.git", None),
        ("ext::sh -c evil", None),
        ("https://user:pass/word@example.com/x", None),
        ("ssh://[::1]:22/x", "ssh://git@[::1]:22/x"),
        ("https://example.com/a b", None),
        ("", None),
    ],
)
def test_an_address_goes_without_who_and_with_what(url: str, stripped: str | None):
    assert strip_url(url) == stripped


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("repo", "/root/repo"),
        ("a b", "/root/a-b"),
        ("new\nline", "/root/new-line"),
        ("-rf", "/root/rf"),
        (".hidden", "/root/hidden"),
        ("ä", "/root/workspace"),
        ("...", "/root/workspace"),
        ("x" * 300, "/root/" + "x" * 100),
    ],
)
def test_the_place_is_named_as_the_directory_is(name: str, path: str):
    assert pick_guest_path(name, None) == path


@pytest.mark.parametrize(
    "path", ["x", "/", "/root", "/root/", "/root/../etc/x", "/a//b", "/root/a\nb", "/proc/1", "/sys/x", ""]
)
def test_a_place_that_is_none_of_its_own_is_refused(path: str):
    with pytest.raises(Problem) as caught:
        pick_guest_path("repo", path)
    assert caught.value.hint


def test_a_place_may_be_named():
    assert pick_guest_path("repo", "/srv/it/") == "/srv/it"


@pytest.mark.parametrize(
    "name",
    ["", "-x", "a..b", "a b", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b",
     "a@{1}", "@", "a.", "a\x7f", "a\nb", "x" * 300],
)  # fmt: skip
def test_what_git_takes_for_no_branch_is_refused(name: str):
    with pytest.raises(Problem):
        validate_branch(name)


@pytest.mark.parametrize("name", ["main", "a/b", "fix-1.2", "ümlaut", "a@b", "HEAD2"])
def test_branches(name: str):
    assert validate_branch(name) == name


def test_files_that_look_like_secrets():
    secret = (".env", "a/.env.local", "id_rsa", "keys/server.pem", "credentials.json", ".netrc")
    plain = ("environment", "env", "main.c", "monkey.txt", "id_rsa.pub", "secretary.py")
    assert [name for name in (*secret, *plain) if looks_secret(name)] == [*secret]


def test_where_commands_begin():
    row = Workspace(vm_id="1", host_root="/h", guest_path="/root/h", subdirectory="a/b")
    assert row.directory == "/root/h/a/b"


def test_a_long_list_is_cut():
    assert list_some("abcdefg") == "a, b, c, d, e and 2 more"
    assert list_some("abcdefg", most=10) == "a, b, c, d, e, f, g"
