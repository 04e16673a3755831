"""Commits reach the disk without anybody waiting for them."""

import os
import threading
from pathlib import Path

import pytest
from tests.unit.store.test_sqlite import make_vm

from banger.store.sqlite import open_store

DEADLINE_S = 10


class Disk:
    """Counts what is synchronized; each turn ends when it is let."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.error: OSError | None = None

    def fdatasync(self, file: int) -> None:
        self.files.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        self.begun.release()
        assert self.may_end.acquire(timeout=DEADLINE_S)
        if self.error is not None:
            raise self.error


@pytest.fixture
def disk(monkeypatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    return disk


def test_commits_during_a_turn_share_the_next_one(tmp_path, disk):
    store = open_store(tmp_path / "banger.db")
    store.vms.insert(make_vm("a", "a" * 12))
    assert disk.begun.acquire(timeout=DEADLINE_S)
    for letter in "bcd":
        store.vms.insert(make_vm(letter, letter * 12))
    assert disk.files == ["banger.db-wal"]
    disk.may_end.release(2)
    store.close()
    assert disk.files == ["banger.db-wal"] * 2


def test_a_disk_that_refuses_keeps_nobody_from_writing(tmp_path, disk, caplog):
    disk.error = OSError(5, "Input/output error")
    disk.may_end.release(2)
    store = open_store(tmp_path / "banger.db")
    store.vms.insert(make_vm("a", "a" * 12))
    store.close()
    assert "not on the disk yet" in caplog.text


def test_what_is_refused_is_not_synchronized(tmp_path, disk):
    store = open_store(tmp_path / "banger.db")
    store.close()
    assert disk.files == []
