"""Firecracker's own command line and how one of its processes is known by it. Pure."""

from banger.base.process import Argv
from banger.model.machine import Machine
from banger.vmm.firecracker.place import API_SOCKET, METRICS

_MARK = f"\0--api-sock\0{API_SOCKET}\0".encode()


def render_argv(machine: Machine, *, program: str, log: str) -> Argv:
    """Everything else is said by the API. The console is its standard output."""
    return (
        program,
        *("--id", machine.id),
        *("--api-sock", API_SOCKET),
        *("--log-path", log, "--level", "Info"),  # a crash of the guest is told at this level
        *("--metrics-path", METRICS),
    )


def is_ours(command_line: bytes) -> bool:
    """Whether a process's command line (proc(5), cmdline) is one of these; whose place it is says its directory."""
    return _MARK in command_line
