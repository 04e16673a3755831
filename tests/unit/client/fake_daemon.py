"""A scripted daemon in a thread: speaks docs/reference/rpc.md over a real socket, knows nothing of VMs."""

import contextlib
import json
import socket
import struct
import threading
from pathlib import Path
from typing import Any

DETAILS = {
    "vm": {
        "id": "0123456789ab",
        "name": "web",
        "spec": {
            "image": "debian-bookworm",
            "kernel": "debian-cloud",
            "vcpus": 2,
            "memory_mib": 2048,
            "disk_size_bytes": 8 << 30,
            "system_overlay_size_bytes": 8 << 30,
            "nat": False,
            "origins": {"vcpus": "host", "memory_mib": "flag", "disk_size_bytes": "floor"},
        },
        "state": "running",
        "created_at": "2025-11-21T06:09:12Z",
        "boot_stages": [{"name": "kernel", "started_ms": 0, "duration_ms": 1234.0}],
    },
    "posture": {
        "backend": "qemu",
        "accelerator": "tcg",
        "accelerator_reason": "no /dev/kvm",
        "network_mode": "user",
        "network_reason": "no helper",
        "storage_driver": "qcow2",
        "memory_backing": "file",
    },
    "disk_use": {"root_bytes": 1 << 20, "work_bytes": 1 << 21},
    "directory": "/var/lib/vm",
}


class Call:
    """One request, with what a script may answer."""

    def __init__(self, connection: socket.socket, reader: Any, request: dict[str, Any]) -> None:
        self.connection = connection
        self.reader = reader
        self.request = request
        self.params = request["params"]

    def send(self, line: dict[str, Any]) -> None:
        self.connection.sendall(json.dumps({"op": "op-1", **line}).encode() + b"\n")

    def stage(self, name: str, duration_ms: float = 1200.0) -> None:
        for state in ("begin", "end"):
            event = {
                "type": "stage",
                "name": name,
                "state": state,
                "started_ms": 0.0,
                "duration_ms": duration_ms,
            }
            self.send({"event": event})

    def frame(self, kind: int, payload: bytes) -> None:
        self.connection.sendall(struct.pack(">BI", kind, len(payload)) + payload)

    def end(self, **end: Any) -> None:
        self.frame(4, json.dumps(end).encode())

    def read_frame(self) -> tuple[int, bytes] | None:
        header = self.reader.read(5)
        if len(header) < 5:
            return None
        kind, length = struct.unpack(">BI", header)
        return kind, self.reader.read(length)

    def stream(self) -> None:
        self.send({"stream": {"pid": 7}})


class FakeDaemon:
    """`answers[method]` is a result, `{"error": …}`, or a function of the Call that does all the talking."""

    def __init__(self, path: Path) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[dict[str, Any]] = []
        self.gone = threading.Event()  # set when a client has left
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(50)
        threading.Thread(target=self._accept, daemon=True).start()

    def methods(self) -> list[str]:
        return [request["method"] for request in self.requests]

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as reader:
            while line := reader.readline():
                request = json.loads(line)
                self.requests.append(request)
                call = Call(connection, reader, request)
                answer = self.answers.get(request["method"], {})
                if callable(answer):
                    if answer(call) == "close":
                        break
                elif "error" in answer:
                    call.send(answer)
                else:
                    call.send({"result": answer})
        self.gone.set()
