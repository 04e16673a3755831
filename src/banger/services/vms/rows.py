"""The rows of VMs as the rest of this package sees them. The only writer of a row that exists.

Owns the rule that a change is applied to the row as it is now, not as somebody remembers it, and the VMs' locks.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from banger.base.clock import Entropy, utc_now
from banger.base.locks import RankedLock
from banger.base.problem import Code, Outcome, Problem
from banger.model.names import Named, compose_name, resolve_reference, validate_name
from banger.model.ranks import Rank
from banger.model.vm import VmRecord
from banger.services.moment import read_moment
from banger.store.contract import VmRepository

_log = logging.getLogger(__name__)


class Rows:
    def __init__(self, vms: VmRepository, entropy: Entropy) -> None:
        self._vms = vms
        self._entropy = entropy
        self._locks: dict[str, RankedLock] = {}

    def others(self, vm_id: str) -> Sequence[VmRecord]:
        """All but this one."""
        return [vm for vm in self.list() if vm.id != vm_id]

    def list(self) -> Sequence[VmRecord]:
        return self._vms.list()

    def find(self, vm_id: str) -> VmRecord | None:
        return self._vms.find(vm_id)

    def resolve(self, untrusted_reference: str) -> VmRecord:
        """By name, id or unique prefix of an id. Raises `not_found`, `ambiguous`."""
        vms = {vm.id: vm for vm in self._vms.list()}
        return vms[resolve_reference(untrusted_reference, (Named(vm.id, vm.name) for vm in vms.values()))]

    def insert(self, vm: VmRecord) -> None:
        """Reserves the name. Raises `already_exists`."""
        self._vms.insert(vm)

    def update(self, vm: VmRecord, **changes: Any) -> VmRecord:
        current = self._vms.find(vm.id)
        assert current is not None, vm.id
        changed = msgspec.structs.replace(current, updated_at=utc_now(), **changes)
        self._vms.save(changed)
        return changed

    def touch(self, vm: VmRecord, **changes: Any) -> VmRecord:
        """Activity, now."""
        now = read_moment()
        return self.update(vm, touched=now, last_touched_at=now.at, **changes)

    def note_use(self, vm_id: str) -> None:
        """Activity that is worth no failure: a disk that is full must not keep anybody from working."""
        vm = self._vms.find(vm_id)
        if vm is None:
            return
        try:
            self.touch(vm)
        except Problem as problem:
            _log.warning("a VM's use is not written down", extra={"vm": vm_id, "why": problem.brief})

    def delete(self, vm_id: str) -> None:
        """Under the VM's lock; whoever waits for that finds no row."""
        self._vms.delete(vm_id)
        self._locks.pop(vm_id, None)

    def pick_name(self, untrusted_name: str | None, *, apart_from: str = "") -> str:
        """The one that is asked for, or a generated one. Raises `already_exists`, `bad_request`."""
        taken = {vm.name for vm in self._vms.list() if vm.id != apart_from}
        if untrusted_name is not None:
            name = validate_name(untrusted_name)
            if name in taken:
                raise Problem(
                    Code.ALREADY_EXISTS,
                    f"there is a VM {name!r} already",
                    hint="choose another name; banger vm list --all",
                    outcome=Outcome.NOT_STARTED,
                )
            return name
        while (name := compose_name(self._entropy.number())) in taken:
            pass
        return name

    def lock(self, vm_id: str) -> RankedLock:
        return self._locks.setdefault(vm_id, RankedLock(Rank.VM, f"the lock of VM {vm_id}"))

    def has_work(self, vm_id: str) -> bool:
        """Whether somebody is changing it."""
        return vm_id in self._locks and self._locks[vm_id].locked()

    def has_owner(self, vm_id: str) -> bool:
        """Whether what the host has in this VM's name is there for a reason: it holds something, or somebody is at
        work on it."""
        vm = self._vms.find(vm_id)
        return self.has_work(vm_id) or (vm is not None and bool(vm.holds))

    @asynccontextmanager
    async def locked(self, untrusted_reference: str) -> AsyncIterator[VmRecord]:
        """The VM under its lock, as it is once the lock is held."""
        vm = self.resolve(untrusted_reference)
        async with self.lock(vm.id):
            yield self.resolve(vm.id)

    @asynccontextmanager
    async def locked_if_there(self, vm_id: str) -> AsyncIterator[VmRecord | None]:
        """For what nobody has asked for: None once the VM is gone."""
        if self._vms.find(vm_id) is None:
            yield None
            return
        async with self.lock(vm_id):
            yield self._vms.find(vm_id)
