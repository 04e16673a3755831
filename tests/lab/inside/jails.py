"""Runs in the lab as root: the helper's own code on jails and cgroups, one call after another, then its process ends
and the VMMs live on.

`python3 -I -S jails.py ARCHIVE` reads a list of [function, argument …] as JSON, and prints a list of what came of
each: {"returned": …} or {"refused": code, "message": …, "hint": …}.
"""

import dataclasses
import http.client
import json
import os
import signal
import socket
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from banger.privileged.contract.machines import LaunchVmm
from banger.privileged.contract.values import Refusal
from banger.privileged.helper import jails, machine_support, processes, snapshots

OWNER = 1000
HOME = "/home/alice"
CGROUPS = Path("/sys/fs/cgroup/banger")
JAILS = Path("/var/lib/banger-root/jails/firecracker")
_SETTLED_S = 60
_ARGUMENTS = "console=ttyS0 reboot=k pci=off"
keeper = jails.JailKeeper()


class Api(http.client.HTTPConnection):
    def __init__(self, sockets):
        super().__init__("localhost", timeout=60)
        self.path = f"/proc/self/fd/{sockets}/api.sock"

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def put(self, path, **body):
        self.request("PUT", path, json.dumps(body))
        answer = self.getresponse()
        said = answer.read()
        assert answer.status < 300, said


def inspect():
    return dataclasses.asdict(machine_support.inspect_machines())


def launch(vm, disks=()):
    kinds = [kind for kind in disks if kind != "snapshot"]
    files = [os.open(f"{HOME}/kernel", os.O_RDONLY), os.open(f"{HOME}/initramfs", os.O_RDONLY)]
    files.append(os.open(f"{HOME}/console-{vm}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    files += [
        os.open(f"{HOME}/disk-{vm}", os.O_RDONLY if kind == "read-only" else os.O_RDWR) for kind in kinds
    ]
    try:
        request = LaunchVmm(vm=vm, memory_mib=64, disks=tuple(disks))
        launched, (sockets,) = keeper.launch(request, files, owner=OWNER)
    finally:
        for file in files:
            os.close(file)
    os.close(sockets)
    return dataclasses.asdict(launched)


def launch_and_die_after(step, vm):
    """The helper is killed as soon as it has done this step."""
    owner = {"add": jails.Cgroups, "prepare": jails.Cgroups}.get(step, jails)
    real = getattr(owner, step)

    def last(*arguments, **options):
        real(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, step, last)
    launch(vm, ("file",))


def boot(vm, disks=0):
    """Describes the machine, settles, starts it."""
    _, (sockets,) = keeper.enter(vm)
    api = wait_api(vm, sockets)
    api.put("/machine-config", vcpu_count=1, mem_size_mib=64)
    boot_source = {"kernel_image_path": "kernel", "initrd_path": "initramfs", "boot_args": _ARGUMENTS}
    api.put("/boot-source", **boot_source)
    for index in range(disks):
        name = f"disk{index}"
        api.put(f"/drives/{name}", drive_id=name, path_on_host=name, is_root_device=False, is_read_only=False)
    api.put("/vsock", guest_cid=3, uds_path="s/agent.sock")
    keeper.settle(vm, "")
    api.put("/actions", action_type="InstanceStart")
    os.close(sockets)


def wait_api(vm, sockets):
    until = time.monotonic() + _SETTLED_S
    while time.monotonic() < until:
        try:
            api = Api(sockets)
            api.connect()
            return api
        except OSError:
            time.sleep(0.02)
    raise AssertionError(Path(f"{HOME}/console-{vm}").read_text())


def say(vm, line):
    _, (sockets,) = keeper.enter(vm)
    until = time.monotonic() + _SETTLED_S
    while time.monotonic() < until:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(2)
            try:
                agent.connect(f"/proc/self/fd/{sockets}/agent.sock")
                agent.sendall(b"CONNECT 1024\n")
                stream = agent.makefile("rb")
                if stream.readline().startswith(b"OK "):
                    agent.settimeout(30)
                    agent.sendall(f"{line}\n".encode())
                    return stream.readline().decode().strip()
            except OSError:
                continue
    raise AssertionError(Path(f"{HOME}/console-{vm}").read_text())


def settle(vm):
    return list(keeper.settle(vm, ""))


def remove(vm):
    keeper.remove(vm)


def remove_abandoned():
    keeper.remove_abandoned()


def list_all():
    return [dataclasses.asdict(jail) for jail in keeper.list()]


def signal_vmm(pid, start_time, number):
    processes.signal_vmm(pid, start_time, number, OWNER)


def attach(vm, size_bytes):
    base, layer = os.open(f"{HOME}/image", os.O_RDONLY), os.open(f"{HOME}/layer", os.O_RDWR)
    snapshots.attach_snapshot(vm, size_bytes, base, layer, owner=OWNER)
    os.close(base)
    os.close(layer)


def detach(vm):
    snapshots.detach_snapshot(vm)


def look(vm, pid):
    """The VMM as the kernel shows it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    names = ("Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
    root = Path(f"/proc/{pid}/root").stat()
    return {
        **{name: status[name] for name in names},
        "cgroup": Path(f"/proc/{pid}/cgroup").read_text().strip(),
        "memory.max": (CGROUPS / vm / "memory.max").read_text().strip(),
        "pids.max": (CGROUPS / vm / "pids.max").read_text().strip(),
        "own root": os.path.samestat(root, (JAILS / vm / "root").stat()),
        "mounts": len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines()),
        "zombies": [child for child in children() if processes.find_identity(child).alive is False],
    }


def nodes(vm):
    """Block devices in the jail, with what they lead to."""
    found = {}
    for path in (JAILS / vm / "root").iterdir():
        if stat.S_ISBLK(path.lstat().st_mode):
            number = path.lstat().st_rdev
            block = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
            name = block / "dm" / "name"
            backing = block / "loop" / "backing_file"
            found[path.name] = (name if name.exists() else backing).read_text().strip()
    return found


def exhaust_memory(vm, mebibytes):
    """How a process in the VM's cgroup ends that wants this much."""
    return run_in(vm, lambda: bytearray(mebibytes << 20))


def exhaust_processes(vm):
    """How many children a process in the VM's cgroup can have, as its exit status."""

    def fork_on():
        for number in range(200):
            try:
                if os.fork() == 0:
                    signal.pause()
            except OSError:
                os._exit(number)

    return run_in(vm, fork_on)


def run_in(vm, work):
    if (pid := os.fork()) == 0:
        os.setpgid(0, 0)
        (CGROUPS / vm / "cgroup.procs").write_text(str(os.getpid()))
        work()
        os._exit(255)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return status


def children():
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def left():
    """Of jails, cgroups, VMMs and block devices: nothing, once udev has looked at what is gone."""
    until = time.monotonic() + _SETTLED_S
    while (found := find_left()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def find_left():
    blocks = Path("/sys/block")
    found = [block.parent.name for block in blocks.glob("loop*/loop")]
    found += [block.name for block in blocks.glob("dm-*")]
    found += [str(path) for path in JAILS.glob("*")] + [str(path) for path in CGROUPS.parent.glob("banger*")]
    for entry in Path("/proc").glob("[0-9]*"):
        identity = processes.find_identity(int(entry.name))
        if identity is not None and identity.uid >= 0x70000000:
            found.append(f"process {entry.name}")
    return found


def main():
    results = []
    for function, *arguments in json.load(sys.stdin):
        try:
            results.append({"returned": globals()[function](*arguments)})
        except Refusal as refusal:
            results.append({"refused": refusal.code, "message": refusal.message, "hint": refusal.hint})
    print(json.dumps(results))


main()
