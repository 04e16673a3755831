"""Runs in the lab as root: the helper's own code on device-mapper, one call after another.

`python3 -I -S snapshots.py ARCHIVE` reads a list of [function, argument …] as JSON, and prints a list of what came of
each: {"returned": …} or {"refused": code, "message": …, "hint": …}.
"""

import json
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from banger.privileged.contract.values import Refusal
from banger.privileged.helper import devmapper, machine_support, snapshots

OWNER = 1000
_SETTLED_S = 20


@contextmanager
def opened(path, flags):
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def attach(vm, size_bytes, base, changes):
    with opened(base, os.O_RDONLY) as below, opened(changes, os.O_RDWR) as layer:
        snapshots.attach_snapshot(vm, size_bytes, below, layer, owner=OWNER)


def attach_unseen(*arguments):
    """Only the kernel looks at the layer's begin."""
    snapshots.verify_layer = lambda *_: None
    attach(*arguments)


def detach(vm):
    snapshots.detach_snapshot(vm)


def detach_while_open(vm, seconds):
    """How often the device was found in use before it went: 0 would prove nothing."""
    pauses = []
    sleep, pid = time.sleep, os.fork()
    if pid == 0:
        node(vm, "/dev/held")
        with opened("/dev/held", os.O_RDONLY):
            os.write(_ready[1], b".")
            time.sleep(seconds)
        os._exit(0)
    os.read(_ready[0], 1)
    try:
        snapshots.time.sleep = lambda pause_s: (pauses.append(pause_s), sleep(pause_s))
        detach(vm)
    finally:
        snapshots.time.sleep = sleep
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(pauses)


_ready = os.pipe()


def list_all():
    return [vars(snapshot) for snapshot in snapshots.list_snapshots()]


def detach_abandoned():
    snapshots.detach_abandoned()


def inspect():
    return vars(machine_support.inspect_machines())


def node(vm, path):
    """Where a jail has it: no udev is needed for that."""
    Path(path).unlink(missing_ok=True)
    os.mknod(path, 0o060600, os.makedev(*snapshots.find_snapshot_device(vm)))


def kill_at_each_step(vm, size_bytes, base, changes):
    """An attachment that ends by SIGKILL before its 1st, 2nd … step: what is found then, until one gets to its end."""
    found = []
    for step in range(1, 100):
        pid = os.fork()
        if pid == 0:
            try:
                die_at(step)
                attach(vm, size_bytes, base, changes)
            finally:
                os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        listed = list_all()
        detach(vm)
        found.append({"killed": killed, "listed": listed, "left": left()})
        if not killed:
            return found
    raise AssertionError("it never ends")


def die_at(step):
    """Each call of the kernel's by which something is made is a step."""
    steps = iter(range(1, 1000))

    def wrap(function):
        def stepping(*arguments, **options):
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return stepping

    for name in ("create", "load", "resume"):
        setattr(devmapper.DeviceMapper, name, wrap(getattr(devmapper.DeviceMapper, name)))
    snapshots.attach_loop = wrap(snapshots.attach_loop)


def left():
    """Devices and loops on this host: none, once udev has looked at what is gone."""
    until = time.monotonic() + _SETTLED_S
    while (found := devices()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def devices():
    blocks = Path("/sys/block")
    maps = []
    for block in blocks.glob("dm-*"):
        with suppress(OSError):  # gone meanwhile, or going
            maps.append((block / "dm" / "name").read_text().strip())
    loops = [block.parent.name for block in blocks.glob("loop*/loop")]
    return sorted(maps + loops)


def main():
    results = []
    for function, *arguments in json.load(sys.stdin):
        try:
            results.append({"returned": globals()[function](*arguments)})
        except Refusal as refusal:
            results.append({"refused": refusal.code, "message": refusal.message, "hint": refusal.hint})
    print(json.dumps(results))


main()
