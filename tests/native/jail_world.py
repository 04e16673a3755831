"""Jails and taps as a daemon of an ordinary user has them, in a namespace made by the test that runs this.

Run as root: makes the bridge and taps of `tap_world`, starts the thread in which root's side runs, then becomes the
uid in this thread alone (setresuid(2): credentials are a thread's). Prints what happened as one line of JSON.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import socket
import struct
import sys
from pathlib import Path

import pytest
from tests.native.jailed import JailedBench
from tests.native.tap_world import make_taps, network, open_devices, ping, taps, wait_gone
from tests.support.jails import JailingRoot

from banger.base.problem import Code, Outcome, Problem, unavailable
from banger.privileged.contract.machines import ListJails
from banger.vmm.firecracker import configure

_SETRESUID, _SETRESGID, _SETGROUPS, _DUMPABLE = 117, 119, 116, 4


def become(uid: int) -> None:
    """This thread alone, by the system calls themselves: libc's functions change every thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    for call, arguments in ((_SETGROUPS, (0, None)), (_SETRESGID, (uid,) * 3), (_SETRESUID, (uid,) * 3)):
        assert libc.syscall(call, *arguments) == 0, os.strerror(ctypes.get_errno())
    assert libc.prctl(_DUMPABLE, 1, 0, 0, 0) == 0  # or /proc/self is root's


async def share(bench: JailedBench, descriptor: int, raw: socket.socket) -> dict[str, object]:
    """A tap outlives the VMM with its holder, serves another, outlives its holder with that one, and no more."""
    name, said = "bng-0000000a", {}
    handle = await bench.start(tap=descriptor, **network(name))
    said["persists while shared"] = taps()[name]
    said["pings"] = await ping(raw)
    said["answers"] = await bench.say(handle, b"hello\n") == b"hello\n"
    said["exit"] = (await bench.vmm.kill(handle)).reason
    said["by root"] = "signal_vmm" in bench.way.calls
    said["stays with its holder"] = name in taps()
    handle = await bench.start(tap=descriptor, **network(name))
    said["pings another"] = await ping(raw)
    os.close(descriptor)
    said["stays with the VMM"] = name in taps()
    await bench.vmm.kill(handle)
    said["goes with the last"] = await wait_gone(name)
    return said


async def fail_late(bench: JailedBench, descriptor: int) -> dict[str, object]:
    """After the tap was settled it is the holder's again, as it was."""
    name, said = "bng-0000000b", {}
    whole = bench.kernel.read_bytes()
    broken = bytearray(whole)
    struct.pack_into("<Q", broken, 64 + 24, 1 << 40)
    bench.kernel.write_bytes(broken)
    with contextlib.suppress(Problem):
        await bench.start(tap=descriptor, **network(name))
    bench.kernel.write_bytes(whole)
    said["persists after"] = taps()[name]
    handle = await bench.start(tap=descriptor, **network(name))
    said["serves again"] = True
    await bench.vmm.kill(handle)
    os.close(descriptor)
    said["gone"] = await wait_gone(name)
    return said


async def fail_lent(bench: JailedBench, step: str, name: str, descriptor: int) -> dict[str, object]:
    """A tap that was lent and not settled is not ours to take back: root deletes it, nothing stays."""

    def fail(*_: object) -> None:
        raise unavailable("as told")

    whole = configure._attach
    if step == "settle":
        bench.way.failures["settle_vmm"] = Problem(Code.UNAVAILABLE, "as told", outcome=Outcome.NOT_STARTED)
    else:
        configure._attach = fail
    said: dict[str, object] = {}
    try:
        await bench.start(tap=descriptor, **network(name))
    except Problem as problem:
        said["told"] = problem.brief
    finally:
        configure._attach = whole
    said["gone"] = await wait_gone(name)
    said["by root"] = bench.way.calls[-1]
    os.close(descriptor)
    return said


async def main(root: Path, kernel: Path, uid: int) -> None:
    """`root` is made and removed by the test: half of what is in there is not this thread's to remove."""
    descriptors = make_taps([f"bng-0000000{letter}" for letter in "abcd"])
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw.setblocking(False)
    root.chmod(0o755)
    open_devices(root)
    way = JailingRoot(root, pytest.MonkeyPatch(), owner=uid)
    await way.call(ListJails())  # its thread is there from now on, and root's
    home = root / "home"
    home.mkdir()
    bench = JailedBench(home, kernel, way)
    for path in (home, bench.kernel, bench.initramfs):
        os.chown(path, uid, uid)
    become(uid)
    said = {
        "share": await share(bench, descriptors["bng-0000000a"], raw),
        "late": await fail_late(bench, descriptors["bng-0000000b"]),
        "lent": await fail_lent(bench, "attach", "bng-0000000c", descriptors["bng-0000000c"]),
        "attached": await fail_lent(bench, "settle", "bng-0000000d", descriptors["bng-0000000d"]),
        "left": sorted(taps()),
    }
    said["jails"] = len((await way.call(ListJails())).result.jails)
    said["running"] = await bench.end()
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
