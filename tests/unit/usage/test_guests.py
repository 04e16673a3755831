"""What guests tell: ports, health, who is connected."""

import asyncio
import time

import pytest
from tests.unit.usage.places import make_vm

from banger.api.usage import VmHealth, VmPorts
from banger.base.problem import Code, Problem
from banger.guest.entries import FileSystem, Listener, Usage
from banger.guest.fake_methods import METHODS
from banger.guest.methods import Method
from banger.model.machine import PortForward
from banger.model.vm import NetworkMode, VmState
from banger.services.usage import health as health_module
from banger.services.usage import service as service_module

GIB = 1 << 30
SSH = Listener("tcp", "0.0.0.0", 22, 1, "sshd")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(health_module, "DEADLINE_S", 1.0)
    monkeypatch.setattr(service_module, "_ANSWER_S", 1.0)


async def test_a_published_web_server_is_found_with_its_url(usage, vms):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    publish = (PortForward(host_address="127.0.0.1", host_port=port, guest_port=8000),)
    await vms.add(make_vm(publish=publish))
    vms.guests["web"].listeners = (
        Listener("tcp", "0.0.0.0", 8000, 77, "python3"),
        Listener("tcp", "127.0.0.1", 5432, 0, ""),
        SSH,
    )
    told = await usage.ports(VmPorts(vm="web"))
    server.close()
    ssh, database, web = told.ports
    assert told.vm == "web"
    assert (web.port, web.process, web.pid, web.service) == (8000, "python3", 77, "http")
    assert (web.reach, web.urls) == ([f"127.0.0.1:{port}"], [f"http://127.0.0.1:{port}/"])
    assert (ssh.service, ssh.reach, ssh.urls) == ("ssh", ["127.0.0.1:40022"], [])
    assert (database.pid, database.reach) == (None, [])
    assert database.unreachable == "it listens on the guest's loopback only"


async def test_sshd_is_not_probed(usage, vms, monkeypatch):
    probed = []

    async def note(places):
        probed.extend(places)
        return {}

    monkeypatch.setattr("banger.services.usage.ports.probe_all", note)
    await vms.add(make_vm(mode=NetworkMode.BRIDGE))
    vms.guests["web"].listeners = (SSH, Listener("udp", "0.0.0.0", 53, 1, "dns"), SSH._replace(port=80))
    assert [port.service for port in (await usage.ports(VmPorts(vm="web"))).ports] == ["ssh", "", ""]
    assert [place.port for place in probed] == [80]


async def test_a_process_may_be_called_anything_and_drives_no_terminal(usage, vms):
    await vms.add(make_vm())
    vms.guests["web"].listeners = (Listener("tcp", "0.0.0.0", 80, 1, "\x1b[2Jx\n"),)
    (port,) = (await usage.ports(VmPorts(vm="web"))).ports
    assert port.process == "[2Jx"


async def test_ports_of_a_silent_guest_are_an_error_in_time(usage, vms):
    await vms.add(make_vm())
    vms.guests["web"].is_silent = True
    with pytest.raises(Problem, match="does not answer") as caught:
        await usage.ports(VmPorts(vm="web"))
    assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("ask", ["ports", "health"])
async def test_a_vm_that_does_not_run_is_refused(usage, vms, ask):
    await vms.add(make_vm(state=VmState.STOPPED))
    request = {"ports": VmPorts, "health": VmHealth}[ask](vm="web")
    with pytest.raises(Problem) as caught:
        await getattr(usage, ask)(request)
    assert caught.value.code is Code.NOT_RUNNING


async def test_a_healthy_guest(usage, vms):
    await vms.add(make_vm())
    vms.guests["web"].listeners = (SSH,)
    health = await usage.health(VmHealth(vm="web"))
    assert (health.vm, health.healthy, health.problems, health.warnings) == ("web", True, [], [])
    assert health.agent_ms is not None
    assert (health.uptime_s, health.load1, health.init_mode, health.ssh) == (1.0, 0.05, "resident", True)
    assert (health.memory_total_bytes, health.memory_available_bytes) == (256 << 20, 200 << 20)
    (root,) = health.file_systems
    assert (root.path, root.size_bytes, root.used_bytes) == ("/", GIB, GIB // 2)
    assert abs(health.clock_offset_s) < 1


@pytest.mark.parametrize(("offset_s", "words"), [(90, "90.0 s ahead of"), (-3600, "3600.0 s behind")])
async def test_a_clock_that_is_off_is_a_warning(usage, vms, offset_s, words):
    await vms.add(make_vm())
    vms.guests["web"].clock_offset_ns = offset_s * 10**9
    health = await usage.health(VmHealth(vm="web"))
    assert health.healthy
    assert health.warnings == [f"the guest's clock is {words} the host's"]
    assert abs(health.clock_offset_s - offset_s) < 1


@pytest.mark.parametrize(
    ("available", "healthy", "words"),
    [
        (GIB // 5, True, []),
        (GIB // 20, True, ["/root is nearly full"]),
        (GIB // 200, False, ["/root is full"]),
    ],
)
async def test_a_full_disk_is_unhealthy_and_a_nearly_full_one_a_warning(
    usage, vms, available, healthy, words
):
    await vms.add(make_vm())
    systems = (FileSystem("/", GIB, GIB, GIB), FileSystem("/root", GIB, available, available))
    vms.guests["web"].usage = Usage(0, 0, systems)
    health = await usage.health(VmHealth(vm="web"))
    assert health.healthy is healthy
    assert health.warnings + health.problems == words


async def test_hardly_any_memory_is_a_warning(usage, vms):
    await vms.add(make_vm())
    guest = vms.guests["web"]
    guest.health = guest.health._replace(memory_available_bytes=1 << 20)
    assert (await usage.health(VmHealth(vm="web"))).warnings == ["the guest has hardly any memory left"]


@pytest.mark.parametrize("connected", [True, False])
async def test_an_agent_that_does_not_answer_is_unhealthy_and_no_error(usage, vms, connected):
    await vms.add(make_vm(), guest=connected)
    if connected:
        vms.guests["web"].is_silent = True
    begun = time.monotonic()
    health = await usage.health(VmHealth(vm="web"))
    assert time.monotonic() - begun < 5
    assert not health.healthy
    assert len(health.problems) == 1
    assert (health.agent_ms, health.ssh, health.clock_offset_s) == (None, None, None)


async def test_connections_to_sshd_are_counted(usage, vms):
    vm = await vms.add(make_vm())
    assert await usage.count_connections(vm) == 0
    vms.guests["web"].connections = {22: 3, 80: 7}
    assert await usage.count_connections(vm) == 3


async def test_who_is_connected_to_a_silent_guest_is_not_known(usage, vms):
    vm = await vms.add(make_vm())
    vms.guests["web"].is_silent = True
    with pytest.raises(Problem, match="does not answer"):
        await usage.count_connections(vm)


async def test_a_guest_of_an_older_banger_has_no_file_systems_to_tell(usage, vms, monkeypatch):
    monkeypatch.setattr(
        "banger.guest.fake.METHODS",
        {number: run for number, run in METHODS.items() if number != Method.USAGE},
    )
    vm = await vms.add(make_vm())
    health = await usage.health(VmHealth(vm="web"))
    assert (health.healthy, health.file_systems) == (True, [])
    with pytest.raises(Problem) as caught:
        await usage.count_connections(vm)
    assert caught.value.code is Code.UNKNOWN_METHOD
