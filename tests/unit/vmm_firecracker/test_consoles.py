"""Guests that have powered off are noticed by what they write, and those that write without end cost little."""

import asyncio
import os

import pytest

from banger.base.problem import Problem, unavailable
from banger.vmm.firecracker import consoles as module
from banger.vmm.firecracker.consoles import Consoles
from banger.vmm.logs import has_halted

HALT = b"[   12.345678] reboot: System halted\r\n"


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "serial.log"
    path.write_bytes(b"Linux version 6.1\n")
    return path


@pytest.fixture(autouse=True)
def short_rest(monkeypatch):
    monkeypatch.setattr(module, "_REST_S", 0.01)


def append(log, data):
    with log.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize(
    ("text", "halted"),
    [
        (HALT, True),
        (b"login:\n[    1.0] reboot: Power down\n", True),
        (b"[    1.0][    T1] reboot: Power down\n", True),
        (b"reboot: Power down\n", True),
        (b"[    1.0] reboot: Power down", False),
        (b"[    1.0] reboot: Restarting system\n", False),
        (b"# echo reboot: Power down\n", False),
        (HALT + b"x" * 600, False),
        (b"", False),
    ],
)
def test_the_last_words_of_a_guest_that_has_powered_off(tmp_path, text, halted):
    (tmp_path / "log").write_bytes(text)
    assert has_halted(tmp_path / "log") is halted


async def test_a_guest_that_powers_off_is_noticed_once(log):
    consoles, noticed = Consoles(), asyncio.Event()
    forget = consoles.watch(log, noticed.set)
    append(log, b"Stopping\n")
    await asyncio.sleep(0.03)
    assert not noticed.is_set()
    append(log, HALT)
    await asyncio.wait_for(noticed.wait(), 5)
    noticed.clear()
    append(log, HALT)
    await asyncio.sleep(0.03)
    assert not noticed.is_set()
    forget()


async def test_one_that_had_powered_off_before_is_noticed_at_once(log):
    append(log, HALT)
    noticed = []
    Consoles().watch(log, lambda: noticed.append(1))
    assert noticed == [1]


async def test_a_guest_that_writes_without_end_is_looked_at_no_more_than_its_rest_allows(log, monkeypatch):
    looks = []
    monkeypatch.setattr(module, "has_halted", lambda path: bool(looks.append(path)))
    consoles = Consoles()
    forget = consoles.watch(log, lambda: None)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while loop.time() - begun < 0.2:
        append(log, b"y\n")
        await asyncio.sleep(0)
    assert 2 <= len(looks) <= (loop.time() - begun) / module._REST_S + 2
    forget()


async def test_two_consoles_are_told_apart_and_the_last_one_closes_the_descriptor(log, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    other = tmp_path / "other.log"
    other.touch()
    consoles, noticed = Consoles(), asyncio.Event()
    forgets = [consoles.watch(log, lambda: None), consoles.watch(other, noticed.set)]
    append(log, b"x\n")
    append(other, HALT)
    await asyncio.wait_for(noticed.wait(), 5)
    for forget in (*forgets, *forgets):
        forget()
    assert len(os.listdir("/proc/self/fd")) == before
    consoles.watch(log, lambda: None)()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_console_that_was_emptied_is_watched_on(log):
    consoles, noticed = Consoles(), asyncio.Event()
    forget = consoles.watch(log, noticed.set)
    os.truncate(log, 0)
    await asyncio.sleep(0.03)
    append(log, HALT)
    await asyncio.wait_for(noticed.wait(), 5)
    forget()


async def test_a_console_that_is_missing_is_no_failure(tmp_path):
    Consoles().watch(tmp_path / "none", lambda: None)()


async def test_used_up_instances_are_a_problem_and_leave_nothing(log, monkeypatch):
    def fail():
        raise unavailable("used up")

    monkeypatch.setattr(module, "open_inotify", fail)
    with pytest.raises(Problem):
        Consoles().watch(log, lambda: None)
