"""Programs that are not the Firecracker they are taken for: one line with a hint, and nothing left."""

import asyncio
import os

import pytest

from banger.base.problem import Code, Outcome, Problem

VERSION = '[ "$1" = --version ] && echo Firecracker v1.12.1 && exit\n'


def impostor(bench, text: str):
    program = bench.root / "firecracker"
    program.write_text(f"#!/bin/sh\n{text}")
    program.chmod(0o755)
    return bench.new_daemon(program)


async def start(bench, vmm):
    with pytest.raises(Problem) as caught:
        await vmm.start(bench.machine(), bench.place())
    assert bench.files() == []
    await vmm.close()
    return caught.value


@pytest.fixture
def trusting(monkeypatch):
    """The trial guest is not what is tested here."""

    async def fine(program):
        return None

    monkeypatch.setattr("banger.vmm.firecracker.probe._try_guest", fine)


async def test_one_that_ends_at_once_is_quoted(bench, trusting):
    problem = await start(bench, impostor(bench, VERSION + "echo 'no luck today' >&2; exit 3\n"))
    assert problem.brief == "Firecracker ended before the guest began"
    assert "no luck today" in (problem.detail or "")


async def test_one_that_never_makes_its_socket_is_killed(bench, trusting, monkeypatch):
    monkeypatch.setattr("banger.vmm.firecracker.launch._SOCKET_S", 1.0)
    vmm = impostor(bench, VERSION + "echo $$ > pid; exec sleep 100\n")
    with pytest.raises(Problem, match="did not answer"):
        await vmm.start(bench.machine(), bench.place())
    pid = int((bench.root / "a" / "run" / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_one_that_makes_no_guest_of_kvm_is_no_vmm_here(bench):
    problem = await start(bench, impostor(bench, VERSION + "exit 0\n"))
    assert problem.code is Code.UNAVAILABLE
    assert "a guest on KVM ended before its first word" in problem.brief
    assert problem.outcome is Outcome.NOT_STARTED


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("Firecracker v1.9.0", "is Firecracker 1.9.0: 1.10 or newer, and before 2.0, is wanted"),
        ("Firecracker v2.0.0", "is Firecracker 2.0.0"),
        ("hello", "names no version"),
    ],
)
async def test_another_version_is_refused(bench, says, told):
    problem = await start(bench, impostor(bench, f"echo {says}\n"))
    assert problem.code is Code.UNAVAILABLE
    assert told in problem.brief
    assert problem.hint == "banger setup firecracker"


async def test_one_that_dies_while_it_is_configured_is_explained(bench, monkeypatch):
    handle_of = {}

    async def die(guest, *_):
        handle_of["pid"] = guest.handle.pid
        os.kill(guest.handle.pid, 9)
        await asyncio.wait((guest.gone,))
        await guest.api.get("/")

    monkeypatch.setattr("banger.vmm.firecracker.launch.configure", die)
    problem = await start(bench, bench.vmm)
    assert problem.brief == "Firecracker ended before the guest began"
    with pytest.raises(ProcessLookupError):
        os.kill(handle_of["pid"], 0)
