"""Whose installation it is, and acting as that user."""

import os
import pwd

import pytest
from tests.unit.installation.conftest import OWNER_UID

from banger.client.wire import Failure
from banger.installation.owner import Owner, call_as, find_owner, get_user


@pytest.mark.parametrize(
    ("asked", "recorded", "environment"),
    [
        ("alice", None, {}),
        (str(OWNER_UID), None, {}),
        ("alice", None, {"SUDO_UID": "0", "SUDO_USER": "root"}),
        (None, OWNER_UID, {"SUDO_UID": "4711"}),
        (None, None, {"SUDO_UID": str(OWNER_UID)}),
        (None, None, {"SUDO_USER": "alice"}),
        (None, None, {"SUDO_UID": "x", "SUDO_USER": "alice"}),
    ],
)
def test_the_owner_is_who_is_named_recorded_or_called_sudo(asked, recorded, environment, home):
    assert find_owner(asked, recorded, environment) == Owner("alice", OWNER_UID, os.getgid(), str(home))


@pytest.mark.parametrize(
    ("asked", "environment", "message"),
    [
        ("bob", {}, "no user 'bob'"),
        ("root", {}, "root cannot"),
        ("0", {}, "root cannot"),
        ("-1", {}, "no user '-1'"),
        ("99999999999999999999", {}, "no user"),
        ("", {}, "no user ''"),
        (None, {}, "Root's are not possible"),
        (None, {"SUDO_UID": "0", "SUDO_USER": "root"}, "Root's are not possible"),
        (None, {"SUDO_UID": "4711"}, "no user with uid 4711"),
        (None, {"SUDO_USER": "bob"}, "Root's are not possible"),
    ],
)
def test_root_and_nobody_are_refused_with_a_hint(asked, environment, message):
    with pytest.raises(Failure, match=message) as caught:
        find_owner(asked, None, environment)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pw_name", "al ice"),
        ("pw_name", "alice\nExecStart=/bin/sh"),
        ("pw_dir", "home"),
        ("pw_dir", "/"),
        ("pw_dir", "/home/al\nice"),
        ("pw_dir", "/home/a:b"),
        ("pw_dir", "/home/../root"),
    ],
)
def test_names_that_a_unit_file_would_misread_are_refused(owner, monkeypatch, field, value):
    names = ("pw_name", "pw_passwd", "pw_uid", "pw_gid", "pw_gecos", "pw_dir", "pw_shell")
    entry = pwd.struct_passwd([value if name == field else getattr(owner, name) for name in names])
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    with pytest.raises(Failure):
        get_user(OWNER_UID)


def test_work_is_done_by_a_process_that_is_the_owner():
    owner = find_owner("alice", None, {})
    assert call_as(owner, lambda: [os.getuid(), os.geteuid(), os.getpid() != 1]) == [
        OWNER_UID,
        OWNER_UID,
        True,
    ]
    assert os.geteuid() != OWNER_UID or os.getuid() == OWNER_UID


def test_a_failure_of_the_owners_process_is_told():
    owner = find_owner("alice", None, {})
    with pytest.raises(Failure, match="No such file"):
        call_as(owner, lambda: os.scandir("/nowhere"))
    with pytest.raises(Failure, match="without an answer"):
        call_as(owner, lambda: os._exit(3))
