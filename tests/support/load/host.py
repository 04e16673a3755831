"""A host that outlives the daemon: the kernel's side of root's work, the root helper, and where processes begin.

`python -m tests.support.load.host DIRECTORY` serves, in one thread, the helper's protocol at `root.sock` (by the
helper's own server, on `privileged.fake`) and orders at `host.sock`. VMMs and daemons are forks of this process, so
they begin in milliseconds; all of them end with it. The helper keeps no state, so its death is that of its connections:
the next ones reach one that was restarted.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.load import daemon
from tests.support.load.guest import Boot, run_guest
from tests.support.load.link import AGENT, MESSAGE_BYTES, ORDERS, ROOT_SOCKET

from banger.privileged.contract.base import Reply, Request
from banger.privileged.contract.codec import decode_request
from banger.privileged.contract.machines import LaunchVmm, SettleVmm
from banger.privileged.contract.network import OpenDns
from banger.privileged.contract.values import Refusal
from banger.privileged.fake import FakePrivileged
from banger.privileged.helper.log import Log
from banger.privileged.helper.server import Peer, Server
from banger.vmm.identity import find_start_time

SCRATCH = "guests"
BEFORE, AFTER = "before", "after"
_LAUNCH_FILES = 3  # kernel, initramfs, console; the disks come behind
_PR_SET_PDEATHSIG = 1
_REAP_S = 0.0005


class Vmm:
    """A process that stands for a VMM. `tap` keeps the tap up as long as the process lives; `forwards` are the ports
    of user mode."""

    def __init__(self, pid: int, place: str, boot: Boot, tap: int | None) -> None:
        self.pid = pid
        self.start_time = find_start_time(pid) or 0
        self.place = place
        self.boot = boot
        self.tap = tap
        self.forwards: list[str] = []
        self.status: int | None = None

    def hold_tap(self, descriptor: int | None) -> None:
        if self.tap is not None:
            os.close(self.tap)
        self.tap = descriptor

    def describe(self) -> dict[str, Any]:
        return {
            "pid": self.pid,
            "start_time": self.start_time,
            "place": self.place,
            "boot_id": self.boot.boot_id,
            "forwards": self.forwards,
        }


class Processes:
    """All children of this host. A VMM that has ended is remembered, for who asks how."""

    def __init__(self, scratch: Path) -> None:
        self.vmms: dict[int, Vmm] = {}
        self.ended: dict[tuple[int, int], int] = {}
        self.delay_ms = (0.0, 0.0)
        self._scratch = scratch
        signal.signal(signal.SIGCHLD, lambda *_: self.reap())

    def begin(self, place: Path, disks: Sequence[str], tap: int | None) -> Vmm:
        """Listens before it returns, so that the agent can be reached at once."""
        boot_id = str(uuid.uuid4())
        boot = Boot(boot_id, self._scratch / boot_id, disks, self.delay_ms)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            (place / AGENT).unlink(missing_ok=True)
            listener.bind(str(place / AGENT))
            listener.listen()
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))  # it may end before it is noted
            try:
                pid = self.fork(lambda: run_guest(listener, boot), keep=(listener.fileno(),))
                vmm = self.vmms[pid] = Vmm(pid, str(place), boot, tap)
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
        return vmm

    def fork(self, run: Callable[[], object], keep: Sequence[int]) -> int:
        """A child with no descriptors but those of `keep`; it dies with this process."""
        pid = os.fork()
        if pid:
            return pid
        status = 70
        try:
            _die_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
            os.setsid()
            _close_all_but(keep)
            status = int(run() or 0)  # type: ignore[call-overload]
        finally:
            os._exit(status)

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (vmm := self.vmms.pop(pid, None)) is not None:
                vmm.hold_tap(None)
                self.ended[pid, vmm.start_time] = status
                shutil.rmtree(vmm.boot.scratch, ignore_errors=True)

    def kill(self, pid: int) -> None:
        """Returns when it is gone."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        while pid in self.vmms:
            self.reap()
            time.sleep(_REAP_S)

    def find_at(self, place: str) -> list[Vmm]:
        return [vmm for vmm in tuple(self.vmms.values()) if vmm.place == place]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _close_all_but(keep: Sequence[int]) -> None:
    low = 3
    for descriptor in sorted(keep):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


class Kernel:
    """`RootWork` on the fake of root: what the helper does is done here, and stays when the helper dies."""

    def __init__(self, processes: Processes) -> None:
        self.fake = FakePrivileged()
        self.fake.jails.spawn = self._spawn
        self.fake.jails.end = processes.kill
        self.name_server: tuple[str, int] | None = None
        self._processes = processes
        self._launching: Sequence[int] = ()

    def handle(self, request: Request[Any], descriptors: tuple[int, ...]) -> Reply[Any]:
        self.catch_up()
        if isinstance(request, LaunchVmm):
            self._launching = descriptors
        reply: Reply[Any] = getattr(self.fake, f"_{request.method}")(request, descriptors)
        if isinstance(request, SettleVmm) and request.tap:
            jail = self.fake.jails.jails[request.vm]
            self._processes.vmms[jail.pid].hold_tap(os.dup(reply.descriptors[0]))
        if isinstance(request, OpenDns):
            with socket.socket(fileno=os.dup(reply.descriptors[0])) as udp:
                self.name_server = udp.getsockname()
        self.catch_up()
        return reply

    def release_abandoned(self) -> bool:
        return True

    def catch_up(self) -> None:
        """What follows in a kernel from processes and descriptors that have gone."""
        self.fake._drop_closed()
        for vm, jail in self.fake.jails.jails.items():
            if jail.pid and jail.pid not in self._processes.vmms:
                self.fake.jails.die(vm)
        for vm, snapshot in self.fake.snapshots.attached.items():
            snapshot.in_use = vm in self.fake.jails.jails and self.fake.jails.jails[vm].pid != 0

    def describe(self) -> dict[str, Any]:
        self.catch_up()
        fake = self.fake
        return {
            "bridge": fake.bridge,
            "zone": fake.zone,
            "name_server": self.name_server,
            "taps": {name: tap.up for name, tap in fake.taps.items()},
            "guests": {guest.address: guest.tap for guest in fake.guests.values()},
            "nat": sorted(guest.address for guest in fake.guests.values() if guest.nat),
            "published": sorted(
                f"{address}:{port}/{protocol} {to[0]}:{to[1]}"
                for (protocol, address, port), to in fake.published.items()
            ),
            "jails": {vm: jail.pid for vm, jail in fake.jails.jails.items()},
            "snapshots": {vm: snapshot.in_use for vm, snapshot in fake.snapshots.attached.items()},
        }

    def _spawn(self, request: LaunchVmm, directory: Path) -> tuple[int, int]:
        files = self._launching[_LAUNCH_FILES:]
        disks = [os.readlink(f"/proc/self/fd/{file}") for file in files]
        os.write(self._launching[_LAUNCH_FILES - 1], b"a fake guest\n")
        vmm = self._processes.begin(directory, disks, None)
        return vmm.pid, vmm.start_time


class Death(NamedTuple):
    """The helper dies at the call of this number (from 1, of this method) once: before or after it is done."""

    method: str
    number: int
    when: str


class Helper(Server):
    def __init__(self, listener: socket.socket, kernel: Kernel) -> None:
        super().__init__(listener, kernel, os.getuid(), Log(os.open(os.devnull, os.O_WRONLY)))
        self.death: Death | None = None
        self.deaths = 0
        self._calls: Counter[str] = Counter()
        self._dying = False

    def arm(self, death: Death | None) -> None:
        self._calls.clear()
        self.death = death

    def attend(self, source: socket.socket, serve: Callable[[], None]) -> None:
        """Something else to look after in the same loop."""
        self._selector.register(source, 1, serve)

    def forsake(self, source: socket.socket) -> None:
        self._selector.unregister(source)
        source.close()

    def die(self) -> None:
        self.deaths += 1
        self.death = None
        for peer in tuple(self._peers):
            self._drop(peer)

    def _answer(self, peer: Peer, message: bytes, descriptors: tuple[int, ...], *, cut_off: bool) -> None:
        death = self._find_death(message, len(descriptors))
        if death == BEFORE:
            self.die()
            return
        self._dying = death == AFTER
        try:
            super()._answer(peer, message, descriptors, cut_off=cut_off)
        finally:
            if self._dying:
                self._dying = False
                self.die()

    def _send(self, peer: Peer, answer: bytes, held: tuple[int, ...]) -> None:
        if not self._dying:
            super()._send(peer, answer, held)
            return
        for descriptor in held:
            os.close(descriptor)

    def _find_death(self, message: bytes, descriptors: int) -> str:
        if self.death is None:
            return ""
        try:
            method = decode_request(message, descriptors)[0].method
        except Refusal:
            return ""
        self._calls[method] += 1
        due = (method, self._calls[method]) == (self.death.method, self.death.number)
        return self.death.when if due else ""


class Orders:
    """What tests and fake VMMs ask of the host: one JSON object for each datagram, one back."""

    def __init__(self, processes: Processes, kernel: Kernel, helper: Helper) -> None:
        self._processes = processes
        self._kernel = kernel
        self._helper = helper

    def accept(self, listener: socket.socket) -> None:
        connected, _ = listener.accept()
        self._helper.attend(connected, lambda: self._serve(connected))

    def _serve(self, connected: socket.socket) -> None:
        try:
            message, descriptors, _, _ = socket.recv_fds(connected, MESSAGE_BYTES, 4)
            if not message:
                self._helper.forsake(connected)
                return
            order = json.loads(message)
            answer, sent = getattr(self, f"_{order.pop('order')}")(*descriptors, **order)
            socket.send_fds(connected, [json.dumps(answer).encode()], list(sent))
            for descriptor in sent:
                os.close(descriptor)
        except ConnectionError:
            self._helper.forsake(connected)

    def _start(self, tap: int | None = None, *, place: str, disks: Sequence[str], forwards: list[str]) -> Any:
        vmm = self._processes.begin(Path(place), disks, tap)
        vmm.forwards = forwards
        return vmm.describe(), ()

    def _forward(self, *, pid: int, forwards: list[str]) -> Any:
        if vmm := self._processes.vmms.get(pid):
            vmm.forwards = forwards
        return {}, ()

    def _find_forwards(self, *, pid: int) -> Any:
        vmm = self._processes.vmms.get(pid)
        return {"forwards": vmm.forwards if vmm else []}, ()

    def _evict(self, *, place: str) -> Any:
        for vmm in self._processes.find_at(place):
            self._processes.kill(vmm.pid)
        Path(place, AGENT).unlink(missing_ok=True)
        return {}, ()

    def _find_end(self, *, pid: int, start_time: int) -> Any:
        """The wait status of one that has ended, or null."""
        self._processes.reap()
        status = self._processes.ended.get((pid, start_time))
        return {"status": None if status is None else os.waitstatus_to_exitcode(status)}, ()

    def _kill_vmms(self, *, pids: list[int] | None = None) -> Any:
        for pid in tuple(self._processes.vmms) if pids is None else pids:
            self._processes.kill(pid)
        return {}, ()

    def _arm_helper(self, *, death: list[Any] | None) -> Any:
        self._helper.arm(Death(*death) if death else None)
        return {}, ()

    def _kill_helper(self) -> Any:
        self._helper.die()
        return {}, ()

    def _delay(self, *, low_ms: float, high_ms: float) -> Any:
        self._processes.delay_ms = (low_ms, high_ms)
        return {}, ()

    def _reboot(self) -> Any:
        """Nothing of the host's memory is left; files are."""
        self._kill_vmms()
        self._helper.die()
        fresh = FakePrivileged()
        fresh.jails.spawn, fresh.jails.end = self._kernel.fake.jails.spawn, self._kernel.fake.jails.end
        self._kernel.fake = fresh
        return {}, ()

    def _describe(self) -> Any:
        self._processes.reap()
        vmms = [vmm.describe() for vmm in tuple(self._processes.vmms.values())]
        return {"vmms": vmms, "helper_deaths": self._helper.deaths, **self._kernel.describe()}, ()

    def _start_daemon(self, *, arguments: list[str], environment: dict[str, str]) -> Any:
        """Its pid, a descriptor that says when it is ready, and its pidfd. The one before has taken its sockets with it."""
        self._kernel.name_server = None
        reader, writer = os.pipe()

        def run() -> int:
            os.environ.update(environment)
            return daemon.run([*arguments, "--ready-fd", str(writer)])

        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))  # it may end before it is named
        try:
            pid = self._processes.fork(run, keep=(writer,))
            pidfd = os.pidfd_open(pid)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
            os.close(writer)
        return {"pid": pid}, (reader, pidfd)


def main(directory: Path) -> None:
    _die_with_parent()
    daemon.prepare()
    (directory / SCRATCH).mkdir()
    processes = Processes(directory / SCRATCH)
    kernel = Kernel(processes)
    with _listen(directory / ROOT_SOCKET) as root, _listen(directory / ORDERS) as orders:
        helper = Helper(root, kernel)
        desk = Orders(processes, kernel, helper)

        def ready() -> None:
            helper.attend(orders, lambda: desk.accept(orders))
            sys.stdout.write("ready\n")
            sys.stdout.flush()

        helper.run(ready)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen(128)
    listener.setblocking(False)
    return listener


if __name__ == "__main__":
    main(Path(sys.argv[1]))
