"""The helper as it runs: a process of its own in a namespace, and raw connections to it."""

import array
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.host.privileged.places import PATIENCE_S, Place

from banger.privileged.contract.base import VERSION

ROOT = Path(__file__).parents[3]
OWNER = 64321
MODULE = (sys.executable, "-m", "banger.privileged.helper")


class HelperProcess:
    """Its socket's directory and its log live as long as it does; it may be ended and started again."""

    def __init__(self, place: Place, owner: int = OWNER) -> None:
        self.place = place
        self.owner = owner
        self.directory = Path(tempfile.mkdtemp(prefix="bng"))
        self.directory.chmod(0o755)
        self.path = self.directory / "run" / "root.sock"
        self.log_path = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def argv(self, program: Sequence[str] = MODULE) -> list[str]:
        return [*program, "--owner", str(self.owner), "--socket", str(self.path)]

    def start(self, program: Sequence[str] = MODULE, **environment: str) -> None:
        with self.place.inside(), self.log_path.open("ab") as log:
            ready = len(self.messages("ready"))
            self.process = subprocess.Popen(
                self.argv(program),
                stderr=log,
                cwd="/",
                env={"PATH": "/usr/bin:/usr/sbin", "PYTHONPATH": str(ROOT / "src"), **environment},
            )
        wait_until(lambda: len(self.messages("ready")) > ready, "the helper is ready")

    def end(self, number: int = 15) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory)

    def connect(self) -> "Connection":
        return Connection(self.path)

    def log(self) -> list[dict[str, Any]]:
        if not self.log_path.exists():
            return []
        return [
            json.loads(line)
            for line in self.log_path.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]

    def messages(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line.get("message") == message]

    def calls(self, op: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line.get("op") == op]

    def descriptors(self) -> list[str]:
        """What it holds, once it has answered everything."""
        with self.connect() as connection:
            connection.ask("hello")
            found = Path(f"/proc/{self.pid}/fd")
            return sorted(os.readlink(entry).split(":")[0] for entry in found.iterdir())

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


class Connection:
    """Says anything, right or wrong."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(str(path))

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        self.socket.sendmsg([message], rights)

    def receive(self) -> dict[str, Any]:
        """An answer; the descriptors that came are closed."""
        answer, descriptors, _, _ = socket.recv_fds(self.socket, 256 * 1024, 64)
        for descriptor in descriptors:
            os.close(descriptor)
        if not answer:
            raise EOFError
        found = json.loads(answer)
        assert isinstance(found, dict)
        return found

    def say(self, message: bytes, descriptors: Sequence[int] = ()) -> dict[str, Any]:
        self.send(message, descriptors)
        return self.receive()

    def ask(
        self, method: str, *, op: str = "", descriptors: Sequence[int] = (), **params: Any
    ) -> dict[str, Any]:
        return self.say(encode(method, op=op, **params), descriptors)

    def is_closed(self) -> bool:
        try:
            return not self.socket.recv(1000)
        except ConnectionError:
            return True


def encode(method: str, *, op: str = "", **params: Any) -> bytes:
    return json.dumps({"v": VERSION, "op": op, "method": method, "params": params}).encode()


def wait_until(condition: Callable[[], object], what: str, *, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
