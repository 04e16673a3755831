import pytest

from banger.base.problem import Problem, unavailable
from banger.model.machine import DiskFormat
from banger.model.storage import StorageDriver
from banger.storage.choose import Storage

RAW, QCOW2, SNAPSHOT = DiskFormat.RAW, DiskFormat.QCOW2, DiskFormat.SNAPSHOT


class Driver:
    def __init__(self, name, format_, problem=None, full=()):
        self.name = name
        self.format = format_
        self.problem = problem
        self.full = frozenset(full)
        self.tried = 0

    async def probe(self):
        self.tried += 1
        if self.problem:
            raise self.problem

    async def find_full(self):
        return self.full


def make(wanted="auto", **problems):
    drivers = {
        "dm-snapshot": SNAPSHOT,
        "qcow2": QCOW2,
        "reflink": RAW,
        "copy": RAW,
    }
    made = [
        Driver(StorageDriver(name), format_, problems.get(name.replace("dm-", "")))
        for name, format_ in drivers.items()
    ]
    return Storage(wanted, made)


NO = unavailable("it does not work", hint="mend it")


@pytest.mark.parametrize(
    ("formats", "problems", "expected"),
    [
        ({RAW, SNAPSHOT}, {}, "dm-snapshot"),
        ({RAW, SNAPSHOT}, {"snapshot": NO}, "reflink"),
        ({RAW, SNAPSHOT}, {"snapshot": NO, "reflink": NO}, "copy"),
        ({RAW, QCOW2}, {}, "qcow2"),
        ({RAW}, {"reflink": NO}, "copy"),
    ],
)
async def test_the_first_that_vmm_and_host_can_is_chosen(formats, problems, expected):
    assert (await make(**problems).choose(formats)).name.value == expected


async def test_the_one_that_is_named_is_taken_or_refused():
    assert (await make("copy").choose({RAW, QCOW2})).name is StorageDriver.COPY
    with pytest.raises(Problem) as caught:
        await make("reflink", reflink=NO).choose({RAW, QCOW2})
    assert caught.value is NO
    with pytest.raises(Problem, match="cannot read a root disk on dm-snapshot") as caught:
        await make("dm-snapshot").choose({RAW, QCOW2})
    assert caught.value.hint


async def test_where_none_works_the_last_one_says_why():
    with pytest.raises(Problem) as caught:
        await make(reflink=unavailable("first"), copy=NO).choose({RAW})
    assert caught.value is NO


async def test_a_vm_keeps_its_driver_whatever_is_chosen_now():
    storage = make("copy")
    assert storage.get(StorageDriver.SNAPSHOT).name is StorageDriver.SNAPSHOT


async def test_lost_root_disks_come_with_their_driver():
    lost = Driver(StorageDriver.SNAPSHOT, SNAPSHOT, full={"0123456789ab"})
    storage = Storage("auto", [lost, Driver(StorageDriver.COPY, RAW)])
    assert await storage.find_full() == {"0123456789ab": lost}
