"""What goes wrong: one line of error with its hint, the documented exit status, nothing left behind."""

import os
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.support.banger import DATA, Banger, refused


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--image", "nope"], 66, "nope"),
        (["--name", "Bad_Name"], 64, "Bad_Name"),
        (["--vcpu", "0"], 64, "0"),
        (["--memory", "0"], 64, "0"),
        (["--memory", "100T"], 64, ""),
        (["--memory", "lots"], 64, "lots"),
        (["--disk-size", "15T"], 74, "15 TiB"),
        (["--disk-size", "100T"], 64, "100 TiB"),
        (["--kernel", "nope"], 66, "nope"),
    ],
)
def test_a_bad_specification_is_refused(banger, arguments, status, words):
    refused(banger, "vm", "create", *arguments, status=status, words=words)
    assert banger.leftovers() == []


def test_contradictory_flags_are_refused_before_anything_exists(banger):
    refused(banger, "vm", "run", "--rm", "-d", status=64, words="--rm")
    assert banger.leftovers() == []


def test_names_references_and_states(banger):
    banger.run("vm", "create", "--name", "one", "--memory", "256M")
    refused(banger, "vm", "create", "--name", "one", status=73, words="one")
    refused(banger, "vm", "show", "nope", status=66, words="nope")
    refused(
        banger, "vm", "delete", "one", status=75, words="running", hint="hint: banger vm delete --force one"
    )
    banger.run("vm", "stop", "one")
    refused(
        banger,
        "vm",
        "exec",
        "one",
        "--",
        "true",
        status=69,
        words="stopped",
        hint="hint: banger vm start one",
    )
    done = banger.run("vm", "start", "nope", "one", "nada", check=False)
    assert done.returncode == 66
    assert done.stdout.decode().split() == ["one"]
    banger.run("vm", "delete", "--force", "one")
    assert banger.leftovers() == []


@pytest.fixture
def own_data(tmp_path) -> Path:
    """Kernel and image of this user alone, to be damaged."""
    data = tmp_path / "data"
    subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", str(DATA), str(data)], check=True)
    return data


@pytest.fixture
def lonely(own_data, banger) -> Banger:
    other = Banger(Path(tempfile.mkdtemp(dir=banger.home)), own_data)
    yield other
    other.run("daemon", "stop", check=False)


def damage(directory: Path, name: str) -> None:
    for path in directory.glob(f"*/{name}"):
        with path.open("r+b") as file:
            file.write(b"garbage!" * 1024)


@pytest.mark.parametrize(
    ("shelf", "file", "fix"),
    [
        ("kernels", "vmlinux", "banger kernel pull --force"),
        ("images", "rootfs.ext4", "banger image build --force"),
    ],
)
def test_a_damaged_kernel_or_image_is_noticed(lonely, own_data, shelf, file, fix):
    damage(own_data / "banger" / shelf, file)
    refused(lonely, "vm", "create", "--memory", "256M", status=69, words="damaged", hint=fix)
    assert lonely.leftovers() == []


def test_without_qemu_the_doctor_and_the_error_say_how_to_get_it(banger):
    other = Banger(banger.home / "noqemu")
    (other.home / "config" / "banger").mkdir(parents=True, mode=0o700)
    (other.home / "config" / "banger" / "config.toml").write_text('qemu_bin = "/nonexistent/qemu"\n')
    text = refused(other, "vm", "create", "--memory", "256M", status=69, words="/nonexistent/qemu")
    assert "hint: " in text
    assert other.leftovers() == []
    done = other.run("doctor", check=False)
    assert done.returncode == 69
    assert b"/nonexistent/qemu" in done.stdout
    other.run("daemon", "stop")


def test_a_bad_configuration_names_file_line_and_key(banger):
    other = Banger(banger.home / "badconfig")
    (other.home / "config" / "banger").mkdir(parents=True, mode=0o700)
    file = other.home / "config" / "banger" / "config.toml"
    file.write_text("\nnonsense = 1\n")
    refused(other, "vm", "list", status=64, words=f"{file}:2: nonsense")


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_during_creation_undoes_everything(material, banger):
    """State on a tmpfs of 24 MiB: the work disk's clone does not fit."""
    other = Banger(banger.home / "full")
    state = other.state
    state.mkdir(parents=True, mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24M,mode=0700", "tmpfs", str(state)], check=True)
    try:
        config = other.home / "config" / "banger"
        config.mkdir(parents=True, mode=0o700)
        refused(other, "vm", "create", "--memory", "256M", status=74, words="do not fit")
        assert other.leftovers() == []
        (state / "filler").write_bytes(bytes(64 * 1024))
        other.run("daemon", "stop")
    finally:
        subprocess.run(["umount", str(state)], check=True)


def test_a_dead_socket_is_no_obstacle(banger):
    banger.run("daemon", "stop", check=False)
    path = banger.home / "run" / "daemon.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert banger.json("vm", "list", "--all")["vms"] == []


def test_garbage_on_the_socket_gets_one_error_and_harms_nobody(banger):
    banger.run("daemon", "start")
    path = str(banger.home / "run" / "daemon.sock")
    for garbage in (b"\xff\xfe garbage\n", b"{" * 100 + b"\n", b'{"v": 1}\n', b"x" * (1024 * 1024 + 10)):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(path)
            try:
                client.sendall(garbage)
                answer = client.recv(65536)
            except (BrokenPipeError, ConnectionResetError):
                answer = b'"bad_request"'
            assert b'"bad_request"' in answer
    assert banger.json("daemon", "status")["running"] == 0
    log = (banger.state / "banger" / "daemon.log").read_text()
    assert "traceback" not in log
