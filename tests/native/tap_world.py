"""Taps on a bridge, as a daemon of some uid has them, in a namespace made by the test that runs this.

Run as root: makes the bridge, taps without persistence whose descriptors it keeps, then becomes the uid. Prints what
happened as one line of JSON. Its own network is only what is in here.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tests.native.bench import NativeBench

from banger.base.problem import Problem, unavailable
from banger.model.machine import TapNetwork
from banger.vmm.contract import Handle
from banger.vmm.firecracker import configure, unjailed

ADDRESS, GUEST, MAC = "10.9.0.1/24", "10.9.0.2", "06:00:0a:09:00:02"
TAPS = ("bng-a", "bng-b", "bng-c", "bng-d")
SETIFF, FLAGS = 0x400454CA, 0x0002 | 0x1000 | 0x4000 | 0x8000


def ip(*words: str) -> str:
    return subprocess.run(("/usr/sbin/ip", *words), check=True, capture_output=True, text=True).stdout


def make_taps(names: Sequence[str] = TAPS) -> dict[str, int]:
    """As the root helper does: exclusively, one queue, gone with their descriptor."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "br0", "type", "bridge")
    ip("address", "add", ADDRESS, "dev", "br0")
    ip("link", "set", "br0", "up")
    descriptors = {}
    for name in names:
        descriptors[name] = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(descriptors[name], SETIFF, struct.pack("16sH22x", name.encode(), FLAGS))
        ip("link", "set", name, "master", "br0", "up")
    return descriptors


def open_devices(directory: Path) -> None:
    """Device files of our own that anyone may use, as on an ordinary host; only this mount namespace sees them."""
    for device in ("/dev/net/tun", "/dev/kvm"):
        own = directory / Path(device).name
        os.mknod(own, 0o020666, os.stat(device).st_rdev)
        own.chmod(0o666)
        subprocess.run(("/bin/mount", "--bind", str(own), device), check=True)


def taps() -> dict[str, bool]:
    """The taps that are there, with their persistence."""
    links = json.loads(ip("-d", "-j", "link", "show"))
    return {
        link["ifname"]: link["linkinfo"]["info_data"]["persist"]
        for link in links
        if link["ifname"].startswith("bng-")
    }


async def wait_gone(name: str) -> bool:
    """An interface outlives its last descriptor by some milliseconds."""
    for _ in range(200):
        if name not in taps():
            return True
        await asyncio.sleep(0.02)
    return False


async def ping(raw: socket.socket) -> bool:
    request = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, 1) + b"x" * 8
    total = sum(struct.unpack("!8H", request))
    total = (total >> 16) + (total & 0xFFFF)
    check = ~(total + (total >> 16)) & 0xFFFF
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(
        None, raw.sendto, request[:2] + struct.pack("!H", check) + request[4:], (GUEST, 0)
    )
    async with asyncio.timeout(5):
        while (answer := await loop.sock_recv(raw, 2048))[20] != 0:
            pass
    return answer[28:] == b"x" * 8


def network(name: str) -> dict[str, object]:
    return {
        "network": TapNetwork(mac=MAC, tap=name),
        "kernel_arguments": ("console=ttyS0", f"ip={GUEST}"),
    }


async def share(bench: NativeBench, descriptor: int, raw: socket.socket) -> dict[str, object]:
    """A tap outlives the VMM with its holder, serves another, outlives its holder with that one, and no more."""
    name, said = "bng-a", {}
    handle = await bench.start(tap=descriptor, **network(name))
    said["persists while shared"] = taps()[name]
    said["pings"] = await ping(raw)
    os.kill(handle.pid, signal.SIGKILL)
    await bench.vmm.wait_exit(handle)
    said["stays with its holder"] = name in taps()
    handle = await bench.start(tap=descriptor, **network(name))
    said["pings another"] = await ping(raw)
    os.close(descriptor)
    said["stays with the VMM"] = name in taps()
    os.kill(handle.pid, signal.SIGKILL)
    await bench.vmm.wait_exit(handle)
    said["goes with the last"] = await wait_gone(name)
    return said


async def fail(bench: NativeBench, descriptor: int) -> dict[str, object]:
    """A start that fails after the tap was attached, and one that fails before, give it back as it was."""
    name, said = "bng-b", {}
    whole = bench.kernel.read_bytes()
    broken = bytearray(whole)
    struct.pack_into("<Q", broken, 64 + 24, 1 << 40)
    bench.kernel.write_bytes(broken)
    try:
        await bench.start(tap=descriptor, **network(name))
    except Problem as problem:
        said["late"] = problem.brief
    bench.kernel.write_bytes(whole)
    said["persists after"] = taps()[name]
    wrong = {"network": TapNetwork(mac=MAC, tap="bng-none")}
    try:
        await bench.start(tap=descriptor, **wrong)
    except Problem as problem:
        said["early"] = problem.brief
    for module, step in ((configure, "_attach"), (unjailed, "share_tap")):
        said[step] = await fail_at(module, step, bench, descriptor, name)
    handle = await bench.start(tap=descriptor, **network(name))
    await bench.vmm.kill(handle)
    os.close(descriptor)
    said["gone"] = await wait_gone(name)
    return said


async def fail_at(module: ModuleType, step: str, bench: NativeBench, descriptor: int, name: str) -> bool:
    """Whether the tap persists after a start that failed while the tap was lent: before Firecracker had attached, and
    after."""
    whole = getattr(module, step)

    def fail(*_: object) -> None:
        raise unavailable("as told")

    setattr(module, step, fail)
    try:
        with contextlib.suppress(Problem):
            await bench.start(tap=descriptor, **network(name))
            raise AssertionError(f"the start went on after {step}")
    finally:
        setattr(module, step, whole)
    return taps()[name]


async def be_busy(bench: NativeBench, descriptor: int) -> dict[str, object]:
    """A copy of the descriptor that lives a little longer, as in a helper that has just sent it."""
    copy = os.dup(descriptor)
    asyncio.get_running_loop().call_later(0.1, os.close, copy)
    handle = await bench.start(tap=descriptor, **network("bng-c"))
    os.close(descriptor)
    await bench.vmm.kill(handle)
    return {"gone": await wait_gone("bng-c")}


async def be_killed(bench: NativeBench, descriptor: int) -> dict[str, object]:
    """The daemon dies by SIGKILL while its guest runs on; then the guest's VMM does."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        asyncio.set_event_loop(None)
        os.set_inheritable(writing, True)
        program = (
            "import asyncio, os, sys; from pathlib import Path; from tests.native import tap_world as w\n"
            "asyncio.run(w.start_and_wait(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))"
        )
        os.set_inheritable(descriptor, True)
        arguments = (str(bench.root), str(bench.program), str(descriptor), str(writing))
        os.execv(sys.executable, (sys.executable, "-c", program, *arguments))
    os.close(writing)
    os.close(descriptor)
    pid = int((await asyncio.to_thread(os.read, reading, 20)).decode())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said: dict[str, object] = {"stays with the VMM": "bng-d" in taps(), "persists": taps().get("bng-d")}
    os.kill(pid, signal.SIGKILL)
    said["gone"] = await wait_gone("bng-d")
    return said


async def start_and_wait(root: Path, program: str, descriptor: int, writing: int) -> None:
    """The daemon of `be_killed`."""
    bench = NativeBench(root, root / "kernel", Path(program))
    handle: Handle = await bench.start("killed", tap=descriptor, **network("bng-d"))
    os.write(writing, str(handle.pid).encode())
    await asyncio.Event().wait()


async def main(program: Path, kernel: Path, uid: int) -> None:
    descriptors = make_taps()
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw.setblocking(False)
    with tempfile.TemporaryDirectory(prefix="bn-", dir="/tmp") as directory:
        root = Path(directory)
        open_devices(root)
        bench = NativeBench(root, kernel, program)
        for path in (root, bench.kernel, bench.initramfs):
            os.chown(path, uid, uid)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        said = {
            "share": await share(bench, descriptors["bng-a"], raw),
            "fail": await fail(bench, descriptors["bng-b"]),
            "busy": await be_busy(bench, descriptors["bng-c"]),
            "killed": await be_killed(bench, descriptors["bng-d"]),
            "left": sorted(taps()),
        }
        said["running"] = await bench.end()
        print(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
