"""`banger vm cp` with a real guest: its agent, its disks, its own idea of files."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from tests.support.banger import Banger

MIB = 1 << 20
LISTING = "find . ! -name . -printf '%P %y %m %Ts %n %l %s\\0' | sort -z"
KINDS = """
set -e
mkdir -p tree/below/deep && cd tree
printf text > file && chmod 0640 file && ln file again && ln -s ../outside link
printf prog > below/program && chmod 0755 below/program
: > "$(printf 'new\\nline and \\377')"
: > "$(printf 'n%.0s' $(seq 200))"
truncate -s 64M holes && printf end >> holes
touch -d @1000000 file below/program holes link -h
chmod 0750 below && touch -d @2000000 below/deep below
"""


def list_here(directory: Path) -> bytes:
    """Names, kinds, modes, times, links and sizes of files; directories without sizes, which are file systems' own."""
    return _clean(
        subprocess.run(["sh", "-c", LISTING], cwd=directory, capture_output=True, check=True).stdout
    )


def list_there(banger: Banger, vm: str, directory: str) -> bytes:
    return _clean(banger.run("vm", "exec", vm, "-w", directory, "--", "sh", "-c", LISTING).stdout)


def _clean(listing: bytes) -> bytes:
    entries = (entry.split(b" ") for entry in listing.split(b"\0"))
    return b"\0".join(
        b" ".join(entry[:-5] + entry[-5:-4] if b"d" in entry[-6:-5] else entry) for entry in entries
    )


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def there(banger: Banger, vm: str):
    banger.guest(vm, "mkdir", "/root/there")
    yield "/root/there"
    banger.guest(vm, "rm", "-rf", "/root/there")


def test_a_file_goes_in_and_comes_back(banger: Banger, vm: str, here: Path, there: str) -> None:
    (here / "data").write_bytes(os.urandom(3 * MIB))
    (here / "data").chmod(0o640)
    banger.run("vm", "cp", str(here / "data"), f"{vm}:{there}/")
    assert banger.guest(vm, "stat", "-c", "%a %s %U", f"{there}/data") == f"640 {3 * MIB} root\n"
    digest = hashlib.sha256((here / "data").read_bytes()).hexdigest()
    assert banger.guest(vm, "sha256sum", f"{there}/data").split()[0] == digest
    banger.run("cp", f"{vm}:there/data", str(here / "back"))
    assert (here / "back").read_bytes() == (here / "data").read_bytes()


def test_a_tree_of_all_kinds_survives_both_ways(banger: Banger, vm: str, here: Path, there: str) -> None:
    subprocess.run(["bash", "-c", KINDS], cwd=here, check=True)
    banger.run("vm", "cp", str(here / "tree"), f"{vm}:{there}")
    assert list_there(banger, vm, f"{there}/tree") == list_here(here / "tree")
    assert int(banger.guest(vm, "du", "-s", f"{there}/tree").split()[0]) < 1024
    (here / "back").mkdir()
    banger.run("vm", "cp", f"{vm}:{there}/tree/.", str(here / "back"), umask=0)
    assert list_here(here / "back") == list_here(here / "tree")


def test_a_mount_point_comes_with_what_is_mounted_there(
    banger: Banger, vm: str, here: Path, there: str
) -> None:
    banger.guest(vm, "sh", "-c", f"echo x > {there}/file")
    banger.run("vm", "cp", f"{vm}:/root", str(here / "home"))
    assert (here / "home/there/file").read_text() == "x\n"


def test_links_are_followed_when_asked(banger: Banger, vm: str, here: Path) -> None:
    banger.run("vm", "cp", f"{vm}:/etc/os-release", str(here / "link"))
    assert os.readlink(here / "link") == "../usr/lib/os-release"
    banger.run("vm", "cp", "-L", f"{vm}:/etc/os-release", str(here / "file"))
    assert (here / "file").read_text().startswith("PRETTY_NAME=")
    banger.run("vm", "cp", f"{vm}:/bin/", str(here / "programs"))
    assert os.access(here / "programs/ls", os.X_OK)


def test_a_large_file_with_little_in_it_is_copied_as_that(
    banger: Banger, vm: str, here: Path, there: str
) -> None:
    with (here / "disk").open("wb") as file:
        file.truncate(1024 * MIB)
        file.seek(700 * MIB)
        file.write(os.urandom(MIB))
    banger.run("vm", "cp", str(here / "disk"), f"{vm}:{there}", timeout=120)
    apparent, allocated = banger.guest(vm, "stat", "-c", "%s %b", f"{there}/disk").split()
    assert (int(apparent), int(allocated) * 512 <= 2 * MIB) == (1024 * MIB, True)
    banger.run("vm", "cp", f"{vm}:{there}/disk", str(here / "back"), timeout=120)
    assert (here / "back").stat().st_size == 1024 * MIB
    assert (here / "back").stat().st_blocks * 512 <= 2 * MIB
    subprocess.run(["cmp", here / "disk", here / "back"], check=True)


def test_stdin_and_stdout_are_ends_of_pipes(banger: Banger, vm: str, here: Path, there: str) -> None:
    data = os.urandom(2 * MIB)
    banger.run("vm", "cp", "-", f"{vm}:{there}/data", input=data)
    assert banger.run("vm", "cp", f"{vm}:{there}/data", "-").stdout == data
    (here / "one").write_text("1")
    stream = subprocess.run(["tar", "-cC", here, "one"], capture_output=True, check=True).stdout
    banger.run("vm", "cp", "-", f"{vm}:{there}", input=stream)
    assert banger.guest(vm, "cat", f"{there}/one") == "1"
    assert b"MHz" in banger.run("vm", "cp", f"{vm}:/proc/cpuinfo", "-").stdout
    stream = banger.run("vm", "cp", f"{vm}:{there}", "-").stdout
    listed = subprocess.run(["tar", "-t"], input=stream, capture_output=True, check=True).stdout
    assert sorted(listed.split()) == [b"there/", b"there/data", b"there/one"]


def test_a_full_disk_in_the_guest_keeps_what_was_there(
    banger: Banger, vm: str, here: Path, there: str
) -> None:
    banger.guest(vm, "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", there)
    try:
        banger.guest(vm, "sh", "-c", f"echo old > {there}/big")
        (here / "big").write_bytes(os.urandom(20 * MIB))
        done = banger.run("vm", "cp", str(here / "big"), f"{vm}:{there}/big", check=False)
        assert done.returncode == 74
        assert f"{vm}:{there}/big: no space left on device" in done.stderr.decode()
        done = banger.run(
            "vm", "cp", "-", f"{vm}:{there}/big", input=(here / "big").read_bytes(), check=False
        )
        assert done.returncode == 74
        assert banger.guest(vm, "sh", "-c", f"cat {there}/*; ls -A {there}") == "old\nbig\n"
    finally:
        banger.guest(vm, "umount", there)


def test_owners_are_the_directorys_or_a_users_or_kept(
    banger: Banger, vm: str, here: Path, there: str
) -> None:
    (here / "file").write_text("x")
    os.chmod(here / "file", 0o600)
    name = f"{there}/file"
    for flags, owner in (
        ((), "0:0"),
        (("-u", "1234:4321"), "1234:4321"),
        (("-a",), f"{os.getuid()}:{os.getgid()}"),
    ):
        banger.run("vm", "cp", *flags, str(here / "file"), f"{vm}:{name}")
        assert banger.guest(vm, "stat", "-c", "%u:%g", name) == owner + "\n"
    banger.guest(vm, "chown", "77:78", there)
    banger.run("vm", "cp", str(here / "file"), f"{vm}:{name}")
    assert banger.guest(vm, "stat", "-c", "%u:%g", name) == "77:78\n"


def test_an_interrupted_copy_leaves_nothing_in_the_guest(
    banger: Banger, vm: str, here: Path, there: str
) -> None:
    copying = banger.start("vm", "cp", "-", f"{vm}:{there}/half", stdin=subprocess.PIPE)
    assert copying.stdin is not None
    copying.stdin.write(bytes(MIB))
    copying.stdin.flush()
    while not banger.guest(vm, "ls", "-A", there):
        pass
    copying.terminate()
    assert copying.wait() == 128 + 15
    copying.stdin.close()
    while banger.guest(vm, "ls", "-A", there):
        pass


def test_links_that_lead_out_are_not_written_through(banger: Banger, vm: str, here: Path, there: str) -> None:
    """A tree whose link leads out of it, then one that has a directory in its place."""
    (here / "outside").mkdir()
    made = "mkdir one two two/way && ln -s ../outside one/way && touch two/way/evil"
    banger.guest(vm, "sh", "-c", f"cd {there} && {made}")
    banger.run("vm", "cp", f"{vm}:{there}/one", str(here / "into"))
    assert (here / "into/way").is_symlink()
    done = banger.run("vm", "cp", f"{vm}:{there}/two/.", str(here / "into"), check=False)
    assert done.returncode == 71
    assert "leads through way, a symbolic link: refused" in done.stderr.decode()
    assert os.listdir(here / "outside") == []
