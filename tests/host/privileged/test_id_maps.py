"""Who tries to get ids mapped that newuidmap would not map for them, against a real kernel."""

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from banger.privileged.contract.values import Refusal
from banger.privileged.helper.id_maps import map_ids
from banger.privileged.helper.managed import Root

OWNER = 65534  # nobody, of group 65534
OTHER = 1
FIRST = 300000
LINE = f"nobody:{FIRST}:65536\n"


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /etc."""
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text(LINE)
    monkeypatch.setattr(Root.CONFIGURATION, "_value_", str(tmp_path))
    return tmp_path


class Processes(ExitStack):
    def start(self, *argv: str, uid: int = OWNER, gid: int | None = None) -> "Process":
        """Runs `argv`, and then a shell that says when all of it is done."""
        gid = uid if gid is None else gid
        command = (*argv, "/bin/sh", "-c", "echo $$; exec sleep 600")
        popen = subprocess.Popen(
            command, stdout=subprocess.PIPE, user=uid, group=gid, extra_groups=(), cwd="/", text=True
        )
        self.enter_context(popen)
        self.callback(popen.kill)
        assert popen.stdout is not None
        assert popen.stdout.readline() == f"{popen.pid}\n"
        return Process(popen.pid)


class Process:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.start_time = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])

    def maps(self) -> list[list[str]]:
        return [Path(f"/proc/{self.pid}/{name}_map").read_text().split() for name in ("uid", "gid")]

    def ask(self, owner: int = OWNER) -> None:
        map_ids(self.pid, self.start_time, owner)


@pytest.fixture
def processes(etc: Path) -> Iterator[Processes]:
    with Processes() as processes:
        yield processes


def refused(process: Process, code: str, owner: int = OWNER) -> Refusal:
    before = process.maps()
    with pytest.raises(Refusal) as refusal:
        process.ask(owner)
    assert refusal.value.code == code, refusal.value.message
    assert process.maps() == before
    return refusal.value


def rights() -> list[str]:
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("Uid", "Gid", "Cap"))]


def test_the_owners_own_namespace_gets_the_ids_and_the_helper_keeps_its_rights(processes: Processes) -> None:
    process = processes.start("unshare", "--user")
    before = rights()
    process.ask()
    assert process.maps() == [["0", str(OWNER), "1", "1", str(FIRST), "65535"]] * 2
    assert Path(f"/proc/{process.pid}/setgroups").read_text() == "allow\n"
    assert rights() == before
    refused(process, "conflict")
    assert rights() == before


def test_the_namespace_is_really_of_use(processes: Processes) -> None:
    directory = Path(
        processes.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
    )  # pytest's is root's alone
    os.chown(directory, OWNER, OWNER)
    process = processes.start("unshare", "--user")
    process.ask()
    script = f"mkdir {directory}/x && chown 33:42 {directory}/x && stat -c %u:%g {directory}/x"
    argv = ("nsenter", f"--user=/proc/{process.pid}/ns/user", "--", "/bin/sh", "-c", script)
    bare = ("setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups", "--no-new-privs")
    # The daemon's unit: no capability in the bounding set.
    done = subprocess.run((*bare, "--bounding-set=-all", *argv), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("33:42\n", "")
    state = (directory / "x").stat()
    assert (state.st_uid, state.st_gid) == (FIRST + 32, FIRST + 41)


def test_a_namespace_that_somebody_else_has_made_is_refused(processes: Processes) -> None:
    """The owner's process is in it, by whatever way; the ids would be another user's."""
    foreign = processes.start("unshare", "--user", uid=OTHER)
    enter = ("nsenter", f"--user=/proc/{foreign.pid}/ns/user", "--preserve-credentials")
    become = ("setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups")
    allowed = ("--inh-caps=+sys_admin,+sys_ptrace", "--ambient-caps=+sys_admin,+sys_ptrace")
    process = processes.start(*become, *allowed, *enter, uid=0)
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert f"Uid:\t{OWNER}\t{OWNER}\t{OWNER}\t{OWNER}\n" in status
    assert os.stat(f"/proc/{process.pid}/ns/user") == os.stat(f"/proc/{foreign.pid}/ns/user")
    refusal = refused(process, "unauthorized")
    assert refusal.message == f"process {process.pid} is not in a user namespace that the owner has made here"
    refused(foreign, "unauthorized")


def test_a_namespace_within_a_namespace_is_refused(processes: Processes) -> None:
    """Its ids would be those of the outer one's."""
    process = processes.start("unshare", "--map-root-user", "unshare", "--user")
    assert process.maps() == [[], []]
    refused(process, "unauthorized")


def test_a_process_that_is_still_the_hosts_is_refused(processes: Processes) -> None:
    refused(processes.start(), "conflict")


def test_half_a_map_is_a_map(processes: Processes) -> None:
    process = processes.start("unshare", "--user")
    subprocess.run(
        ("/bin/sh", "-c", f"echo 0 {OWNER} 1 > /proc/{process.pid}/uid_map"),
        user=OWNER,
        group=OWNER,
        check=True,
    )
    assert process.maps()[1] == []
    refused(process, "conflict")


def test_a_group_that_is_not_the_owners_first_is_refused(processes: Processes) -> None:
    """As newgidmap(1) does: a group that was lent becomes nobody's root."""
    process = processes.start("unshare", "--user", gid=OTHER)
    refused(process, "unauthorized")


@pytest.mark.parametrize("off", [-1, 1, 10**18])
def test_a_reused_pid_is_refused(processes: Processes, off: int) -> None:
    process = processes.start("unshare", "--user")
    process.start_time += off
    assert refused(process, "unauthorized").message == f"process {process.pid} is not the one that was meant"


def test_somebody_elses_process_is_refused_before_its_namespace_is_looked_at(processes: Processes) -> None:
    for uid in (0, OTHER):
        process = processes.start("unshare", "--user", uid=uid)
        assert refused(process, "unauthorized").message == f"process {process.pid} is not the owner's"


def test_root_and_impossible_pids_are_refused(processes: Processes) -> None:
    process = processes.start("unshare", "--user", uid=0)
    refused(process, "bad_request", owner=0)
    for pid, code in ((2**22, "not_found"), (10**300, "bad_request")):
        with pytest.raises(Refusal) as refusal:
            map_ids(pid, 1, OWNER)
        assert refusal.value.code == code


@pytest.mark.parametrize("name", ["subuid", "subgid"])
def test_without_ids_nothing_is_written(processes: Processes, etc: Path, name: str) -> None:
    process = processes.start("unshare", "--user")
    hint = "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 nobody"
    for text in ("", "other:100000:65536\n", "nobody:100000:65535\n"):
        (etc / name).write_text(text)
        refusal = refused(process, "unavailable")
        assert refusal.message == f"nobody has no range of 65536 subordinate ids in /etc/{name}"
        assert refusal.hint == hint
    (etc / name).unlink()
    assert refused(process, "unavailable").hint == hint


def test_a_file_that_somebody_else_could_write_is_not_believed(processes: Processes, etc: Path) -> None:
    process = processes.start("unshare", "--user")
    file = etc / "subuid"
    for mode in (0o664, 0o646):
        file.chmod(mode)
        assert f"mode {mode:04o}" in refused(process, "unauthorized").message
    file.chmod(0o644)
    os.chown(file, OWNER, 0)
    assert f"uid {OWNER}" in refused(process, "unauthorized").message
    file.rename(etc / "moved")
    os.chown(etc / "moved", 0, 0)
    file.symlink_to(etc / "moved")
    refused(process, "unauthorized")
    file.unlink()
    os.mkfifo(file)
    refused(process, "unauthorized")
    file.unlink()
    (etc / "moved").rename(file)
    process.ask()


def test_a_process_that_ends_meanwhile_is_gone(
    processes: Processes, etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the maps: what has its pid by then is not touched, for the directory is its own."""
    process = processes.start("unshare", "--user")

    def end_it(owner: object) -> tuple[bytes, bytes]:
        os.kill(process.pid, 9)
        os.waitpid(process.pid, 0)
        return b"0 65534 1\n", b"0 65534 1\n"

    monkeypatch.setattr("banger.privileged.helper.id_maps._render_maps", end_it)
    with pytest.raises(Refusal) as refusal:
        process.ask()
    assert refusal.value.code == "not_found"


def test_other_threads_get_their_rights_back(processes: Processes) -> None:
    """A helper has one thread; tests and whoever borrows the code may have more."""
    process = processes.start("unshare", "--user")
    asked, seen = threading.Event(), []

    def look() -> None:
        asked.wait(10)
        seen.append(rights())

    thread = threading.Thread(target=look)
    thread.start()
    before = rights()
    process.ask()
    asked.set()
    thread.join()
    assert seen == [before]
