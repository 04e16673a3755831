"""P8: one client, one call after another, against an aiohttp echo over a Unix socket in the same run.

The daemon's side is the installed one with its peer check, validation and real dispatch; both are called by
equally bare blocking clients.
"""

import asyncio
import json
import multiprocessing
import socket
import statistics
import time
from pathlib import Path

from tools.bench.measure import Result, compare_rates

ROUNDS = 11
CALLS = 1000
_REQUEST = json.dumps({"v": 1, "method": "vm.list", "params": {"all": False}}).encode() + b"\n"
_BODY = b'{"all": false}'
_HTTP = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)


def serve_echo(path: str, ready: "multiprocessing.Queue[bool]") -> None:
    """The reference: a JSON echo, in a process of its own."""
    from aiohttp import web

    async def echo(request: web.Request) -> web.Response:
        return web.json_response(await request.json())

    async def main() -> None:
        application = web.Application()
        application.router.add_post("/", echo)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.UnixSite(runner, path).start()
        ready.put(True)
        await asyncio.Event().wait()

    asyncio.run(main())


class _Caller:
    def __init__(self, path: str, request: bytes, end: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._request, self._end = request, end

    def run(self) -> list[float]:
        """Seconds of each of CALLS calls."""
        times = []
        for _ in range(CALLS):
            began = time.perf_counter()
            self._socket.sendall(self._request)
            answer = b""
            while not answer.endswith(self._end):
                answer += self._socket.recv(65536)
            times.append(time.perf_counter() - began)
        return times


def run(daemon_socket: str, work: Path) -> list[Result]:
    """Throughput against the reference, and the 99th percentile against the median."""
    path = str(work / "echo.sock")
    ready: multiprocessing.Queue[bool] = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve_echo, args=(path, ready))
    server.start()
    try:
        ready.get(timeout=30)
        ours, theirs = _Caller(daemon_socket, _REQUEST, b"\n"), _Caller(path, _HTTP, b"}")
        ours.run(), theirs.run()  # warm
        rates, references, tails, medians = [], [], [], []
        for _ in range(ROUNDS):
            times = sorted(ours.run())
            rates.append(CALLS / sum(times))
            medians.append(statistics.median(times) * 1e6)
            tails.append(times[CALLS * 99 // 100] * 1e6)
            references.append(CALLS / sum(theirs.run()))
    finally:
        server.terminate()
        server.join()
    tail = statistics.median(tails) / statistics.median(medians)
    return [
        compare_rates("P8", "vm.list calls / aiohttp echo", rates, references, unit="1/s", at_least=4),
        Result(
            "P8-tail", "p99 / p50 of vm.list", tail, statistics.median(tails), statistics.median(medians), "µs",
            ROUNDS, "≤ 10", tail <= 10,
        ),
    ]  # fmt: skip
