import asyncio
import os

import pytest

from banger.base.problem import Code, Problem
from banger.base.process import clean_environment, get_tool, run, start_process


async def test_output_and_status_come_back():
    done = await run(("/bin/sh", "-c", "echo out; echo err >&2; exit 3"), timeout_s=10, check=False)
    assert (done.status, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


async def test_a_failure_names_command_status_and_the_last_words():
    with pytest.raises(Problem) as caught:
        await run(("/bin/sh", "-c", "echo no such thing >&2; exit 3"), timeout_s=10)
    assert "status 3" in caught.value.detail
    assert "no such thing" in caught.value.detail


async def test_the_deadline_ends_the_whole_group():
    with pytest.raises(Problem, match="did not finish"):
        await run(("/bin/sh", "-c", "sleep 60 & wait"), timeout_s=0.1)


async def test_a_cancelled_caller_takes_the_tool_along():
    async with start_process(("/bin/sleep", "60")) as process:
        pid = process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_pipes_that_were_not_read_to_their_end_are_closed_with_the_block():
    before = set(os.listdir("/proc/self/fd"))
    async with start_process(("/bin/sh", "-c", "head -c 10000000 /dev/zero; exec sleep 60")) as process:
        assert len(await process.stdout.read(10)) == 10
        await asyncio.sleep(0.2)  # until its reader has had enough
    await asyncio.sleep(0)
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0


async def test_stdin_is_empty_and_the_environment_clean(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    done = await run(("/bin/sh", "-c", "cat; env"), timeout_s=10)
    assert b"SECRET_TOKEN" not in done.stdout


async def test_a_missing_program_is_unavailable():
    with pytest.raises(Problem) as caught:
        await run(("/nonexistent/tool",), timeout_s=1)
    assert caught.value.code is Code.UNAVAILABLE


def test_a_missing_tool_names_its_package():
    with pytest.raises(Problem) as caught:
        get_tool("no-such-tool", package="some-package")
    assert caught.value.hint == "sudo apt-get install some-package"


def test_callers_may_add_to_the_environment():
    assert clean_environment({"A": "b"})["A"] == "b"


async def test_a_silent_reader_of_output_is_not_needed():
    async with asyncio.timeout(10):
        done = await run(("/bin/sh", "-c", "head -c 1000000 /dev/zero"), timeout_s=10)
    assert len(done.stdout) == 1000000
