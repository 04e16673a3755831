"""Hosts for the three ways to root: an invented one, and namespaces in which the helper and a root daemon work."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.host.namespaces import Namespace
from tests.support.tiers import skip_or_fail

from banger.privileged.client import HelperClient
from banger.privileged.contract.base import Privileged
from banger.privileged.contract.network import InspectHost, ListRoutes, Route
from banger.privileged.contract.processes import MapIds, SignalVmm
from banger.privileged.fake import FakePrivileged
from banger.vmm.identity import find_start_time

NOBODY = 65534
FIRST_ID = 200000  # of nobody's subordinate ones
_CLONE_FS, _CLONE_NEWNS, _CLONE_NEWNET = 0x200, 0x20000, 0x40000000  # unshare(2), setns(2)


class Place:
    """A host with one way to root, and what a test does to the host from outside."""

    privileged: Privileged
    vmm_uid: int  # as whom a VMM runs there

    def __init__(self) -> None:
        self._processes = ExitStack()

    def set_forwarding(self, wanted: bool) -> None:
        raise NotImplementedError

    def add_route(self, destination: str, device: str) -> None:
        """A network on a link of the host's."""
        raise NotImplementedError

    def bind(self, kind: socket.SocketKind, address: str) -> socket.socket:
        """A socket that holds a free port of the host's."""
        bound = socket.socket(socket.AF_INET, kind)
        bound.bind((address, 0))
        return bound

    def start_vmm(self, uid: int | None = None) -> "subprocess.Popen[bytes]":
        """A process that could be a VMM; somebody else's when `uid` says so."""
        return self._start(uid, "/bin/sleep", "600")

    def start_in_namespace(self, uid: int | None = None) -> "subprocess.Popen[bytes]":
        """A process in a user namespace that it has made, and in which nothing is mapped."""
        process = self._start(
            uid, "unshare", "--user", "/bin/sh", "-c", "echo; exec sleep 600", stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        with process.stdout as said:
            assert said.readline() == b"\n"
        return process

    def _start(self, uid: int | None, *argv: str, **options: object) -> "subprocess.Popen[bytes]":
        if os.getuid() == 0:
            uid = self.vmm_uid if uid is None else uid
            options |= {"user": uid, "group": uid, "extra_groups": ()}
        return self._processes.enter_context(running(argv, **options))

    def request_mapping(self, process: "subprocess.Popen[bytes]") -> MapIds:
        start_time = find_start_time(process.pid)
        assert start_time is not None
        return MapIds(pid=process.pid, start_time=start_time)

    def is_mapped(self, process: "subprocess.Popen[bytes]") -> bool:
        """As newuidmap does it, or not at all."""
        raise NotImplementedError

    def take_ids(self) -> None:
        """The owner has no subordinate ids any more."""
        raise NotImplementedError

    def request_signal(self, process: "subprocess.Popen[bytes]") -> SignalVmm:
        start_time = find_start_time(process.pid)
        assert start_time is not None
        return SignalVmm(pid=process.pid, start_time=start_time, signal=signal.SIGTERM)

    def is_signalled(self, process: "subprocess.Popen[bytes]") -> bool:
        try:
            return process.wait(2) == -signal.SIGTERM
        except subprocess.TimeoutExpired:
            return False

    def end_vmm(self, process: "subprocess.Popen[bytes]") -> None:
        process.kill()
        process.wait()

    async def warm_up(self) -> None:
        """Opens what the way to root keeps open."""
        await self.privileged.call(InspectHost())
        await self.privileged.call(ListRoutes())

    def close(self) -> None:
        self._processes.close()


class FakePlace(Place):
    vmm_uid = os.getuid()

    def __init__(self) -> None:
        super().__init__()
        self.privileged = self.fake = FakePrivileged()
        self.fake.resolved = False

    def set_forwarding(self, wanted: bool) -> None:
        self.fake.ip_forward = wanted

    def add_route(self, destination: str, device: str) -> None:
        self.fake.routes.append(Route(destination=destination, device=device, gateway=""))

    def start_vmm(self, uid: int | None = None) -> "subprocess.Popen[bytes]":
        process = super().start_vmm()
        self.fake.processes[process.pid] = -1 if uid is not None else self.request_signal(process).start_time
        return process

    def start_in_namespace(self, uid: int | None = None) -> "subprocess.Popen[bytes]":
        process = self.start_vmm(uid)
        self.fake.unmapped.add(process.pid)
        return process

    def is_mapped(self, process: "subprocess.Popen[bytes]") -> bool:
        return process.pid not in self.fake.unmapped

    def take_ids(self) -> None:
        self.fake.has_subordinate_ids = False

    def end_vmm(self, process: "subprocess.Popen[bytes]") -> None:
        super().end_vmm(process)
        del self.fake.processes[process.pid]

    def is_signalled(self, process: "subprocess.Popen[bytes]") -> bool:
        return (process.pid, signal.SIGTERM) in self.fake.signals


class NamespacePlace(Place):
    """The kernel for real, in a network and mount namespace of its own."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__()
        self.namespace = namespace
        self.open_successor: Callable[[], Privileged]  # of a daemon that has closed its own
        self.ids: Path  # stands for /etc/subuid and /etc/subgid there

    def set_forwarding(self, wanted: bool) -> None:
        self.namespace.set_value("net.ipv4.ip_forward", int(wanted))

    def give_ids(self, directory: Path) -> None:
        self.ids = directory / "ids"
        self.ids.write_text(f"somebody:100000:65536\nnobody:{FIRST_ID}:65536\n")
        for file in ("/etc/subuid", "/etc/subgid"):
            self.namespace.run("mount", "--bind", str(self.ids), file)

    def take_ids(self) -> None:
        self.ids.write_text("somebody:100000:65536\nnobody:300000:65535\n")

    def is_mapped(self, process: "subprocess.Popen[bytes]") -> bool:
        maps = [Path(f"/proc/{process.pid}/{name}_map").read_text().split() for name in ("uid", "gid")]
        assert maps[0] == maps[1]
        assert maps[0] in ([], ["0", str(self.vmm_uid), "1", "1", str(FIRST_ID), "65535"])
        return maps[0] != []

    def bind(self, kind: socket.SocketKind, address: str) -> socket.socket:
        with ThreadPoolExecutor(1, initializer=enter, initargs=(self.namespace.pid,)) as inside:
            return inside.submit(super().bind, kind, address).result()

    def add_route(self, destination: str, device: str) -> None:
        self.namespace.batch(
            f"link add {device} type veth peer name {device}-peer\n"
            f"link set {device} up\nroute add {destination} dev {device}\n"
        )


@contextmanager
def running(argv: Sequence[str], **options: object) -> "Iterator[subprocess.Popen[bytes]]":
    with subprocess.Popen(argv, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def probe() -> None:
    """Skips, or fails, where the kernel's side cannot be tried."""
    if os.getuid() != 0:
        skip_or_fail("only root has network namespaces to try the helper in", tier="host")
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
        subprocess.run(("unshare", "--net", "nft", "list", "ruleset"), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        skip_or_fail(f"the helper cannot be tried here: {error}", tier="host")


@contextmanager
def open_fake(_: Path) -> Iterator[Place]:
    yield FakePlace()


@contextmanager
def open_helper(directory: Path) -> Iterator[Place]:
    """A helper process that serves `nobody`; the test is root, and may ask as well."""
    probe()
    place = NamespacePlace(Namespace())
    place.vmm_uid = NOBODY
    place.give_ids(directory)
    path = directory / "root.sock"
    program = (sys.executable, "-m", "banger.privileged.helper")
    argv = place.namespace.argv(*program, "--owner", str(NOBODY), "--socket", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, (directory / "log").open("wb") as log:
        ready.bind(str(directory / "ready"))
        ready.settimeout(20)
        environment = os.environ | {"NOTIFY_SOCKET": str(directory / "ready")}
        try:
            with running(argv, env=environment, stderr=log):
                while b"READY=1" not in ready.recv(4096):
                    pass
                place.privileged = HelperClient(path)
                yield place
        finally:
            place.namespace.close()
            print((directory / "log").read_text())


@contextmanager
def open_in_process(directory: Path) -> Iterator[Place]:
    """The handlers in this process, in a thread that has entered the namespace."""
    probe()
    from banger.privileged.inprocess import InProcess

    place = NamespacePlace(Namespace())
    place.vmm_uid = 0
    directory.chmod(0o755)
    place.open_successor = lambda: InProcess(
        directory / "lock", on_thread_start=lambda: enter(place.namespace.pid)
    )
    try:
        place.privileged = place.open_successor()
        yield place
    finally:
        place.namespace.close()


def enter(pid: int) -> None:
    """This thread alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    for name, kind in (("net", _CLONE_NEWNET), ("mnt", _CLONE_NEWNS)):
        descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
        # A thread that shares its root directory with others cannot change its mounts (setns(2)).
        failed = libc.unshare(_CLONE_FS) or libc.setns(descriptor, kind)
        os.close(descriptor)
        if failed:
            raise OSError(ctypes.get_errno(), f"the {name} namespace of {pid} cannot be entered")


WAYS = {"fake": open_fake, "in-process": open_in_process, "helper": open_helper}
