"""The daemon's real server as a process of its own, with services that do nothing, for whoever sends it nonsense.

    python -m tests.support.fuzz.daemon DIRECTORY

Prints a line when it listens, and ends when its stdin does. DIRECTORY/alarms gets every log record that must not be:
errors, tracebacks, bugs; the log itself is as large as a daemon's may be.
"""

import asyncio
import logging
import sys
from pathlib import Path

from tests.unit.daemon.harness import FakeServices, make_details, open_harness

from banger.api.vm import LogText
from banger.base.log import JsonFormatter, start_logging
from banger.services.contract import Stdin


class HarmlessServices(FakeServices):
    """Whatever is asked for, by whichever name, is done at once."""

    async def show(self, request):
        return make_details()

    def logs(self, request):
        return LogText(source="serial", text="", truncated=False)

    async def create(self, request, progress):
        progress.enter("prepare")
        progress.tell("half of it")
        return make_details()

    async def exec(self, request, stream):
        """Says back what it reads."""
        await stream.accept(pid=42)
        async for item in stream.inputs():
            if isinstance(item, Stdin) and not item.data:
                break
            if isinstance(item, Stdin):
                await stream.write(1, item.data)
        await stream.finish(status=0)


async def serve(directory: Path) -> None:
    start_logging("info", directory / "log")
    alarms = logging.FileHandler(directory / "alarms", encoding="utf-8")
    alarms.setFormatter(JsonFormatter())
    alarms.addFilter(
        lambda record: bool(record.exc_info or record.levelno >= logging.WARNING or "bug" in record.msg)
    )
    logging.getLogger().addHandler(alarms)
    loop = asyncio.get_running_loop()
    async with open_harness(directory, services=HarmlessServices()) as harness:
        over = asyncio.Event()
        loop.add_reader(0, over.set)
        print(harness.paths.socket, flush=True)
        await over.wait()
        loop.remove_reader(0)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
