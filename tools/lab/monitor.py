"""QEMU's own socket (QMP), as much of it as the lab needs: commands, descriptors, and the end of a migration.

Blocking; one caller. Nothing polls: a migration's end is an event.
"""

import json
import socket
from typing import Any

_DEADLINE_S = 120.0
_UNLIMITED = 1 << 50


class MonitorError(Exception):
    """What QEMU refuses, or its silence."""


class Monitor:
    """Speaks on a connected socket, which it owns."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._socket.settimeout(_DEADLINE_S)
        self._stream = connected.makefile("rb")
        self._events: list[dict[str, Any]] = []
        self._read()  # the greeting
        self.execute("qmp_capabilities")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def execute(self, command: str, *, descriptor: int | None = None, **arguments: Any) -> Any:
        """The command's answer. Raises MonitorError when QEMU refuses or is gone."""
        line = json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
        if descriptor is None:
            self._socket.sendall(line)
        else:
            socket.send_fds(self._socket, [line], [descriptor])
        while True:
            answer = self._read()
            if "event" in answer:
                self._events.append(answer)
            elif "error" in answer:
                raise MonitorError(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def save(self, descriptor: int) -> None:
        """Stops the machine and writes its state; it stays stopped, its disks whole."""
        self.execute("stop")
        self._watch_migration()
        self.execute("migrate-set-parameters", **{"max-bandwidth": _UNLIMITED})
        self.execute("getfd", descriptor=descriptor, fdname="state")
        self.execute("migrate", uri="fd:state")
        self._wait_migration()

    def restore(self, descriptor: int) -> None:
        """Of a machine started with `-incoming defer`; it runs when this returns."""
        self._watch_migration()
        self.execute("getfd", descriptor=descriptor, fdname="state")
        self.execute("migrate-incoming", uri="fd:state")
        self._wait_migration()
        self.execute("cont")

    def _watch_migration(self) -> None:
        self.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])

    def _wait_migration(self) -> None:
        while True:
            event = self._events.pop(0) if self._events else self._read()
            if event.get("event") != "MIGRATION":
                continue
            status = event["data"]["status"]
            if status == "failed":
                raise MonitorError(f"migration failed: {self.execute('query-migrate').get('error-desc', '')}")
            if status == "completed":
                return

    def _read(self) -> dict[str, Any]:
        try:
            line = self._stream.readline()
        except TimeoutError as error:
            raise MonitorError(f"QEMU says nothing for {_DEADLINE_S:.0f} s") from error
        if not line:
            raise MonitorError("QEMU has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer
