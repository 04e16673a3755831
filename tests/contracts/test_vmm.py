"""What every VMM back end does, in the same words for each: `vmm/contract.py` as tests."""

import asyncio
import contextlib
import os

import msgspec
import pytest

from banger.base.problem import Code, Outcome, Problem
from banger.model.machine import Disk
from banger.vmm.contract import Capability, Liveness, Place


async def test_a_started_guest_answers_on_the_agent_stream(bench):
    handle = await bench.start()
    assert await bench.say(handle, b"hello\n") == b"hello\n"
    assert handle.pid in bench.alive()
    await bench.vmm.kill(handle)


async def test_the_agent_stream_can_be_left_and_taken_again(bench):
    handle = await bench.start()
    for word in (b"one\n", b"two\n"):
        assert await bench.say(handle, word) == word
    await bench.vmm.kill(handle)


async def test_a_bulk_transfer_arrives_whole(bench):
    handle = await bench.start()
    reader, writer = await bench.vmm.connect_agent(handle)
    lines = b"".join(b"%06d" % number + b"x" * 90 + b"\n" for number in range(5000))

    async def write():
        writer.write(lines)
        await writer.drain()

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        assert await reader.readexactly(len(lines)) == lines
    writer.close()
    await bench.vmm.kill(handle)


async def test_stop_waits_for_a_guest_that_powers_off_and_calls_it_clean(bench):
    handle = await bench.start()
    _, writer = await bench.vmm.connect_agent(handle)
    writer.write(b"OFF\n")
    ended = await bench.vmm.stop(handle, deadline_s=10)
    assert (ended.clean, ended.reason) == (True, "power-off")
    assert await bench.vmm.stop(handle, deadline_s=10) == ended
    writer.close()


async def test_a_reboot_ends_the_vmm_cleanly(bench):
    handle = await bench.start()
    _, writer = await bench.vmm.connect_agent(handle)
    writer.write(b"REBOOT\n")
    ended = await bench.vmm.wait_exit(handle)
    assert (ended.clean, ended.reason) == (True, "reboot")
    writer.close()


async def test_stop_kills_a_guest_that_does_not_power_off(bench):
    handle = await bench.start()
    ended = await bench.vmm.stop(handle, deadline_s=0.05)
    assert (ended.clean, ended.reason) == (False, "killed")


async def test_kill_is_idempotent(bench):
    handle = await bench.start()
    assert await bench.vmm.kill(handle) == await bench.vmm.kill(handle)
    assert handle.pid not in bench.alive()


async def test_every_waiter_learns_of_a_kill_from_outside(bench):
    handle = await bench.start()
    async with asyncio.TaskGroup() as group:
        waiters = [group.create_task(bench.vmm.wait_exit(handle)) for _ in range(3)]
        await asyncio.sleep(0)
        bench.kill_from_outside(handle)
    assert {waiter.result().clean for waiter in waiters} == {False}
    assert bench.ended_from_outside in waiters[0].result().reason


async def test_a_cancelled_waiter_does_not_disturb_the_others(bench):
    handle = await bench.start()
    impatient = asyncio.ensure_future(bench.vmm.wait_exit(handle))
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert await bench.say(handle, b"still here\n") == b"still here\n"
    assert (await bench.vmm.kill(handle)).reason == "killed"


async def test_a_new_daemon_adopts_a_guest_that_lives_and_ends_it_cleanly(bench):
    handle = msgspec.json.decode(msgspec.json.encode(await bench.start()), type=type(await _handle(bench)))
    await bench.vmm.close()
    daemon = bench.new_daemon()
    assert await daemon.adopt(handle) is Liveness.RUNNING
    assert await daemon.adopt(handle) is Liveness.RUNNING
    _, writer = await daemon.connect_agent(handle)
    writer.write(b"OFF\n")
    ended = await daemon.stop(handle, deadline_s=10)
    assert (ended.clean, ended.reason) == (True, "power-off")
    writer.close()
    await daemon.close()


async def test_a_guest_that_nobody_wrote_down_is_evicted_by_its_place(bench):
    handle = await bench.start()
    await bench.vmm.close()
    daemon = bench.new_daemon()
    await daemon.evict(bench.place())
    assert await daemon.adopt(handle) is Liveness.GONE
    await daemon.evict(bench.place())
    await daemon.close()


async def _handle(bench):
    """A handle that names nothing any more."""
    handle = await bench.start("gone")
    await bench.vmm.kill(handle)
    return handle


async def test_a_paused_guest_is_adopted_as_paused(bench):
    handle = await bench.start()
    await bench.vmm.pause(handle)
    await bench.vmm.close()
    daemon = bench.new_daemon()
    assert await daemon.adopt(handle) is Liveness.PAUSED
    await daemon.resume(handle)
    assert await daemon.adopt(handle) is Liveness.RUNNING
    await daemon.kill(handle)
    await daemon.close()


async def test_adopting_what_is_gone_says_so_and_removes_its_sockets(bench):
    handle = await _handle(bench)
    left = bench.litter(handle)
    daemon = bench.new_daemon()
    assert await daemon.adopt(handle) is Liveness.GONE
    assert not left.exists()
    assert not (await daemon.wait_exit(handle)).clean
    await daemon.kill(handle)
    with pytest.raises(Problem) as caught:
        await daemon.pause(handle)
    assert caught.value.code is Code.NOT_RUNNING
    await daemon.close()


async def test_a_reused_pid_is_neither_adopted_nor_killed(bench):
    handle = await bench.start()
    other = msgspec.structs.replace(handle, start_time=handle.start_time + 1, agent_socket="/nonexistent/a")
    other = msgspec.structs.replace(other, control_socket="/nonexistent/c")
    daemon = bench.new_daemon()
    assert await daemon.adopt(other) is Liveness.GONE
    await daemon.kill(other)
    assert await bench.say(handle, b"untouched\n") == b"untouched\n"
    await daemon.close()
    await bench.vmm.kill(handle)


async def test_a_paused_guest_is_silent_until_it_is_resumed(bench):
    if Capability.PAUSE not in await bench.vmm.capabilities():
        pytest.skip("no pause")
    handle = await bench.start()
    await bench.vmm.pause(handle)
    await bench.vmm.pause(handle)
    asking = asyncio.ensure_future(bench.say(handle, b"anyone?\n"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asking), 0.2)
    await bench.vmm.resume(handle)
    assert await asking == b"anyone?\n"
    await bench.vmm.kill(handle)


async def test_two_guests_run_side_by_side(bench):
    first, second = await asyncio.gather(bench.start("a"), bench.start("b"))
    assert first.pid != second.pid
    assert await bench.say(first, b"1\n") == b"1\n"
    assert await bench.say(second, b"2\n") == b"2\n"
    await bench.vmm.kill(first)
    assert await bench.say(second, b"2\n") == b"2\n"
    await bench.vmm.kill(second)


async def test_a_place_can_be_used_again(bench):
    for _ in range(3):
        handle = await bench.start()
        assert await bench.say(handle, b"again\n") == b"again\n"
        await bench.vmm.kill(handle)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 13, 21])
async def test_a_start_cancelled_at_any_moment_leaves_nothing(bench, steps):
    await bench.vmm.capabilities()
    starting = asyncio.ensure_future(bench.start())
    for _ in range(steps):
        await asyncio.sleep(0 if steps < 8 else 0.002)
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await bench.vmm.kill(await starting)
    assert not bench.alive()


@pytest.mark.parametrize("damage", ["text", "cut", "empty", "missing"])
async def test_a_damaged_kernel_is_refused_and_nothing_is_left(bench, damage):
    whole = bench.kernel.read_bytes()
    if damage == "missing":
        bench.kernel.unlink()
    else:
        bench.kernel.write_bytes({"text": b"not a kernel\n" * 400, "cut": whole[:100], "empty": b""}[damage])
    with pytest.raises(Problem) as caught:
        await bench.start()
    assert str(bench.kernel) in caught.value.brief
    assert caught.value.outcome is Outcome.NOT_STARTED
    assert not bench.alive()


async def test_a_missing_disk_and_initramfs_are_refused_by_name(bench):
    with pytest.raises(Problem, match="disk /nonexistent/disk is missing"):
        await bench.start(disks=(Disk(serial="root", path="/nonexistent/disk"),))
    bench.initramfs.write_bytes(b"garbage")
    with pytest.raises(Problem, match="not a cpio archive"):
        await bench.start()
    assert not bench.alive()


@pytest.mark.parametrize(
    "changes",
    [
        {"vcpus": 0},
        {"memory_mib": 1},
        {"kernel_arguments": ("a b",)},
        {"kernel_arguments": ("x" * 3000,)},
        {"agent_channel": "a,b"},
        {"disks": (Disk(serial="x" * 21, path="/dev/null"),)},
    ],
)
async def test_an_impossible_machine_is_a_bad_request(bench, changes):
    with pytest.raises(Problem) as caught:
        await bench.start(**changes)
    assert caught.value.code is Code.BAD_REQUEST
    assert not bench.alive()


async def test_a_missing_vmm_is_unavailable_with_the_command_that_brings_it(bench):
    vmm = bench.without_vmm()
    for attempt in (vmm.capabilities(), vmm.start(bench.machine(), bench.place())):
        with pytest.raises(Problem) as caught:
            await attempt
        assert caught.value.code is Code.UNAVAILABLE
        assert bench.install_hint in (caught.value.hint or "")


async def test_the_streams_of_an_ended_guest_end(bench):
    handle = await bench.start()
    reader, writer = await bench.vmm.connect_agent(handle)
    writer.write(b"OFF\n")
    assert await reader.read() == b""
    writer.close()
    await bench.vmm.wait_exit(handle)
    with pytest.raises(Problem) as caught:
        await bench.vmm.connect_agent(handle)
    assert caught.value.code is Code.NOT_RUNNING


async def test_descriptors_do_not_pile_up(bench):
    handle = await bench.start()
    await bench.vmm.kill(handle)
    await asyncio.sleep(0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await bench.vmm.kill(await bench.start())
    for _ in range(50):  # what is closed off everybody's path has a moment
        if len(os.listdir("/proc/self/fd")) <= before:
            break
        await asyncio.sleep(0.02)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_place_is_plain_data():
    assert Place("/r", "/s") == ("/r", "/s")
