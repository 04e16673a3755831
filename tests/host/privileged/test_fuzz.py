"""A hundred thousand requests that are nearly right, against the real process."""

import collections
import os
import random
import time
from collections.abc import Iterator

import pytest
from tests.host.privileged.helper_process import HelperProcess
from tests.host.privileged.mutation import Mutator
from tests.host.privileged.places import Place

from banger.privileged.contract import requests
from banger.privileged.contract.base import VERSION

COUNT = 100_000
WARM_UP = 4_000
AT_ONCE = 8  # a peer that leaves more than ten answers unread is dropped
SECONDS_MAX = 60
GROWTH_KIB_MAX = 4_096
BRIDGE, ELSEWHERE = "br-bangerq7w3e9", "br-bangerzz"
VM = "0a1b2c3d4e5f"
GUEST = {"tap": "bng-00000000", "mac": "02:00:00:00:00:09", "address": "10.209.0.9", "nat": True}
PORT = {"protocol": "tcp", "host_address": "127.0.0.1", "host_port": 8080, "guest_port": 80}
POLICY = {"denied": ["10.0.0.0/8"], "allowed": ["10.1.0.0/16"], "host_ports": [80], "guests": True}

# Whatever mutation makes of these, nothing may change: each asks for what is there, or of a bridge that is not.
PARAMS: list[tuple[str, dict]] = [
    ("hello", {}),
    ("list_routes", {}),
    ("inspect_host", {}),
    ("ensure_bridge", {"bridge": BRIDGE, "address": "10.209.0.1/24"}),
    ("remove_bridge", {"bridge": BRIDGE}),
    ("create_taps", {"bridge": ELSEWHERE, "count": 2}),
    (
        "delete_taps",
        {"taps": ["bng-00000000", "bng-00000001", "bng-00000002", "bng-00000003", "bng-00000004"]},
    ),
    ("list_taps", {"bridge": BRIDGE}),
    ("apply_guests", {"bridge": ELSEWHERE, "policy": POLICY, "guests": [GUEST]}),
    ("admit_guest", {"bridge": BRIDGE, "guest": GUEST}),
    ("release_guest", {"bridge": BRIDGE, "guest": GUEST}),
    ("publish_ports", {"bridge": BRIDGE, "guest_address": "10.209.0.9", "ports": [PORT]}),
    ("unpublish_ports", {"bridge": BRIDGE, "guest_address": "10.209.0.9", "ports": [PORT]}),
    ("open_dns", {"bridge": ELSEWHERE}),
    ("route_names", {"bridge": BRIDGE, "zone": "vm"}),
    ("unroute_names", {"bridge": BRIDGE}),
    ("signal_vmm", {"pid": 2**22 - 1, "start_time": 12345, "signal": 9}),
    ("map_ids", {"pid": 2**22 - 1, "start_time": 12345}),
    ("inspect_machines", {}),
    ("attach_snapshot", {"vm": VM, "size_bytes": 1 << 20}),
    ("detach_snapshot", {"vm": VM}),
    ("list_snapshots", {}),
    ("launch_vmm", {"vm": VM, "memory_mib": 256, "disks": ["snapshot", "file", "read-only"]}),
    ("settle_vmm", {"vm": VM, "tap": "bng-00000000"}),
    ("enter_jail", {"vm": VM}),
    ("remove_jail", {"vm": VM}),
    ("list_jails", {}),
]
CORPUS = [
    {"v": VERSION, "op": f"fuzz-{method}", "method": method, "params": params} for method, params in PARAMS
]


def test_every_request_is_among_them() -> None:
    assert set(requests.REQUESTS) <= {method for method, _ in PARAMS}


@pytest.fixture
def helper(host: Place) -> Iterator[HelperProcess]:
    helper = HelperProcess(host)
    try:
        helper.start()
        yield helper
    finally:
        helper.close()


@pytest.mark.timeout(SECONDS_MAX + 60)
def test_a_hundred_thousand_wrong_requests_change_nothing(helper: HelperProcess) -> None:
    seed = int(os.environ.get("BANGER_FUZZ_SEED", "20240611"))
    mutator, chance = Mutator(seed, CORPUS), random.Random(seed)
    with helper.connect() as keeper, open("/dev/null") as file:
        keeper.ask("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24")
        keeper.send(
            b'{"v":%d,"op":"","method":"create_taps","params":{"bridge":"%s","count":1}}'
            % (VERSION, BRIDGE.encode())
        )
        _, ancillary, _, _ = keeper.socket.recvmsg(100_000, 1000)
        assert ancillary  # the tap is held, and the bridge with it
        before, descriptors, resident = helper.place.traces(), helper.descriptors(), 0
        codes: collections.Counter[str] = collections.Counter()
        deadline = time.monotonic() + SECONDS_MAX
        connection = helper.connect()
        for number in range(0, COUNT, AT_ONCE):
            if number == WARM_UP:
                resident = helper.resident_kib()
            for _ in range(AT_ONCE):
                held = [file.fileno()] * chance.choice((1, 1, 2, 65)) if chance.random() < 0.05 else []
                connection.send(mutator.next_message(), held)
            for _ in range(AT_ONCE):
                answer = connection.receive()
                codes[answer["error"]["code"] if "error" in answer else "done"] += 1
            if chance.random() < 0.01:
                connection.__exit__()
                connection = helper.connect()
            assert time.monotonic() < deadline, number
        connection.__exit__()
        assert sum(codes.values()) == COUNT
        assert codes["internal"] == 0, codes
        assert (
            min(
                codes[code] for code in ("done", "bad_request", "unknown_method", "not_found", "unauthorized")
            )
            > 0
        ), codes
        assert helper.process is not None
        assert helper.process.poll() is None
        assert helper.descriptors() == descriptors
        assert helper.place.traces() == before
        assert helper.resident_kib() - resident < GROWTH_KIB_MAX
        assert not [line for line in helper.log() if "traceback" in line]
