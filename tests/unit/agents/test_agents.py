"""Agents' programs in guests, on a guest without a machine."""

import asyncio
import hashlib
import os
import socket
from contextlib import AsyncExitStack, contextmanager

import msgspec
import pytest
from tests.unit.model.rows import make_vm

from banger.api.agents import AgentList, AgentPrepare, AgentShow, AgentWait
from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.guest.agent import Agent
from banger.guest.command import ExecRequest
from banger.guest.entries import Listener
from banger.guest.fake import FakeGuest
from banger.guest.link import Link
from banger.guest.session_records import StartSession
from banger.model.agents import PROGRAMS, AgentKeys
from banger.model.vm import VmState
from banger.pinned import catalog
from banger.pinned.catalog import NAMES, Npm, Pinned, Release
from banger.services.agents import service as agents
from banger.services.programs.placing import MARKS

PROGRAM = b"#!/bin/sh\necho helps\n"
PINNED = Pinned(
    name="opencode", version="1.0", machine="x86_64", sha256=hashlib.sha256(PROGRAM).hexdigest(),
    size_bytes=len(PROGRAM), release=Release("https://example.com/x.tgz", "opencode"), npm=Npm("x@1", "package/x"),
    guest_path="/usr/local/bin/opencode", loader="/lib/loader",
)  # fmt: skip
SESSION = "s-00000001"


class Vms:
    """One VM whose commands find what is put into it."""

    def __init__(self, guest: FakeGuest, agent: Agent) -> None:
        self.vm = make_vm("web", VmState.RUNNING)
        self.path = f"{guest.scratch}/usr/local/bin:/usr/bin:/bin"
        self.agent = agent
        self.users = 0

    def resolve(self, untrusted_reference):
        assert untrusted_reference == "web"
        return self.vm

    def get_agent(self, vm):
        return self.agent

    @contextmanager
    def using(self, vm_id):
        assert vm_id == self.vm.id
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    def arrange(self, vm, request):
        return msgspec.structs.replace(request, env=(("PATH", self.path), *request.env))


@pytest.fixture
async def guest(tmp_path):
    guest = FakeGuest(tmp_path / "guest")
    (guest.scratch / "lib").mkdir()
    (guest.scratch / "lib" / "loader").touch()
    yield guest
    guest.sessions.lose_all()


@pytest.fixture
async def vms(guest):
    async with AsyncExitStack() as stack:
        host, inside = socket.socketpair()
        serving = asyncio.create_task(guest.serve(*await asyncio.open_connection(sock=inside)))
        stack.push_async_callback(asyncio.wait, [serving])
        link = await stack.enter_async_context(await Link.open(*await asyncio.open_connection(sock=host)))
        yield Vms(guest, Agent(link))


@pytest.fixture
def make(vms, tmp_path, monkeypatch):
    """The service, with what config.toml says, and a pinned program that this host has."""
    monkeypatch.setattr(catalog, "PINNED", (PINNED,))
    monkeypatch.setattr(agents, "get_pinned", lambda name: PINNED)
    kept = tmp_path / "programs" / "opencode" / "1.0" / "opencode"
    kept.parent.mkdir(parents=True)
    (tmp_path / "programs").chmod(0o700)
    kept.write_bytes(PROGRAM)
    kept.chmod(0o755)
    return lambda **configured: agents.AgentService(vms, configured, tmp_path / "programs")


def test_the_programs_that_configuration_may_name_are_those_that_are_pinned():
    assert set(PROGRAMS) == set(NAMES)


async def test_a_program_is_put_once_and_again_when_it_is_not_whole(make, guest):
    service = make()
    request = AgentPrepare(vm="web", agent="opencode")
    place = guest.scratch / "usr/local/bin/opencode"
    assert (await service.prepare(request, Silent())).put
    assert place.read_bytes() == PROGRAM
    assert place.stat().st_mode & 0o777 == 0o755
    assert not (await service.prepare(request, Silent())).put
    place.write_bytes(PROGRAM[:-1])
    assert (await service.prepare(request, Silent())).put
    assert place.read_bytes() == PROGRAM
    (guest.scratch / MARKS[1:] / "opencode").write_text("of another version")
    assert (await service.prepare(request, Silent())).put


async def test_a_program_that_the_image_has_stays(make, guest):
    place = guest.scratch / "usr/local/bin/opencode"
    place.parent.mkdir(parents=True)
    place.write_text("#!/bin/sh\n# the image's\n")
    place.chmod(0o755)
    assert not (await make().prepare(AgentPrepare(vm="web", agent="opencode"), Silent())).put
    assert "the image's" in place.read_text()


async def test_a_guest_that_cannot_run_it_is_refused_before_anything_is_sent(make, guest):
    (guest.scratch / "lib/loader").unlink()
    with pytest.raises(Problem, match="needs glibc") as caught:
        await make().prepare(AgentPrepare(vm="web", agent="opencode"), Silent())
    assert caught.value.code is Code.UNAVAILABLE
    assert not (guest.scratch / "usr").exists()


async def test_a_vm_in_which_an_agent_is_installed_is_in_use(make, guest, vms):
    """Its installation may take longer than idle VMs are kept."""
    begun, may_end = guest.scratch / "begun", guest.scratch / "may-end"
    os.mkfifo(may_end)
    script = f"touch {begun}; read _ < {may_end}; exit 1"
    service = make(helper=AgentKeys(command=("helper-x",), install=("sh", "-ec", script)))
    preparing = asyncio.create_task(service.prepare(AgentPrepare(vm="web", agent="helper"), Silent()))
    async with asyncio.timeout(10):
        while not begun.exists():
            await asyncio.sleep(0.01)
        assert vms.users == 1
        await asyncio.to_thread(may_end.write_text, "\n")
        with pytest.raises(Problem):
            await preparing
    assert vms.users == 0


async def test_a_guest_that_does_not_tell_what_it_has_is_no_error_of_ours(make, vms, monkeypatch):
    monkeypatch.setattr(agents, "_LOOK_S", 0.05)
    monkeypatch.setattr(vms, "arrange", lambda vm, request: ExecRequest(argv=("sleep", "60")))
    service = make(helper=AgentKeys(command=("helper-x",), install=("true",)))
    with pytest.raises(Problem, match="does not tell within") as caught:
        await service.prepare(AgentPrepare(vm="web", agent="helper"), Silent())
    assert (caught.value.code, vms.users) == (Code.UNAVAILABLE, 0)


async def test_an_agent_is_installed_by_its_command_once(make, guest):
    place = guest.scratch / "usr/local/bin"
    script = f"mkdir -p {place}; echo run >> {guest.scratch}/runs; cp /bin/true {place}/helper-x"
    service = make(helper=AgentKeys(command=("helper-x",), install=("sh", "-ec", script)))
    request = AgentPrepare(vm="web", agent="helper")
    assert (await service.prepare(request, Silent())).put
    assert not (await service.prepare(request, Silent())).put
    assert (guest.scratch / "runs").read_text() == "run\n"


@pytest.mark.parametrize(
    ("install", "words", "detail"),
    [
        (("sh", "-c", "echo no such registry >&2; exit 3"), "failed with status 3", "no such registry"),
        (("true",), "there is no command 'helper-x'", None),
        ((), "has no command 'helper-x'", None),
    ],
)
async def test_an_agent_that_cannot_be_installed_says_why(make, install, words, detail):
    service = make(helper=AgentKeys(command=("helper-x",), install=install))
    with pytest.raises(Problem) as caught:
        await service.prepare(AgentPrepare(vm="web", agent="helper"), Silent())
    assert words in caught.value.brief
    assert caught.value.detail == detail
    assert caught.value.hint


async def test_all_are_listed_with_where_they_are_from_and_whether_a_vm_has_them(make):
    service = make(opencode=AgentKeys(port=5000), helper=AgentKeys(command=("helper-x",), install=("true",)))
    listed = {each.name: each for each in (await service.list_agents(AgentList(vm="web"))).agents}
    assert listed["helper"].origin == "config.toml"
    assert listed["opencode"].origin == "built in, changed in config.toml"
    assert listed["opencode"].serve[-2:] == ["--port", "5000"]
    assert listed["opencode"].fetched
    assert [each.installed for each in listed.values()] == [False, False]
    assert service.show(AgentShow(agent="opencode")).installed is None


async def test_an_unknown_agent_is_named_with_those_there_are(make):
    for call in (
        lambda s: s.show(AgentShow(agent="nope")),
        lambda s: s.subject(AgentPrepare(vm="web", agent="nope")),
    ):
        with pytest.raises(Problem, match="no agent 'nope'") as caught:
            call(make())
        assert "opencode" in caught.value.hint


async def start(vms, *argv):
    await vms.agent.sessions.start(
        StartSession(
            id=SESSION,
            request=vms.arrange(vms.vm, ExecRequest(argv=argv)),
            required=(),
            tags=(),
            scrollback_bytes=4096,
        )
    )


WAIT = AgentWait(vm="web", agent="opencode", session=SESSION, timeout_s=30)


async def test_waiting_ends_when_it_listens(make, vms, guest):
    await start(vms, "sleep", "100")
    waiting = asyncio.create_task(make().wait(WAIT, Silent()))
    await guest.listen(Listener("tcp", "0.0.0.0", 4096, 1, "opencode"))
    assert (await waiting).port == 4096


async def test_waiting_ends_with_its_session(make, vms):
    await start(vms, "false")
    with pytest.raises(Problem, match="ended without serving") as caught:
        await make().wait(WAIT, Silent())
    assert "session logs" in caught.value.hint


async def test_waiting_ends_with_its_time(make, vms):
    await start(vms, "sleep", "100")
    with pytest.raises(Problem, match="does not listen on port 4096"):
        await make().wait(msgspec.structs.replace(WAIT, timeout_s=0.05), Silent())


async def test_an_agent_without_a_port_is_not_waited_for(make):
    service = make(helper=AgentKeys(command=("x",)))
    with pytest.raises(Problem, match="has no port"):
        await service.wait(msgspec.structs.replace(WAIT, agent="helper"), Silent())
