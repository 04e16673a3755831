"""What a daemon finds on the host that no VM has."""

from banger.base.problem import conflict, unavailable
from banger.privileged.contract.base import Done, Reply
from banger.privileged.contract.machines import Jail, Jails, Snapshot, Snapshots
from banger.services.vms.leftovers import remove_leftovers

LIVE, FIRST, SECOND = "0123456789ab", "111111111111", "222222222222"


def is_live(vm_id):
    return vm_id == LIVE


class Root:
    def __init__(self, refusals):
        self.refusals = refusals
        self.removed = []

    async def call(self, request):
        if problem := self.refusals.get((request.method, getattr(request, "vm", ""))):
            raise problem
        if request.method == "list_jails":
            return Reply(
                Jails(jails=tuple(Jail(vm=vm, pid=0, start_time=0, uid=1) for vm in (LIVE, FIRST, SECOND)))
            )
        if request.method == "list_snapshots":
            return Reply(Snapshots(snapshots=tuple(map(snapshot, (LIVE, FIRST, SECOND)))))
        self.removed.append((request.method, request.vm))
        return Reply(Done())


def snapshot(vm):
    return Snapshot(vm=vm, state="active", used_bytes=0, size_bytes=0, in_use=False)


async def test_jails_go_before_root_disks_and_what_a_live_vm_has_stays():
    root = Root({})
    await remove_leftovers(root, is_live)
    assert root.removed == [
        ("remove_jail", FIRST),
        ("remove_jail", SECOND),
        ("detach_snapshot", FIRST),
        ("detach_snapshot", SECOND),
    ]


async def test_one_that_cannot_be_removed_keeps_nobody_from_the_others():
    stuck = conflict("somebody has it open")
    root = Root({("remove_jail", FIRST): stuck, ("detach_snapshot", FIRST): stuck})
    await remove_leftovers(root, is_live)
    assert root.removed == [("remove_jail", SECOND), ("detach_snapshot", SECOND)]


async def test_a_root_that_cannot_be_asked_is_no_reason_to_fail():
    root = Root({("list_jails", ""): unavailable("gone")})
    await remove_leftovers(root, is_live)
    await remove_leftovers(None, is_live)
    assert root.removed == []
