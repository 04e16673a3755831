"""A lab kept on disk, and restored in half a second.

Owns directories below BUILD of three files: memory, and the layers of the two disks that belong to it. Their names
have a key of all that the memory depends on. The frequency of the time stamp counter is compared, not hashed: two
measurements of one processor differ in the last digits.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tools.lab.build import BUILD, Base, told
from tools.lab.channel import ChannelError
from tools.lab.host import Disks, Lab

from banger.vmm.qemu.tsc import TscClock

_TOLERATED_DRIFT = 1e-4  # of the lab's clock, for as long as a test lasts
_SETTLE_S = 300.0


class State(NamedTuple):
    """What a lab is restored from. `disks` are the layers below the restored lab's own."""

    base: Base
    memory: Path
    disks: Disks
    tsc_khz: int


def get_tsc_khz() -> int:
    khz = TscClock().khz()
    if khz is None:
        raise ChannelError(
            "this machine's time stamp counter cannot be measured: the lab would lose its clock"
        )
    return khz


def ensure_state(place: Path, base: Base, khz: int, make: Callable[[], Lab]) -> State:
    """What is at `place`, else what `make` leaves running: that lab is saved and ended. A state of another frequency
    of the processor's is made anew, and former states of the kind are removed."""
    found = read_state(base, place)
    if found is not None and abs(found.tsc_khz - khz) <= khz * _TOLERATED_DRIFT:
        return found
    for former in BUILD.glob(f"{place.name.split('-')[0]}-*"):
        shutil.rmtree(former)
    lab = make()
    try:
        settle(lab)
        with told("save"):
            return save_state(lab, base, place)
    finally:
        lab.close()


def open_lab(state: State) -> Lab:
    """A lab of its own, restored."""
    return Lab(state.base, state.disks, tsc_khz=state.tsc_khz, memory=state.memory)


def settle(lab: Lab) -> None:
    """Until the host is up and idle, its page cache small: what is saved is read again by each restore."""
    up = lab.run("systemctl", "is-system-running", "--wait", check=False, timeout_s=_SETTLE_S)
    if up.stdout.strip() != "running":
        failed = lab.run("systemctl", "--failed", "--no-legend", "--no-pager", check=False).stdout
        raise ChannelError(f"the lab is {up.stdout.strip()}: {failed}")
    lab.run("udevadm", "settle")
    lab.run("sync")
    lab.run("sysctl", "--quiet", "--write", "vm.drop_caches=3")


def save_state(lab: Lab, base: Base, place: Path) -> State:
    """Ends the lab and puts what it was at `place`, whole or not at all."""
    aside = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        lab.save(aside / "memory")
        for name in ("root.qcow2", "home.qcow2"):
            (lab.place / name).rename(aside / name)
        (aside / "state.json").write_text(json.dumps({"tsc_khz": lab.tsc_khz}))
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return _describe(base, place, lab.tsc_khz)


def read_state(base: Base, place: Path) -> State | None:
    try:
        khz = json.loads((place / "state.json").read_text())["tsc_khz"]
    except FileNotFoundError:
        return None
    return _describe(base, place, khz)


def _describe(base: Base, place: Path, khz: int) -> State:
    return State(base, place / "memory", Disks(place / "root.qcow2", place / "home.qcow2"), khz)


@contextmanager
def hold(lock: Path) -> Iterator[None]:
    """One maker at a time. What makers were killed over goes: it has a name that begins with a dot."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for left in BUILD.glob(".*-*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
