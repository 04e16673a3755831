"""Firecracker's own command line outside of a jail and how one of its processes is known by it. Pure."""

from banger.base.process import Argv
from banger.model.machine import Machine
from banger.vmm.firecracker.sockets import API_SOCKET, DIRECTORY, METRICS, VMM_LOG

_API = f"{DIRECTORY}/{API_SOCKET}"
_MARK = f"\0--api-sock\0{_API}\0".encode()


def render_argv(machine: Machine, *, program: str) -> Argv:
    """Everything else is said by the API. The console is its standard output."""
    return (
        program,
        *("--id", machine.id),
        *("--api-sock", _API),
        *("--log-path", f"{DIRECTORY}/{VMM_LOG}"),
        *("--level", "Info"),  # a crash of the guest is told at this level
        *("--metrics-path", f"{DIRECTORY}/{METRICS}"),
    )


def is_ours(command_line: bytes) -> bool:
    """Whether a process's command line (proc(5), cmdline) is one of these; whose place it is says its directory."""
    return _MARK in command_line
