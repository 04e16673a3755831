"""A real daemon whose state is on a file system that fills up: a small tmpfs in a mount namespace of the daemon's."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from daemon_harness import LAUNCH, Wire

from banger.base.problem import Code
from banger.model.operation import OperationState
from banger.store.sqlite import open_store

MOUNT = 'mount -t tmpfs -o size=%s,mode=700 tmpfs "$0" && exec "$@"'
TINY, SMALL = "512k", "16m"  # too little for the store's reserve, and enough
NAMESPACE = ("unshare", "--mount", "--propagation", "private")


@pytest.fixture
def state(tmp_path):
    directory = tmp_path / "state/banger"
    directory.mkdir(parents=True, mode=0o700)
    tried = subprocess.run(
        [*NAMESPACE, "sh", "-c", MOUNT % TINY, str(directory), "true"], capture_output=True, text=True
    )
    if tried.returncode:
        pytest.skip(f"a full disk needs root and a mount namespace: {tried.stderr.strip()}")
    return directory


@asynccontextmanager
async def running_daemon(tmp_path, state, size):
    """(a client, the state directory as the daemon sees it)"""
    environment = os.environ | {"BANGER_RUNTIME_DIR": f"{tmp_path}/run", "XDG_STATE_HOME": str(state.parent)}
    ready, told = os.pipe()
    harness = str(Path(__file__).with_name("harness.py"))
    with (
        open(tmp_path / "stderr", "wb") as stderr,
        subprocess.Popen(
            [
                *NAMESPACE,
                "sh",
                "-c",
                MOUNT % size,
                str(state),
                sys.executable,
                "-c",
                LAUNCH,
                harness,
                "--ready-fd",
                str(told),
            ],
            env=environment,
            pass_fds=[told],
            stderr=stderr,
        ) as daemon,
    ):
        os.close(told)
        try:
            with os.fdopen(ready) as reader:
                line = json.loads(await asyncio.to_thread(reader.read))
            assert line["ready"], line
            client = Wire(*await asyncio.open_unix_connection(line["socket"]))
            yield client, Path(f"/proc/{daemon.pid}/root{state}")
            client.writer.close()
        finally:
            daemon.terminate()
        assert daemon.wait(10) == 0


def fill(directory):
    with open(directory / "filler", "wb", buffering=0) as filler:
        for size in (4096, 1):
            try:
                while filler.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def read_operations(directory, copy):
    """Of a copy, as it would be found if the host went down now. Opening it checks that it is whole."""
    copy.mkdir()
    for name in ("banger.db", "banger.db-wal"):
        shutil.copy(directory / name, copy / name)
    store = open_store(copy / "banger.db")
    operations = {operation.id: operation for operation in store.operations.list(None)}
    store.close()
    return operations


async def test_a_disk_that_is_full_at_the_commit_refuses_work_and_loses_none(tmp_path, state):
    async with running_daemon(tmp_path, state, TINY) as (client, seen):
        begun = {"name": "web"}
        assert (await client.call("vm.create", begun, op="op-long", detach=True))["result"][
            "state"
        ] == "running"
        fill(seen)
        replies = {}
        while len(replies) < 50:
            op_id = f"op-{len(replies)}"
            replies[op_id] = await client.call("vm.start", {"vm": "web"}, op=op_id)
            if "error" in replies[op_id]:
                break
        refused = replies.pop(op_id)["error"]
        assert (refused["code"], refused["outcome"]) == (Code.NO_SPACE.value, "not_started")
        assert refused["message"].endswith("banger.db")
        assert refused["hint"]
        assert all("result" in reply for reply in replies.values())

        # What ends now cannot be recorded, and is known all the same.
        params = {"operation": "op-long", "wait": True}
        assert (await client.call("operation.cancel", params))["result"]["state"] == "cancelled"
        assert (await client.call("operation.show", {"operation": "op-long"}))["result"][
            "state"
        ] == "cancelled"
        assert (await client.call("daemon.ping"))["result"] == {}
        found = read_operations(seen, tmp_path / "full")
        assert set(found) == {"op-long", *replies}
        assert found["op-long"].state is OperationState.RUNNING

        os.unlink(seen / "filler")
        assert "result" in await client.call("vm.start", {"vm": "web"}, op=op_id)
        found = read_operations(seen, tmp_path / "roomy")
        assert set(found) == {"op-long", op_id, *replies}
        assert found["op-long"].state is OperationState.CANCELLED


async def test_on_a_full_disk_what_makes_room_is_recorded(tmp_path, state):
    async with running_daemon(tmp_path, state, SMALL) as (client, seen):
        fill(seen)
        replies = {f"op-{n}": await client.call("vm.delete", {"vm": "web"}, op=f"op-{n}") for n in range(200)}
        assert [reply for reply in replies.values() if "error" in reply] == []
        found = read_operations(seen, tmp_path / "copy")
        assert {op_id: each.state for op_id, each in found.items()} == dict.fromkeys(
            replies, OperationState.SUCCEEDED
        )
