"""Members of a group are those it lists and those whose first group it is; root counts for nobody."""

import grp
import pwd

import pytest

from banger.base import groups
from banger.base.groups import list_members

STAFF = 50


def user(name: str, uid: int, gid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, gid, "", f"/home/{name}", "/bin/sh"))


@pytest.fixture(autouse=True)
def accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {STAFF: ["root", "eve"]}

    def find(gid: int) -> grp.struct_group:
        return grp.struct_group(("staff", "x", gid, listed[gid]))

    everybody = [user("root", 0, STAFF), user("toor", 0, STAFF), user("bob", 7, STAFF), user("al", 8, 8)]
    monkeypatch.setattr(groups.grp, "getgrgid", find)
    monkeypatch.setattr(groups.pwd, "getpwall", lambda: everybody)


def test_members_are_listed_or_have_it_as_their_first_group():
    assert list_members(STAFF) == ["bob", "eve"]


def test_a_group_without_an_entry_has_whoever_is_in_it_first():
    assert list_members(8) == ["al"]
    assert list_members(9) == []
