"""Jails with the real jailer, Firecracker and mini guest. No cgroups of version 2 are needed: the lab has those."""

import contextlib
import fcntl
import http.client
import json
import os
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.banger import ROOT
from tests.support.firecracker import need_native
from tests.support.tiers import skip_or_fail

from banger.privileged.contract.machines import FILE, READ_ONLY, SNAPSHOT, Jail, LaunchVmm
from banger.privileged.contract.values import Refusal
from banger.privileged.helper import jail_place, vmm_programs
from banger.privileged.helper.jail_place import JailPlace, uid_of
from banger.privileged.helper.jails import JailKeeper
from banger.privileged.helper.processes import find_identity, signal_vmm
from banger.privileged.helper.residents import Residents

VM, OTHER = "0123456789ab", "ba9876543210"
OWNER = 65534
MIB = 1024 * 1024


class Api(http.client.HTTPConnection):
    """By a name in a directory that only its descriptor leads to."""

    def __init__(self, sockets: int) -> None:
        super().__init__("localhost")
        self._path = f"/proc/self/fd/{sockets}/api.sock"

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)

    def put(self, path: str, **body: object) -> None:
        self.request("PUT", path, json.dumps(body))
        answer = self.getresponse()
        said = answer.read()
        assert answer.status < 300, said


class Bench:
    """A directory of jails, programs that root trusts, and what a launch brings."""

    def __init__(self, directory: Path, kernel: Path, mp: pytest.MonkeyPatch) -> None:
        self.directory = directory
        programs = need_native()
        managed = directory / "programs"
        (managed / "1.12.1").mkdir(parents=True)
        for program in (programs.firecracker, programs.jailer):
            shutil.copy(program, managed / "1.12.1")
        mp.setattr(vmm_programs, "MANAGED", str(managed))
        self.base = directory / "root" / "jails"
        mp.setattr(jail_place, "BASE", str(self.base))
        self.keeper = self.new_keeper()
        self.kernel = directory / "kernel"
        self.kernel.write_bytes(kernel.read_bytes())
        self.initramfs = directory / "initramfs"
        self.initramfs.write_bytes(b"070701")
        self.console = directory / "console"
        self.disk = directory / "disk.img"
        self.disk.write_bytes(b"first\n".ljust(MIB, b"\0"))
        for path in (self.kernel, self.initramfs, self.disk):
            os.chown(path, OWNER, OWNER)
        self.held: list[int] = []

    def new_keeper(self) -> JailKeeper:
        return JailKeeper(JailPlace(), Residents())

    def launch(
        self, vm: str = VM, disks: tuple[str, ...] = (), keeper: JailKeeper | None = None, **paths: Path
    ):
        """What the helper says, and the directory of sockets."""
        kernel, initramfs = paths.get("kernel", self.kernel), paths.get("initramfs", self.initramfs)
        files = [
            os.open(kernel, os.O_RDONLY),
            os.open(initramfs, os.O_RDONLY),
            os.open(self.console, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            *(
                os.open(self.disk, os.O_RDONLY if kind == READ_ONLY else os.O_RDWR)
                for kind in disks
                if kind != SNAPSHOT
            ),
        ]
        try:
            request = LaunchVmm(vm=vm, memory_mib=64, disks=disks)
            request.validate()
            launched, (sockets,) = (keeper or self.keeper).launch(request, files, owner=OWNER)
        finally:
            for file in files:
                os.close(file)
        self.held.append(sockets)
        return launched, sockets

    def root(self, vm: str = VM) -> Path:
        return self.base / "firecracker" / vm / "root"

    def wait_api(self, sockets: int) -> Api:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            api = Api(sockets)
            with contextlib.suppress(OSError):
                api.connect()
                return api
            time.sleep(0.005)
        raise AssertionError(self.console.read_text())

    def boot(self, sockets: int, disks: int = 0, tap: str = "") -> Api:
        api = self.wait_api(sockets)
        api.put("/machine-config", vcpu_count=1, mem_size_mib=64)
        api.put(
            "/boot-source",
            kernel_image_path="kernel",
            initrd_path="initramfs",
            boot_args="console=ttyS0 reboot=k pci=off",
        )
        for index in range(disks):
            name = f"disk{index}"
            api.put(
                f"/drives/{name}", drive_id=name, path_on_host=name, is_root_device=False, is_read_only=False
            )
        if tap:
            api.put("/network-interfaces/eth0", iface_id="eth0", host_dev_name=tap)
        api.put("/vsock", guest_cid=3, uds_path="s/agent.sock")
        api.put("/actions", action_type="InstanceStart")
        return api

    def say(self, sockets: int, line: bytes) -> bytes:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket(socket.AF_UNIX) as agent:
                agent.settimeout(0.5)
                with contextlib.suppress(OSError):
                    agent.connect(f"/proc/self/fd/{sockets}/agent.sock")
                    agent.sendall(b"CONNECT 1024\n")
                    stream = agent.makefile("rb")
                    if stream.readline().startswith(b"OK "):
                        agent.settimeout(10)
                        agent.sendall(line)
                        return stream.readline()
        raise AssertionError(self.console.read_text())

    def status(self, pid: int) -> dict[str, str]:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def loops(self) -> list[str]:
        """Loop devices of this bench's files."""
        found = []
        for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if str(self.directory) in backing.read_text():
                    found.append(backing.parts[3])
        return found

    def wait_loops(self) -> list[str]:
        """Those that do not go: where udevd has one open for a moment, it goes later."""
        until = time.monotonic() + 10
        while (found := self.loops()) and time.monotonic() < until:
            time.sleep(0.01)
        return found

    def left(self) -> list[str]:
        """What there is of jails."""
        jails = self.base / "firecracker"
        names = sorted(path.name for path in jails.iterdir()) if jails.exists() else []
        return [
            *names,
            *(f"pid {pid}" for vm in (VM, OTHER) for pid in Residents().find_processes(vm)),
            *self.wait_loops(),
        ]

    def wait_gone(self, pid: int) -> None:
        """Until its last thread has ended. Its state is that of the first one, which may be a zombie long before."""
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                assert select.select([pidfd], [], [], 20)[0], pid
            finally:
                os.close(pidfd)


@pytest.fixture
def bench(short_directory, mini_kernel, monkeypatch):
    if os.getuid() != 0:
        skip_or_fail("jails need root", tier="native")
    before = len(os.listdir("/proc/self/fd"))
    made = Bench(short_directory, mini_kernel, monkeypatch)
    yield made
    left = made.left()
    for vm in (VM, OTHER):
        made.new_keeper().remove(vm)
    made.keeper.close()
    for descriptor in made.held:
        os.close(descriptor)
    assert not left, f"the test left {left}"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_jailed_guest_answers_and_its_vmm_can_do_nothing_else(bench):
    launched, sockets = bench.launch(disks=(FILE,))
    bench.boot(sockets, disks=1)
    assert bench.say(sockets, b"READ 0\n") == b"first\n"
    assert bench.say(sockets, b"WRITE 0 changed\n") == b"WRITE 0 changed\n"
    status = bench.status(launched.pid)
    assert launched.uid == uid_of(VM)
    assert set(status["Uid"].split() + status["Gid"].split()) == {str(launched.uid)}
    assert (int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"]) == (0, 0, "1")
    assert status["Seccomp"] == "2"
    assert status["Groups"] in ("", str(launched.uid))
    assert os.path.samestat(os.stat(f"/proc/{launched.pid}/root"), bench.root().stat())
    assert os.getsid(launched.pid) == launched.pid
    assert Path(f"/proc/{launched.pid}/environ").read_bytes() == b""
    standard = [os.readlink(f"/proc/{launched.pid}/fd/{number}") for number in (0, 1, 2)]
    assert standard == ["/dev/null", str(bench.console), str(bench.console)]
    mounts = Path(f"/proc/{launched.pid}/mountinfo").read_text().splitlines()
    assert len(mounts) == 1  # its own root
    bench.keeper.remove(VM)
    bench.wait_gone(launched.pid)
    assert bench.disk.read_bytes().startswith(b"changed\n")


def test_nobody_gets_to_a_socket_but_by_the_descriptor(bench):
    _, sockets = bench.launch()
    bench.wait_api(sockets).close()
    assert stat.S_IMODE(os.fstat(sockets).st_mode) == 0o777
    path = bench.root() / "s" / "api.sock"
    script = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try: socket.socket(socket.AF_UNIX).connect(path); print('in')\n"
        "    except PermissionError: print('out')\n"
        "for path in (f'/proc/self/fd/{sys.argv[1].split(\"/\")[4]}/../kernel', f'/proc/self/fd/{sys.argv[1].split(\"/\")[4]}/../dev/kvm'):\n"
        "    try: os.open(path, os.O_RDONLY); print('in')\n"
        "    except PermissionError: print('out')\n"
    )
    done = subprocess.run(
        (sys.executable, "-I", "-S", "-c", script, f"/proc/self/fd/{sockets}/api.sock", str(path)),
        capture_output=True,
        text=True,
        pass_fds=(sockets,),
        check=True,
    )
    assert done.stdout.split() == ["in", "out", "out", "out"]
    bench.keeper.remove(VM)


def test_the_owner_is_heard_when_the_guest_knocks(bench):
    _, sockets = bench.launch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{sockets}/agent.sock_1024")
        os.chmod(f"/proc/self/fd/{sockets}/agent.sock_1024", 0o777)
        listener.listen()
        listener.settimeout(20)
        bench.boot(sockets)
        listener.accept()[0].close()
    bench.keeper.remove(VM)


def test_settling_takes_the_names_away_and_the_loop_goes_with_the_vmm(bench):
    launched, sockets = bench.launch(disks=(FILE, READ_ONLY))
    node = bench.root() / "disk0"
    assert stat.S_ISBLK(node.stat().st_mode)
    assert (node.stat().st_uid, stat.S_IMODE(node.stat().st_mode)) == (launched.uid, 0o600)
    assert len(bench.loops()) == 2
    api = bench.boot(sockets, disks=1)
    api.close()
    assert bench.keeper.settle(VM, "") == ()
    assert sorted(path.name for path in bench.root().iterdir()) == [
        "dev",
        "firecracker",
        "run",
        "s",
    ] or sorted(path.name for path in bench.root().iterdir()) == [
        "dev",
        "firecracker",
        "firecracker.pid",
        "run",
        "s",
    ]
    until = time.monotonic() + 10
    while len(bench.loops()) != 1:  # the one that the VMM has opened
        assert time.monotonic() < until
        time.sleep(0.01)
    assert bench.say(sockets, b"READ 0\n") == b"first\n"
    bench.keeper.remove(VM)
    assert bench.wait_loops() == []


def test_removal_is_idempotent_and_leaves_nothing(bench):
    bench.keeper.remove(VM)
    launched, _ = bench.launch(disks=(FILE,))
    bench.keeper.remove(VM)
    assert find_identity(launched.pid) is None  # reaped, too
    assert bench.left() == []
    bench.keeper.remove(VM)
    assert bench.keeper.list() == ()


def test_a_vm_has_one_vmm_and_its_id_can_be_used_again(bench):
    launched, _ = bench.launch()
    with pytest.raises(Refusal, match="runs already") as caught:
        bench.launch()
    assert caught.value.code == "conflict"
    assert bench.keeper.list() == (
        Jail(vm=VM, pid=launched.pid, start_time=launched.start_time, uid=launched.uid),
    )
    os.kill(launched.pid, signal.SIGKILL)
    bench.wait_gone(launched.pid)
    assert bench.keeper.list() == (Jail(vm=VM, pid=0, start_time=0, uid=launched.uid),)
    assert find_identity(launched.pid) is None
    again, sockets = bench.launch()
    bench.boot(sockets)
    assert bench.say(sockets, b"hello\n") == b"hello\n"
    assert again.pid != launched.pid
    bench.keeper.remove(VM)


def test_another_helper_takes_over_after_a_kill(bench):
    """The first is forgotten with all it held, as a killed helper is: here its descriptors are closed."""
    launched, sockets = bench.launch(disks=(FILE,))
    bench.boot(sockets, disks=1).close()
    bench.keeper.settle(VM, "")
    bench.keeper.close()
    bench.keeper = bench.new_keeper()
    jail, (entered,) = bench.keeper.enter(VM)
    bench.held.append(entered)
    assert jail == Jail(vm=VM, pid=launched.pid, start_time=launched.start_time, uid=launched.uid)
    assert bench.say(entered, b"READ 0\n") == b"first\n"
    assert bench.keeper.settle(VM, "") == ()
    with pytest.raises(Refusal, match="runs already"):
        bench.launch()
    bench.keeper.remove(VM)
    os.waitpid(launched.pid, 0)


def test_a_helper_killed_before_the_vmm_opened_its_disk_leaves_no_loop(bench):
    launched, sockets = bench.launch(disks=(FILE,))
    api = bench.wait_api(sockets)
    bench.keeper.close()
    assert bench.wait_loops() == []
    api.close()
    with pytest.raises(Refusal, match="was restarted while VM") as caught:
        bench.new_keeper().settle(VM, "")
    assert caught.value.code == "not_found"
    bench.new_keeper().remove(VM)
    os.waitpid(launched.pid, 0)


HELPER = """
import os, sys
from pathlib import Path
from banger.privileged.contract.machines import LaunchVmm
from banger.privileged.helper import jail_place, vmm_programs, jails
from banger.privileged.helper.residents import Residents
base, managed, kernel, initramfs, console, disk, step = sys.argv[1:]
jail_place.BASE, vmm_programs.MANAGED = base, managed
module, _, name = step.partition(".")
if module:
    real = getattr(jails, name)
    def dies(*arguments, **named):
        real(*arguments, **named)
        os.kill(os.getpid(), 9)
    setattr(jails, name, dies)
files = [os.open(path, os.O_RDONLY) for path in (kernel, initramfs)]
files += [os.open(console, os.O_WRONLY), os.open(disk, os.O_RDWR)]
keeper = jails.JailKeeper(jail_place.JailPlace(), Residents())
print(keeper.launch(LaunchVmm(vm="0123456789ab", memory_mib=64, disks=("file",)), files, owner=65534)[0].pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    "step",
    [
        "jails.stage_file",
        "jails.stage_disk",
        "jails.attach_loop",
        "jails.stage_sockets",
        "jails.LaunchedVmm",
        "",
    ],
)
def test_a_helper_killed_at_any_step_leaves_what_its_successor_finds_and_removes(bench, step):
    bench.console.touch()
    argv = (
        sys.executable,
        "-c",
        HELPER,
        bench.base,
        vmm_programs.MANAGED,
        bench.kernel,
        bench.initramfs,
        bench.console,
        bench.disk,
        step,
    )
    done = subprocess.run(argv, cwd=ROOT, env={"PYTHONPATH": f"{ROOT}/src"}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [jail.vm for jail in bench.keeper.list()] == [VM]
    until = time.monotonic() + 10
    if step in ("jails.LaunchedVmm", ""):  # jailer goes on without us, and has no cgroup here
        while bench.keeper.list()[0].pid == 0:
            assert time.monotonic() < until
            time.sleep(0.01)
    launched, _sockets = None, None
    with contextlib.suppress(Refusal):
        launched, _sockets = bench.launch()
    assert (launched is None) == (step in ("jails.LaunchedVmm", ""))
    bench.keeper.remove(VM)
    assert bench.wait_loops() == []


def test_what_nobody_lives_in_is_abandoned_and_a_living_vmm_is_not(bench):
    first, _ = bench.launch()
    second, sockets = bench.launch(OTHER)
    os.kill(first.pid, signal.SIGKILL)
    bench.wait_gone(first.pid)
    bench.wait_api(sockets)
    bench.keeper.remove_abandoned()
    assert [jail.vm for jail in bench.keeper.list()] == [OTHER]
    assert find_identity(second.pid).alive
    bench.keeper.remove(OTHER)


def test_two_vms_of_one_uid_are_refused(bench):
    twin = f"{int(VM, 16) + 0xFFE0000:012x}"
    bench.launch()
    with pytest.raises(Refusal, match="same uid") as caught:
        bench.launch(twin)
    assert caught.value.code == "conflict"
    bench.keeper.remove(VM)


def test_a_vmm_in_a_jail_can_be_signalled_and_somebody_elses_process_cannot(bench):
    launched, sockets = bench.launch()
    bench.wait_api(sockets)
    with pytest.raises(Refusal, match="not the one that was meant"):
        signal_vmm(launched.pid, launched.start_time + 1, signal.SIGKILL, OWNER)
    signal_vmm(launched.pid, launched.start_time, signal.SIGKILL, OWNER)
    bench.wait_gone(launched.pid)
    bench.keeper.remove(VM)
    outside = subprocess.Popen(("sleep", "60"), user=launched.uid, group=launched.uid, extra_groups=[])
    try:
        start_time = find_identity(outside.pid).start_time
        with pytest.raises(Refusal, match="not the owner's"):
            signal_vmm(outside.pid, start_time, signal.SIGKILL, OWNER)
    finally:
        outside.kill()
        outside.wait()


def test_a_jailer_that_fails_ends_and_says_why_in_the_console(bench, monkeypatch):
    monkeypatch.setattr("banger.privileged.helper.jail_launch.DESCRIPTORS_MAX", "many")
    launched, _ = bench.launch()
    bench.wait_gone(launched.pid)
    assert "many" in bench.console.read_text()
    assert bench.keeper.list()[0].pid == 0
    bench.keeper.remove(VM)


@pytest.mark.parametrize("step", ["stage_file", "attach_loop", "stage_disk", "stage_sockets", "LaunchedVmm"])
def test_a_launch_that_fails_leaves_nothing(bench, monkeypatch, step):
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"banger.privileged.helper.jails.{step}", fail)
    with pytest.raises(OSError):
        bench.launch(disks=(FILE,))
    assert bench.left() == []


def test_a_process_that_cannot_be_put_into_its_cgroup_is_ended(bench, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Residents, "add", fail)
    with pytest.raises(OSError):
        bench.launch(disks=(FILE,))
    assert bench.left() == []


class TestFiles:
    def test_the_kernel_is_linked_where_it_can_be_and_never_writable(self, bench):
        bench.kernel.chmod(0o644)
        bench.initramfs.chmod(0o600)
        bench.launch()
        kernel, initramfs = (bench.root() / name for name in ("kernel", "initramfs"))
        assert kernel.samefile(bench.kernel)
        assert not initramfs.samefile(bench.initramfs)
        assert (initramfs.stat().st_uid, stat.S_IMODE(initramfs.stat().st_mode)) == (0, 0o444)
        assert initramfs.read_bytes() == bench.initramfs.read_bytes()
        bench.keeper.remove(VM)
        assert bench.kernel.stat().st_nlink == 1
        assert stat.S_IMODE(bench.kernel.stat().st_mode) == 0o644

    def test_what_others_may_write_to_is_copied(self, bench):
        bench.kernel.chmod(0o666)
        bench.launch()
        assert not (bench.root() / "kernel").samefile(bench.kernel)
        bench.keeper.remove(VM)

    def test_a_file_of_another_file_system_is_copied(self, bench):
        shm = Path("/dev/shm") / bench.directory.name
        shm.write_bytes(bench.kernel.read_bytes())
        try:
            bench.launch(kernel=shm)
            assert (bench.root() / "kernel").read_bytes() == shm.read_bytes()
        finally:
            shm.unlink()
        bench.keeper.remove(VM)

    def launch_with(self, bench, position, descriptor):
        files = [os.open(bench.kernel, os.O_RDONLY), os.open(bench.initramfs, os.O_RDONLY)]
        files += [os.open(bench.console, os.O_WRONLY | os.O_CREAT, 0o600), os.open(bench.disk, os.O_RDWR)]
        os.close(files[position])
        files[position] = descriptor
        try:
            with pytest.raises(Refusal) as caught:
                bench.keeper.launch(LaunchVmm(vm=VM, memory_mib=64, disks=(FILE,)), files, owner=OWNER)
        finally:
            for file in files:
                os.close(file)
        assert bench.left() == []
        return caught.value.code, caught.value.message

    def test_a_place_that_was_only_named_is_refused(self, bench):
        shadow = os.open("/etc/shadow", os.O_PATH)
        code, message = self.launch_with(bench, 0, shadow)
        assert (code, "not open for reading" in message) == ("bad_request", True)

    @pytest.mark.parametrize("position", [0, 1, 3])
    def test_somebody_elses_file_is_refused(self, bench, position):
        theirs = bench.directory / "theirs"
        theirs.write_bytes(bytes(4096))
        os.chown(theirs, 4711, 4711)
        assert self.launch_with(bench, position, os.open(theirs, os.O_RDWR))[0] == "unauthorized"

    @pytest.mark.parametrize("position", [0, 1, 2, 3])
    @pytest.mark.parametrize("path", ["/dev/null", "/tmp"])
    def test_what_is_no_regular_file_is_refused(self, bench, position, path):
        flags = os.O_RDWR if path == "/dev/null" else os.O_RDONLY
        assert self.launch_with(bench, position, os.open(path, flags))[0] == "bad_request"

    def test_a_console_that_is_not_written_is_refused(self, bench):
        bench.console.touch()
        assert self.launch_with(bench, 2, os.open(bench.console, os.O_RDONLY))[0] == "bad_request"

    def test_a_wrong_number_of_files_is_refused(self, bench):
        with pytest.raises(Refusal, match="needs 4 files"):
            bench.keeper.launch(LaunchVmm(vm=VM, memory_mib=64, disks=(FILE,)), (0, 1, 2), owner=OWNER)


class TestAttacks:
    """By the owner, who may write to `s` as long as he holds it, and by a VMM that was taken over, whose root it is."""

    @pytest.fixture
    def precious(self, bench):
        place = bench.directory / "precious"
        place.mkdir()
        (place / "file").write_text("keep")
        os.chmod(place / "file", 0o600)
        yield place
        assert (place / "file").read_text() == "keep"
        assert stat.S_IMODE((place / "file").stat().st_mode) == 0o600
        assert (place.stat().st_uid, stat.S_IMODE(place.stat().st_mode)) == (0, 0o755)

    def test_links_in_the_directory_of_sockets_are_not_followed(self, bench, precious):
        _launched, sockets = bench.launch()
        bench.wait_api(sockets).close()
        s = bench.root() / "s"
        (s / "directory").symlink_to(precious)
        (s / "file").symlink_to(precious / "file")
        (s / "deep").mkdir()
        (s / "deep" / "directory").symlink_to("../../../../../../precious")
        (s / "deep" / "loop").symlink_to(".")
        os.link(precious / "file", s / "hard")
        bench.keeper.remove(VM)
        assert bench.left() == []

    def test_links_in_the_place_of_what_was_staged_are_not_followed(self, bench, precious):
        launched, sockets = bench.launch(disks=(FILE, FILE))
        bench.boot(sockets, disks=1).close()
        root = bench.root()
        for name in ("disk0", "disk1", "kernel"):
            (root / name).unlink()
        (root / "disk0").symlink_to(precious / "file")
        (root / "disk1").mkdir()
        (root / "kernel").symlink_to(precious)
        (root / "s").rename(root / "t")
        (root / "s").symlink_to(precious)
        with pytest.raises(Refusal, match="has no jail"):
            bench.keeper.enter(VM)
        (root / "s").unlink()
        (root / "s").mkdir()
        os.chown(root / "s", launched.uid, launched.uid)
        with pytest.raises(Refusal, match="has no jail"):
            bench.keeper.enter(VM)
        assert bench.keeper.settle(VM, "") == ()
        assert sorted(set(os.listdir(root)) & {"disk0", "disk1", "kernel"}) == ["disk1"]
        bench.keeper.remove(VM)
        assert bench.left() == []

    def test_a_root_that_is_a_link_is_removed_as_one(self, bench, precious):
        launched, _sockets = bench.launch()
        os.kill(launched.pid, signal.SIGKILL)
        bench.wait_gone(launched.pid)
        bench.root().rename(bench.root().parent / "away")
        bench.root().symlink_to(precious)
        with pytest.raises(OSError):
            bench.keeper.enter(VM)
        bench.keeper.remove(VM)
        assert bench.left() == []

    def test_any_depth_of_nesting_is_removed(self, bench):
        _, sockets = bench.launch()
        s = os.dup(sockets)
        for _ in range(3000):
            os.mkdir("d", dir_fd=s)
            inner = os.open("d", os.O_RDONLY, dir_fd=s)
            os.close(s)
            s = inner
        os.close(s)
        bench.keeper.remove(VM)
        assert bench.left() == []

    def test_an_owner_who_goes_on_filling_it_does_not_hold_the_removal_up(self, bench):
        _, sockets = bench.launch()
        script = """
import os
os.setgroups([]); os.setgid(65534); os.setuid(65534)
s, number = int(os.environ["S"]), 0
print("go", flush=True)
while True:
    try:
        os.mkdir(f"d{number}", dir_fd=s)
        inner = os.open(f"d{number}", os.O_RDONLY, dir_fd=s)
        for name in "abc":
            os.mkdir(name, dir_fd=inner)
        os.close(inner)
        number += 1
    except OSError as error:
        print(error.errno, flush=True)
        break
"""
        argv = (sys.executable, "-I", "-S", "-c", script)
        pipes = {"stdout": subprocess.PIPE, "text": True, "pass_fds": (sockets,), "env": {"S": str(sockets)}}
        with subprocess.Popen(argv, **pipes) as filling:
            assert filling.stdout.readline() == "go\n"
            time.sleep(0.1)
            bench.keeper.remove(VM)
            assert int(filling.stdout.readline()) in (2, 13)
        assert bench.left() == []

    def test_too_much_to_be_removed_at_once_is_told_and_goes_on_later(self, bench, monkeypatch):
        _, sockets = bench.launch()
        for number in range(2000):
            os.mkdir(f"d{number}", dir_fd=sockets)
        monkeypatch.setattr("banger.privileged.helper.jails._REMOVAL_S", -1)
        with pytest.raises(Refusal, match="more than can be removed at once") as caught:
            bench.keeper.remove(VM)
        assert caught.value.code == "conflict"
        assert [jail.pid for jail in bench.keeper.list()] == [0]
        monkeypatch.undo()
        JailKeeper(JailPlace(str(bench.base)), Residents()).remove(VM)
        assert bench.left() == []


TAP_SCRIPT = """
import sys
from tests.native.test_jail import settle_tap
settle_tap(*sys.argv[1:])
"""


def settle_tap(directory: str, kernel: str) -> None:
    """Runs in a network namespace of its own: a persistent tap of the VM's uid, as the daemon leaves it."""
    setiff, setowner, setpersist = 0x400454CA, 0x400454CC, 0x400454CB
    with pytest.MonkeyPatch.context() as patch:
        bench = Bench(Path(directory), Path(kernel), patch)
        tun = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tun, setiff, struct.pack("16sH22x", b"bng-00000001", 0x0002 | 0x1000 | 0x4000))
        fcntl.ioctl(tun, setowner, uid_of(VM))
        fcntl.ioctl(tun, setpersist, 1)
        os.close(tun)
        launched, sockets = bench.launch()
        bench.boot(sockets, tap="bng-00000001").close()
        said = {}
        try:
            bench.keeper.settle(VM, "bng-00000002")
        except Refusal as refusal:
            said["other"] = refusal.code
        said["names"] = sorted(set(os.listdir(bench.root())) & {"kernel", "initramfs"})
        (tap,) = bench.keeper.settle(VM, "bng-00000001")
        name = struct.unpack("16sH22x", fcntl.ioctl(tap, 0x800454D2, bytes(40)))[0].rstrip(b"\0").decode()
        bench.keeper.close()
        (again,) = bench.new_keeper().settle(VM, "bng-00000001")
        said |= {"name": name, "inheritable": os.get_inheritable(tap)}
        os.close(again)
        os.kill(launched.pid, signal.SIGKILL)
        os.waitpid(launched.pid, 0)
        said["stays with its holder"] = name in os.listdir("/sys/class/net")
        os.close(tap)
        until = time.monotonic() + 10
        while name in os.listdir("/sys/class/net") and time.monotonic() < until:
            time.sleep(0.01)
        said["gone"] = name not in os.listdir("/sys/class/net")
        bench.new_keeper().remove(VM)
        said["left"] = bench.left()
        print(json.dumps(said))


def test_the_tap_is_settled_and_lives_as_long_as_somebody_holds_it(short_directory, mini_kernel, firecracker):
    if os.getuid() != 0:
        skip_or_fail("jails need root", tier="native")
    argv = ("unshare", "--net", "--mount", "--", "sh", "-c", 'mount -t sysfs none /sys && exec "$@"', "sh")
    done = subprocess.run(
        (*argv, sys.executable, "-c", TAP_SCRIPT, str(short_directory), str(mini_kernel)),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "other": "not_found",
        "names": ["initramfs", "kernel"],
        "name": "bng-00000001",
        "inheritable": False,
        "stays with its holder": True,
        "gone": True,
        "left": [],
    }


def test_settling_and_entering_need_a_jail(bench):
    for act in (lambda: bench.keeper.settle(VM, ""), lambda: bench.keeper.enter(VM)):
        with pytest.raises(Refusal) as caught:
            act()
        assert caught.value.code == "not_found"
    launched, _ = bench.launch()
    os.kill(launched.pid, signal.SIGKILL)
    bench.wait_gone(launched.pid)
    with pytest.raises(Refusal) as caught:
        bench.keeper.settle(VM, "")
    assert caught.value.code == "not_found"
    bench.keeper.remove(VM)
