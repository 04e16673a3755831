"""Jails of VMMs: made, entered, emptied and removed.

Owns what lies below the directory of jails, and the VMMs that it has launched as long as it lives. All else is found
in the kernel and in that directory, so that a helper that was killed leaves nothing that its successor does not find.
Refuses a VM that has a VMM already. One request at a time.
"""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple, Protocol

from banger.privileged.contract.machines import READ_ONLY, SNAPSHOT, Jail, Launched, LaunchVmm
from banger.privileged.contract.values import Refusal
from banger.privileged.helper.cgroups import Cgroups
from banger.privileged.helper.jail_launch import LaunchedVmm, plan_argv
from banger.privileged.helper.jail_place import JailPlace, uid_of, verify_mount
from banger.privileged.helper.jail_stage import (
    INITRAMFS,
    KERNEL,
    disk_name,
    has_disks,
    stage_disk,
    stage_file,
    stage_sockets,
    unstage,
    verify_launch,
)
from banger.privileged.helper.jail_tap import take_tap
from banger.privileged.helper.loop import attach_loop
from banger.privileged.helper.processes import find_identity
from banger.privileged.helper.refusals import (
    jail_crowded,
    jail_inhabited,
    jail_missing,
    jail_orphaned,
    jail_stubborn,
    jail_uid_taken,
    snapshot_missing,
)
from banger.privileged.helper.snapshots import find_snapshot_device
from banger.privileged.helper.vmm_programs import VmmPrograms, find_vmm_programs

_ENDING_S = 5.0
_REMOVAL_S = 10.0


class Tenancy(Protocol):
    """Who lives in which VM's jail: `Cgroups`, or `Residents` where there are none."""

    def render_arguments(self, memory_mib: int, /) -> tuple[str, ...]: ...
    def prepare(self, vm: str) -> None: ...
    def add(self, vm: str, pid: int) -> None: ...
    def find_processes(self, vm: str) -> list[int]: ...
    def list_vms(self) -> set[str]: ...
    def kill(self, vm: str, deadline: float) -> bool: ...
    def remove(self, vm: str) -> None: ...


class Tenant(NamedTuple):
    pid: int
    start_time: int
    uid: int


class JailKeeper:
    def __init__(self, place: JailPlace | None = None, tenancy: Tenancy | None = None) -> None:
        self._place = place or JailPlace()
        self._tenancy = tenancy or Cgroups()
        self._launched: dict[str, LaunchedVmm] = {}

    def launch(
        self, request: LaunchVmm, descriptors: Sequence[int], *, owner: int
    ) -> tuple[Launched, tuple[int, ...]]:
        self.reap()
        verify_launch(request, descriptors, owner)
        programs = find_vmm_programs()
        verify_mount(self._place.base)
        self._refuse_taken(request.vm)
        snapshot = _get_snapshot(request)
        self.remove(request.vm)  # what a VMM that has died has left: jailer fails over it
        try:
            return self._launch(request, descriptors, owner, programs, snapshot)
        except BaseException:
            with suppress(Refusal, OSError):
                self.remove(request.vm)
            raise

    def settle(self, vm: str, tap: str) -> tuple[int, ...]:
        self.reap()
        tenant = self._get_vmm(vm)
        launched = self._launched.get(vm)
        with self._place.open_root(vm) as root:
            # Another helper held them and is gone, and they with it: such a name may lead to somebody else's disk.
            if launched is None and has_disks(root):
                raise jail_orphaned(vm)
            held = (self._take_tap(vm, tenant, tap),) if tap else ()
            try:
                unstage(root)
                if launched is not None:
                    launched.release_devices()
            except BaseException:
                for descriptor in held:
                    os.close(descriptor)
                raise
        return held

    def enter(self, vm: str) -> tuple[Jail, tuple[int, ...]]:
        self.reap()
        try:
            sockets = self._place.open_sockets(vm)
        except FileNotFoundError:
            raise jail_missing(vm) from None
        try:
            return self._describe(vm), (sockets,)
        except BaseException:
            os.close(sockets)
            raise

    def remove(self, vm: str) -> None:
        """Idempotent."""
        self.reap()
        self._end(vm)
        if not self._place.remove(vm, time.monotonic() + _REMOVAL_S):
            raise jail_crowded(vm)
        self._tenancy.remove(vm)

    def list(self) -> tuple[Jail, ...]:
        self.reap()
        return tuple(self._describe(vm) for vm in sorted(self._list_vms()))

    def remove_abandoned(self) -> None:
        """Those in which nobody lives, for the time when no daemon is there."""
        failures = []
        for jail in self.list():
            if jail.pid == 0:
                try:
                    self.remove(jail.vm)
                except (Refusal, OSError) as error:  # the others are no less abandoned
                    failures.append(error)
        if failures:
            raise failures[0]

    def end_unsettled(self) -> None:
        """VMMs that another helper has launched and not settled: what kept the numbers of their disks is gone with it,
        and such a name may lead to any device that comes later."""
        failures = []
        for vm in sorted(self._place.list_vms() - set(self._launched)):
            try:
                with self._place.open_root(vm) as root:
                    unsettled = has_disks(root)
                if unsettled:
                    self._end(vm)
            except FileNotFoundError:  # half removed, and so nobody's any more
                continue
            except (Refusal, OSError) as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def reap(self) -> None:
        """The dead are forgotten; what their devices were held for is over."""
        for vm in [vm for vm, launched in self._launched.items() if launched.has_ended()]:
            self._launched.pop(vm).close()

    def close(self) -> None:
        """Gives back what is held for VMMs that were launched; they live on."""
        for launched in self._launched.values():
            launched.has_ended()
            launched.close()
        self._launched.clear()

    def _launch(
        self,
        request: LaunchVmm,
        descriptors: Sequence[int],
        owner: int,
        programs: VmmPrograms,
        snapshot: tuple[int, int] | None,
    ) -> tuple[Launched, tuple[int, ...]]:
        vm = request.vm
        kernel, initramfs, console, *disks = descriptors
        self._tenancy.prepare(vm)
        with ExitStack() as kept:
            with self._place.create(vm) as root:
                stage_file(root, KERNEL, kernel)
                stage_file(root, INITRAMFS, initramfs)
                devices = _stage_disks(root, request, disks, snapshot, owner, kept)
                sockets = stage_sockets(root)
            kept.callback(os.close, sockets)
            limits = self._tenancy.render_arguments(request.memory_mib)
            launched = LaunchedVmm(plan_argv(programs, vm, self._place.base, limits), console, devices)
            kept.pop_all()
        self._launched[vm] = launched
        try:
            self._tenancy.add(vm, launched.pid)
        except BaseException:
            os.close(sockets)
            raise
        told = Launched(pid=launched.pid, start_time=launched.start_time, uid=uid_of(vm))
        return told, (sockets,)

    def _refuse_taken(self, vm: str) -> None:
        for other in self._list_vms():
            if other != vm and uid_of(other) == uid_of(vm):
                raise jail_uid_taken(vm, other)
        if (tenant := self._find_tenant(vm)) is not None:
            raise jail_inhabited(vm, tenant.pid)

    def _take_tap(self, vm: str, tenant: Tenant, tap: str) -> int:
        if (launched := self._launched.get(vm)) is not None and launched.pid == tenant.pid:
            return take_tap(tenant.pid, launched.pidfd, tap)
        pidfd = os.pidfd_open(tenant.pid)
        try:
            if self._find_tenant(vm) != tenant:  # read again: so the descriptor is its
                raise jail_missing(vm)
            return take_tap(tenant.pid, pidfd, tap)
        finally:
            os.close(pidfd)

    def _get_vmm(self, vm: str) -> Tenant:
        """The VMM, which has become its VM's uid. Raises Refusal `not_found`."""
        tenant = self._find_tenant(vm)
        if tenant is None or tenant.uid != uid_of(vm):
            raise jail_missing(vm)
        return tenant

    def _find_tenant(self, vm: str) -> Tenant | None:
        """Where both know, the child that was launched is the first to ask: it is not the VM's before it is jailed."""
        launched = self._launched.get(vm)
        for pid in (launched.pid,) if launched is not None else self._tenancy.find_processes(vm):
            if (identity := find_identity(pid)) is not None and identity.alive:
                return Tenant(pid, identity.start_time, identity.uid)
        return None

    def _describe(self, vm: str) -> Jail:
        tenant = self._find_tenant(vm)
        pid, start_time = (tenant.pid, tenant.start_time) if tenant is not None else (0, 0)
        return Jail(vm=vm, pid=pid, start_time=start_time, uid=uid_of(vm))

    def _list_vms(self) -> set[str]:
        return self._place.list_vms() | self._tenancy.list_vms()

    def _end(self, vm: str) -> None:
        deadline = time.monotonic() + _ENDING_S
        launched = self._launched.get(vm)
        if launched is not None and not launched.end(deadline):
            raise jail_stubborn(vm, str(launched.pid))
        if not self._tenancy.kill(vm, deadline):
            raise jail_stubborn(vm, ",".join(map(str, self._tenancy.find_processes(vm))))
        if launched is not None:
            del self._launched[vm]
            launched.close()


def _stage_disks(
    root: int,
    request: LaunchVmm,
    files: Sequence[int],
    snapshot: tuple[int, int] | None,
    owner: int,
    kept: ExitStack,
) -> tuple[int, ...]:
    """The devices' descriptors, which `kept` closes."""
    devices: list[int] = []
    left = iter(files)
    for index, kind in enumerate(request.disks):
        with ExitStack() as lent:
            if kind == SNAPSHOT:
                assert snapshot is not None
                major, minor = snapshot
            else:
                loop = attach_loop(next(left), read_only=kind == READ_ONLY, owner=owner)
                lent.callback(os.close, loop.descriptor)
                major, minor = loop.major, loop.minor
            device = stage_disk(root, disk_name(index), major, minor, uid_of(request.vm))
            kept.callback(os.close, device)
            devices.append(device)
    return tuple(devices)


def _get_snapshot(request: LaunchVmm) -> tuple[int, int] | None:
    if SNAPSHOT not in request.disks:
        return None
    if (device := find_snapshot_device(request.vm)) is None:
        raise snapshot_missing(request.vm)
    return device
