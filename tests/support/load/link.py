"""How the fake host is asked: one JSON object in a datagram, one back, descriptors with either. See `host.Orders`."""

import json
import os
import socket
from array import array
from pathlib import Path
from typing import Any

ROOT_SOCKET, ORDERS, AGENT = "root.sock", "host.sock", "agent.sock"
MESSAGE_BYTES = 1 << 17
HOST = "BANGER_LOAD_HOST"  # in the environment: the path of ORDERS


class HostLink:
    """Blocking: an order takes hardly longer than a fork."""

    def __init__(self, path: str | Path) -> None:
        self._connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connected.connect(str(path))

    def close(self) -> None:
        self._connected.close()

    def order(self, order: str, *descriptors: int, **details: Any) -> dict[str, Any]:
        answer, received = self.order_descriptors(order, *descriptors, **details)
        for descriptor in received:
            os.close(descriptor)
        return answer

    def order_descriptors(
        self, order: str, *descriptors: int, **details: Any
    ) -> tuple[dict[str, Any], list[int]]:
        """The descriptors are the caller's."""
        message = json.dumps({"order": order, **details}).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        self._connected.sendmsg([message], rights)
        answer, received, _, _ = socket.recv_fds(self._connected, MESSAGE_BYTES, 4)
        if not answer:
            raise ConnectionResetError("the fake host has gone")
        return json.loads(answer), received
