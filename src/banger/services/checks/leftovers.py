"""Is anything of banger's on this host that no VM owns, or that one could not give back when it ended? It is listed
here; taking it away is for `reconcile`.

Root is asked for jails and root disks. A tap that stays without its process is one that a VMM was being lent when
everything was killed: all others go with their descriptor.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from banger.api.system import Finding
from banger.base.problem import Problem
from banger.model.names import ID_LENGTH
from banger.model.vm import LIVE
from banger.privileged.contract.machines import ListJails, ListSnapshots
from banger.privileged.contract.values import TAP_PATTERN, VM_PATTERN
from banger.services.checks.contract import CheckSurroundings, passed, warned

_NAME = "leftovers"
_FIX = "banger daemon reconcile"
_SHOWN = 8
_PERSISTENT = 0x0800  # IFF_PERSIST, linux/if_tun.h


async def check(around: CheckSurroundings) -> Finding:
    rows = around.list_rows()
    known = {vm.id for vm in rows}
    live = {vm.id for vm in rows if vm.state in LIVE}
    taps = {vm.runtime.tap for vm in rows if vm.runtime is not None and vm.state in LIVE}
    found = [
        *_list_directories(Path(around.paths.state) / "vms", known),
        *_list_directories(Path(around.paths.runtime) / "vms", known),
        *_list_directories(around.places.control_groups, live, "control group "),
        *_list_taps(around.places.interfaces, taps),
        *_list_processes(around, live),
        *(f"{hold.step} of {vm.name}" for vm in rows if vm.state not in LIVE for hold in vm.holds),
    ]
    unknown = ""
    if around.privileged is not None:
        try:
            jails = (await around.privileged.call(ListJails())).result.jails
            snapshots = (await around.privileged.call(ListSnapshots())).result.snapshots
        except Problem as problem:
            unknown = f"; jails and root disks are not known: {problem.brief}"
        else:
            found += [f"jail {jail.vm}" for jail in jails if jail.vm not in live]
            found += [f"root disk {snapshot.vm}" for snapshot in snapshots if snapshot.vm not in live]
    if not found:
        return passed(_NAME, f"none: what is here of banger's belongs to a VM{unknown}")
    shown = ", ".join(found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return warned(_NAME, f"no VM that runs owns {shown}{more}{unknown}", _FIX)


def _list_directories(parent: Path, owned: Collection[str], noun: str = "") -> Iterable[str]:
    for path in sorted(parent.glob("*")):
        if VM_PATTERN.fullmatch(path.name) and path.name not in owned:
            yield f"{noun}{path}"


def _list_taps(interfaces: Path, owned: Collection[str]) -> Iterable[str]:
    for path in sorted(interfaces.glob("bng-*")):
        if TAP_PATTERN.fullmatch(path.name) is None or path.name in owned:
            continue
        try:
            flags = int((path / "tun_flags").read_text("ascii"), 16)
        except (OSError, ValueError):
            continue  # it is going, or is no tap
        if flags & _PERSISTENT:
            yield f"tap {path.name}"


def _list_processes(around: CheckSurroundings, live: Collection[str]) -> Iterable[str]:
    """VMMs of the owner's have the VM's directories on their command line; those in a jail are its root's matter."""
    places = [f"{parent}/vms/".encode() for parent in (around.paths.state, around.paths.runtime)]
    for process in around.places.processes.glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        program = line.split(b"\0", 1)[0].rsplit(b"/", 1)[-1]
        if not program.startswith((b"qemu-system", b"firecracker")):
            continue
        for place in places:
            if (at := line.find(place)) >= 0:
                vm_id = line[at + len(place) :][:ID_LENGTH].decode("ascii", "replace")
                if vm_id not in live:
                    yield f"process {process.name} of VM {vm_id}"
                break
