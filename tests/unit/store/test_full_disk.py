"""The store on a disk that is really full: a small tmpfs, in a mount namespace of a process of its own."""

import json
import subprocess
import sys

import pytest

NAMESPACE = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
MOUNT = 'mount -t tmpfs -o size=16m,mode=700 tmpfs "$0" && exec "$@"'

# What each script begins with; the directory is the file system.
PREPARED = """
import json, logging, os, pathlib, sys
from banger.base.problem import Problem
from banger.model.operation import Operation, OperationState
from banger.model.vm import VmRecord, VmSpec, VmState
from banger.store.sqlite import open_store

logging.disable()
place = pathlib.Path(sys.argv[1])
reserve = place / "banger.db-reserve"
store = open_store(place / "banger.db")

def save(number):
    store.operations.save(Operation(id=f"op-{number}", kind="vm.delete", subject="web", started_at="t",
        state=OperationState.RUNNING))

def fill(name):
    with open(place / name, "wb", buffering=0) as filler:
        for size in (4096, 1):
            try:
                while filler.write(bytes(size)) == size:
                    pass
            except OSError:
                pass

def count(numbers):
    done = 0
    try:
        for number in numbers:
            save(number)
            done += 1
    except Problem as problem:
        assert problem.code.value == "no_space", problem
    return done

spec = VmSpec(image="i", kernel="k", vcpus=1, memory_mib=1, disk_size_bytes=1, system_overlay_size_bytes=1)
for name in "ab":
    store.vms.insert(VmRecord(id=name * 12, name=name, spec=spec, state=VmState.CREATED, created_at="t",
        updated_at="t", last_touched_at="t"))
told = {"held": reserve.stat().st_blocks * 512}
fill("filler")
"""


@pytest.fixture
def run(tmp_path):
    tried = subprocess.run(
        [*NAMESPACE, MOUNT, str(tmp_path), "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"a full disk needs root and a mount namespace: {tried.stderr.strip()}")

    def run(script):
        command = [*NAMESPACE, MOUNT, str(tmp_path), sys.executable, "-c"]
        done = subprocess.run(
            [*command, f"{PREPARED}{script}\nprint(json.dumps(told))", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_on_a_full_disk_work_is_recorded_and_rows_go(run):
    told = run("""
told["saved"] = count(n % 50 for n in range(3000))
told["spent"] = not reserve.exists()
for vm in list(store.vms.list()):
    store.vms.delete(vm.id)
told["rows"] = len(store.vms.list())
""")
    assert told == {"held": 2**20, "saved": 3000, "spent": True, "rows": 0}


def test_what_is_full_beyond_the_reserve_is_refused_and_goes_on_when_there_is_room(run):
    told = run("""
endless = count(range(100_000))
told["refused"] = endless < 100_000
told["stored"] = len(store.operations.list(None)) == endless
(place / "filler").unlink()
save("after")
told["held again"] = reserve.stat().st_blocks * 512
""")
    assert told == {"held": 2**20, "refused": True, "stored": True, "held again": 2**20}


def test_a_reserve_that_is_spent_is_not_made_again_on_a_disk_that_is_nearly_full(run):
    told = run("""
count(n % 50 for n in range(3000))
with open(place / "filler", "r+b") as filler:
    filler.truncate(os.fstat(filler.fileno()).st_size - 2 * 2**20)
save("after")
told["spent"] = not reserve.exists()
""")
    assert told == {"held": 2**20, "spent": True}


def test_a_database_opens_on_a_full_disk(run):
    """Its log and its shared memory went when it was closed, and want room of their own."""
    told = run("""
store.close()
fill("more")
store = open_store(place / "banger.db")
told["saved"] = count(n % 50 for n in range(1000))
told["rows"] = len(store.vms.list())
""")
    assert told == {"held": 2**20, "saved": 1000, "rows": 2}
