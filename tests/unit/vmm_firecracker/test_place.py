"""What is made in a VM's runtime directory, and that it goes without anything else."""

import os
import stat

import pytest

from banger.vmm.contract import Place
from banger.vmm.firecracker.arrival import watch_arrivals
from banger.vmm.firecracker.place import clear_place, prepare_place


@pytest.fixture
def place(tmp_path):
    (tmp_path / "r").mkdir()
    return Place(str(tmp_path / "r"), str(tmp_path))


def test_links_and_a_pipe_replace_what_was_there(place, tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"kept")
    for _ in range(2):
        prepare_place(place, {"disk0": str(disk)})
        (tmp_path / "r" / "s" / "agent.sock").touch()
    assert os.readlink(tmp_path / "r" / "disk0") == str(disk)
    assert os.readlink(tmp_path / "r" / "s" / "vmm.log") == str(tmp_path / "vmm.log")
    assert stat.S_ISFIFO((tmp_path / "r" / "s" / "metrics.fifo").stat().st_mode)
    clear_place(place.runtime)
    assert os.listdir(tmp_path / "r") == []
    assert disk.read_bytes() == b"kept"


def test_what_is_not_ours_stays(place, tmp_path):
    for name in ("disk", "disk0a", "api.socket", "notes"):
        (tmp_path / "r" / name).touch()
    for name in ("kernel", "s"):
        (tmp_path / "r" / name).mkdir()
    (tmp_path / "r" / "s" / "notes").touch()
    (tmp_path / "r" / "s" / "api.sock").touch()
    clear_place(place.runtime)
    assert sorted(os.listdir(tmp_path / "r")) == ["api.socket", "disk", "disk0a", "kernel", "notes", "s"]
    assert os.listdir(tmp_path / "r" / "s") == ["notes"]


def test_clearing_a_place_that_is_not_there_is_no_failure(tmp_path):
    clear_place(str(tmp_path / "none"))


async def test_an_arrival_is_noticed_and_others_are_not_taken_for_it(tmp_path):
    import asyncio

    with watch_arrivals(tmp_path) as arrivals:
        waiting = asyncio.ensure_future(arrivals.wait_for("wanted"))
        for name in ("other", "wanted.tmp"):
            (tmp_path / name).touch()
            await asyncio.sleep(0.01)
        assert not waiting.done()
        (tmp_path / "wanted").touch()
        await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(arrivals.wait_for("other"), 5)
        cancelled = asyncio.ensure_future(arrivals.wait_for("never"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait((cancelled,))
