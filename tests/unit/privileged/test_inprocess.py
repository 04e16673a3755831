"""The helper's code in a daemon's own thread: one after the other, nothing lost to a cancellation, one per host."""

import asyncio
import os
import socket
import threading

import pytest

from banger.base.problem import Code, Outcome, Problem
from banger.privileged import inprocess
from banger.privileged.contract.base import Done, Reply
from banger.privileged.contract.network import (
    CreateTaps,
    ListTaps,
    OpenDns,
    PublishPorts,
    RemoveBridge,
    Tap,
    Taps,
)
from banger.privileged.contract.values import PublishedPort, Refusal

BRIDGE = "br-banger"
REMOVE = RemoveBridge(bridge=BRIDGE)
CREATE = CreateTaps(bridge=BRIDGE, count=1)
PORT = PublishedPort(protocol="tcp", host_address="127.0.0.1", host_port=8080, guest_port=80)
PUBLISH = PublishPorts(bridge=BRIDGE, guest_address="10.209.0.2", ports=(PORT,))


class StubHandlers:
    """Waits in each request for `let_go`, which is open unless a test closes it."""

    def __init__(self, owner, build):
        self.owner, self.build = owner, build
        self.asked, self.let_go = threading.Event(), threading.Event()
        self.let_go.set()
        self.requests, self.threads, self.seen = [], set(), []
        self.released = 0
        self.refusal = None
        self.surplus = False

    def handle(self, request, descriptors):
        self.threads.add(threading.get_ident())
        self.requests.append(request)
        self.asked.set()
        assert self.let_go.wait(10)
        self.seen += [os.fstat(descriptor).st_ino for descriptor in descriptors]
        if self.refusal:
            raise self.refusal
        if isinstance(request, CreateTaps):
            made = tuple(os.memfd_create("tap") for _ in range(1 + self.surplus))
            return Reply(Taps(taps=(Tap(name="bng-00000001", up=False),)), made)
        return Reply(Done())

    def release_abandoned(self):
        self.released += 1
        return True

    def close(self):
        pass


@pytest.fixture
async def root(directory, monkeypatch):
    monkeypatch.setattr(inprocess, "Handlers", StubHandlers)
    monkeypatch.setattr(inprocess, "_is_root", lambda: True)
    made = inprocess.InProcess(directory / "run" / "lock")
    yield made
    await made.close()


@pytest.fixture
def handlers(root):
    return root._handlers


async def fail(call):
    with pytest.raises(Problem) as caught:
        await call
    return caught.value


async def test_requests_run_one_after_the_other_in_one_thread_that_is_not_the_loops(root, handlers):
    await asyncio.gather(*(root.call(REMOVE) for _ in range(20)))
    assert len(handlers.requests) == 20
    assert len(handlers.threads) == 1
    assert threading.get_ident() not in handlers.threads
    assert handlers.owner == 0


async def test_the_loop_goes_on_while_the_kernel_works(root, handlers):
    handlers.let_go.clear()
    call = asyncio.ensure_future(root.call(REMOVE))
    assert await asyncio.to_thread(handlers.asked.wait, 10)
    assert not call.done()
    handlers.let_go.set()
    await call


async def test_a_refusal_is_a_problem(root, handlers):
    handlers.refusal = Refusal("conflict", "no", "do this")
    problem = await fail(root.call(REMOVE))
    assert (problem.code, problem.brief, problem.hint) == (Code.CONFLICT, "no", "do this")
    assert problem.outcome is Outcome.NOT_STARTED


async def test_what_is_not_valid_does_not_get_there(root, handlers):
    assert (await fail(root.call(ListTaps(bridge="eth0")))).code is Code.BAD_REQUEST
    assert (await fail(root.call(PUBLISH))).code is Code.BAD_REQUEST
    assert handlers.requests == []


async def test_a_result_without_its_descriptors_is_a_bug_and_leaves_none(root, handlers, count_descriptors):
    await root.call(REMOVE)
    before = count_descriptors()
    for request in (OpenDns(bridge=BRIDGE), CREATE):
        handlers.surplus = isinstance(request, CreateTaps)
        problem = await fail(root.call(request))
        assert (problem.code, problem.outcome) == (Code.INTERNAL, Outcome.UNKNOWN)
    assert count_descriptors() == before


async def test_a_cancelled_call_leaves_no_descriptor(root, handlers, count_descriptors):
    await root.call(REMOVE)
    before = count_descriptors()
    handlers.let_go.clear()
    handlers.asked.clear()
    call = asyncio.ensure_future(root.call(CREATE))
    assert await asyncio.to_thread(handlers.asked.wait, 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    handlers.let_go.set()
    await root.call(REMOVE)
    assert count_descriptors() == before


async def test_a_call_cancelled_when_it_is_done_leaves_no_descriptor(root, handlers, count_descriptors):
    """The thread has its result and the loop knows it, but the call has not run since."""
    await root.call(REMOVE)
    before = count_descriptors()
    handlers.asked.clear()
    call = asyncio.ensure_future(root.call(CREATE))
    await asyncio.sleep(0)
    assert handlers.asked.wait(10)
    root._thread.submit(int).result(10)  # it is done with the one before
    asyncio.get_running_loop().call_soon(call.cancel)
    with pytest.raises(asyncio.CancelledError):
        await call
    await root.call(REMOVE)
    assert count_descriptors() == before


async def test_a_call_cancelled_in_the_queue_is_not_done(root, handlers, count_descriptors):
    await root.call(REMOVE)
    before = count_descriptors()
    handlers.let_go.clear()
    handlers.asked.clear()
    first = asyncio.ensure_future(root.call(REMOVE))
    assert await asyncio.to_thread(handlers.asked.wait, 10)
    with socket.socket() as held:
        second = asyncio.ensure_future(root.call(PUBLISH, (held.fileno(),)))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
    handlers.let_go.set()
    await first
    assert handlers.requests == [REMOVE, REMOVE]
    assert count_descriptors() == before


async def test_a_caller_that_was_cancelled_may_close_what_it_lent(root, handlers, count_descriptors):
    await root.call(REMOVE)
    before = count_descriptors()
    handlers.let_go.clear()
    handlers.asked.clear()
    with socket.socket() as held:
        lent = os.fstat(held.fileno()).st_ino
        call = asyncio.ensure_future(root.call(PUBLISH, (held.fileno(),)))
        assert await asyncio.to_thread(handlers.asked.wait, 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    handlers.let_go.set()
    await root.call(REMOVE)
    assert handlers.seen == [lent]
    assert count_descriptors() == before


async def test_only_root_has_this_way(directory, monkeypatch):
    monkeypatch.setattr(inprocess, "Handlers", StubHandlers)
    monkeypatch.setattr(inprocess, "_is_root", lambda: False)
    root = inprocess.InProcess(directory / "lock")
    problem = await fail(root.call(REMOVE))
    assert (problem.code, problem.hint) == (Code.UNAUTHORIZED, "sudo banger system install")
    await root.close()
    assert not (directory / "lock").exists()


async def test_a_second_daemon_is_told_who_has_the_bridge(root, handlers, directory):
    await root.call(REMOVE)
    second = inprocess.InProcess(directory / "run" / "lock")
    problem = await fail(second.call(REMOVE))
    assert problem.code is Code.CONFLICT
    assert f"pid {os.getpid()}" in problem.brief
    await root.close()
    assert handlers.released == 1
    await second.call(REMOVE)
    await second.close()


async def test_a_daemon_that_asked_for_nothing_takes_nothing_away(root, handlers):
    await root.close()
    assert handlers.released == 0


async def test_the_lock_is_made_in_a_directory_that_others_can_look_into_only(root, directory):
    umask = os.umask(0o077)
    try:
        await root.call(REMOVE)
    finally:
        os.umask(umask)
    assert (directory / "run").stat().st_mode & 0o777 == 0o755
    assert (directory / "run" / "lock").stat().st_mode & 0o077 == 0  # a lock that can be read can be taken


@pytest.mark.parametrize(
    "trap", ["lock is a link", "directory is a link", "directory is open", "directory is a file"]
)
async def test_a_place_that_somebody_prepared_is_not_used(root, handlers, directory, trap):
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    run = directory / "run"
    if trap == "directory is a link":
        run.symlink_to(elsewhere)
    elif trap == "directory is a file":
        run.touch()
    else:
        run.mkdir()
        run.chmod(0o777 if trap == "directory is open" else 0o755)
        if trap == "lock is a link":
            (run / "lock").symlink_to(elsewhere / "precious")
    problem = await fail(root.call(REMOVE))
    assert problem.code is Code.UNAUTHORIZED
    assert "cannot be trusted" in problem.brief
    assert handlers.requests == []
    assert list(elsewhere.iterdir()) == []
