"""One lab: a QEMU of ours that emulates a processor with nested virtualisation, its two disks, its channel.

Owns a directory below BUILD/running (disks, logs) and one for sockets; both go when it is closed, and those of
sessions that were killed go when the next lab is opened. QEMU ends with whoever started it (PR_SET_PDEATHSIG).
"""

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tools.lab import recipe
from tools.lab.build import BUILD, Base
from tools.lab.channel import Channel, ChannelError, Done, Running
from tools.lab.memory import open_reader, open_writer
from tools.lab.monitor import Monitor

from banger.base.process import SEARCH_PATH, get_tool

RUNNING = BUILD / "running"
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_BOOT_S = 240.0
_ANSWER_S = 60.0


class Disks(NamedTuple):
    """What the lab's own two layers stand on."""

    root: Path
    home: Path


class Listeners(NamedTuple):
    monitor: int
    channel: int
    console: int


def plan_qemu(
    qemu: str, base: Base, place: Path, listeners: Listeners, *, tsc_khz: int, incoming: bool
) -> tuple[str, ...]:
    """The command line. A restored lab's must be that of the one that was saved, but for the state to read."""
    cache = "cache.direct=off,cache.no-flush=on"
    return (
        qemu,
        *("-name", "lab", "-M", "q35", "-accel", "tcg,thread=multi"),
        *("-cpu", recipe.CPU, "-smp", str(recipe.PROCESSORS), "-m", f"{recipe.MEMORY_MIB}M"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-sandbox", _SANDBOX),
        *("-kernel", str(base.kernel), "-initrd", str(base.initramfs)),
        *("-append", f"{recipe.KERNEL_ARGUMENTS} tsc_early_khz={tsc_khz}"),
        *("-chardev", f"socket,id=monitor,fd={listeners.monitor},server=on,wait=off"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"file,id=serial,path={place / 'serial.log'}", "-serial", "chardev:serial"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=console,fd={listeners.console},server=on,wait=off"),
        *("-device", "virtconsole,chardev=console,name=console,nr=0"),
        *("-chardev", f"socket,id=channel,fd={listeners.channel},server=on,wait=off"),
        *("-device", "virtserialport,chardev=channel,name=lab,nr=1"),
        *("-blockdev", f"qcow2,node-name=root,{cache},file.driver=file,file.filename={place / 'root.qcow2'}"),
        *("-device", "virtio-blk-pci,drive=root,serial=root"),
        *("-blockdev", f"qcow2,node-name=home,{cache},file.driver=file,file.filename={place / 'home.qcow2'}"),
        *("-device", "virtio-blk-pci,drive=home,serial=home"),
        *("-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *(("-incoming", "defer") if incoming else ()),
    )


class Lab:
    """`run` is a command in the lab; `start` one that is not waited for. Booted cold, or restored from a state."""

    def __init__(self, base: Base, disks: Disks, *, tsc_khz: int, memory: Path | None = None) -> None:
        """Blocks until its agent answers. `memory` is what to restore, by a QEMU with the same `tsc_khz`."""
        began = time.monotonic()
        with _swept():
            self.place = Path(tempfile.mkdtemp(prefix="lab-", dir=RUNNING))
            self._owned = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._owned, fcntl.LOCK_EX)
        self.sockets = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))  # a socket's path has 107 bytes
        (self.place / "sockets").symlink_to(self.sockets)
        self.tsc_khz = tsc_khz
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self.monitor: Monitor | None = None
        try:
            self._create_disks(disks)
            self._start_qemu(base, incoming=memory is not None)
            if memory is not None:
                with open_reader(memory) as descriptor:
                    self.get_monitor().restore(descriptor)
            self._greet(_BOOT_S if memory is None else _ANSWER_S)
        except BaseException:
            self._keep_serial()
            self.close()
            raise
        self.start_s = time.monotonic() - began

    @property
    def channel(self) -> Channel:
        assert self._channel is not None
        return self._channel

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def serial_log(self) -> Path:
        return self.place / "serial.log"

    def get_monitor(self) -> Monitor:
        assert self.monitor is not None
        return self.monitor

    def start(self, argv: Sequence[str], **options: Any) -> Running:
        return self.channel.start(argv, **options)

    def run(self, *argv: str, check: bool = True, **options: Any) -> Done:
        """Raises ChannelError when `check` and the status is not 0. Options: user, stdin, env, cwd, timeout_s."""
        done = self.channel.start(argv, **options).wait()
        if check and (done.status != 0 or done.late):
            raise ChannelError(str(done))
        return done

    def put(self, path: str, content: bytes, *, mode: int = 0o644, user: str = "root") -> None:
        self.channel.ask("put", content, path=path, mode=mode, user=user, timeout_s=300)

    def get(self, path: str) -> bytes:
        return self.channel.ask("get", path=path, timeout_s=300).bodies[0]

    def save(self, memory: Path) -> None:
        """Stops the lab for good and writes its memory; its layers of the disks are then whole, below `place`."""
        with open_writer(memory) as descriptor:
            self.get_monitor().save(descriptor)

    def reset(self) -> None:
        """As by the button: what the host had not yet written to its disks is lost, commands that run are never
        answered. Returns when it has booted again as far as its agent."""
        monitor = self.get_monitor()
        monitor.execute("set-action", reboot="reset")
        monitor.execute("system_reset")
        self._greet(_BOOT_S)
        monitor.execute("set-action", reboot="shutdown")  # a panic ends it, as before

    def close(self) -> None:
        """Nothing of it is left but what was saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._channel is not None:
            self._channel.close()
        if self.monitor is not None:
            self.monitor.close()
        shutil.rmtree(self.sockets, ignore_errors=True)
        shutil.rmtree(self.place, ignore_errors=True)
        os.close(self._owned)

    def _greet(self, timeout_s: float) -> None:
        self.channel.greet(timeout_s)
        self.channel.ask("clock", seconds=time.time())

    def _create_disks(self, disks: Disks) -> None:
        create_layer(self.place / "root.qcow2", disks.root)
        create_layer(self.place / "home.qcow2", disks.home)

    def _start_qemu(self, base: Base, *, incoming: bool) -> None:
        setpriv = get_tool("setpriv", package="util-linux")
        qemu = get_tool("qemu-system-x86_64", package="qemu-system-x86")
        names = Listeners._fields
        sockets = [self._listen(name) for name in names]
        listeners = Listeners(*(each.fileno() for each in sockets))
        argv = plan_qemu(qemu, base, self.place, listeners, tsc_khz=self.tsc_khz, incoming=incoming)
        with (self.place / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                (setpriv, "--pdeathsig", "KILL", "--", *argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=tuple(listeners),
                env={"PATH": SEARCH_PATH, "TMPDIR": str(self.place)},
                start_new_session=True,
            )
        for each in sockets:
            each.close()  # so that QEMU's end is an end for who is connected
        self.monitor = Monitor(self.connect("monitor"))
        self._channel = Channel(self.connect("channel"))

    def _listen(self, name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.sockets / name))
        listener.listen(1)
        return listener

    def connect(self, name: str) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.connect(str(self.sockets / name))
        return connected

    def _keep_serial(self) -> None:
        """For who looks into a lab that did not come up."""
        logs = BUILD / "failed-start"
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir()
        for name in ("serial.log", "qemu.log"):
            if (self.place / name).exists():
                shutil.copy(self.place / name, logs / name)


def create_layer(path: Path, below: Path) -> None:
    """An empty qcow2 over another."""
    qemu_img = get_tool("qemu-img", package="qemu-utils")
    argv = (qemu_img, "create", "-q", "-f", "qcow2", "-b", str(below), "-F", "qcow2", str(path))
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def sweep_running() -> None:
    """Removes what labs have left whose owner was killed: nobody holds its lock."""
    with _swept():
        pass


@contextmanager
def _swept() -> Iterator[None]:
    """Around the making of a place: nobody else sweeps, who would remove it before it is locked."""
    RUNNING.mkdir(parents=True, exist_ok=True)
    with (RUNNING.parent / ".sweep").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _sweep()
        yield


def _sweep() -> None:
    for place in RUNNING.glob("lab-*"):
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # closed meanwhile
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree((place / "sockets").resolve(), ignore_errors=True)
            shutil.rmtree(place, ignore_errors=True)
        finally:
            os.close(descriptor)
