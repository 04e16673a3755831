"""`daemon status`, `start`, `stop`, `restart`, `reconcile` and `serve`. All but the first and `stop` may start it."""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress

from banger.cli.output import note, print_json
from banger.cli.render.tables import render_duration, render_fields, render_size, render_table
from banger.client.blocking import find_connection, open_connection
from banger.client.launch import check_configuration, daemon_argv, explain_absence, find_system_restart
from banger.client.places import socket_path
from banger.client.statuses import EXIT_STATUS
from banger.client.wire import Failure, RemoteProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments
    from banger.client.blocking import Connection

_STOP_DEADLINE_S = 120.0
_RECONCILED = {
    "adopted": "taken over",
    "stopped": "marked as stopped",
    "removed": "removed to its end",
    "swept": "swept from the host",
    "operations": "outcome known now",
    "left": "NOT MENDED",
}


def status(arguments: Arguments) -> int:
    """As JSON, `pid` is null when nobody listens."""
    connection = find_connection()
    if connection is None:
        if arguments.has("json"):
            print_json({"pid": None, "socket": socket_path()})
        else:
            print(explain_absence())
        return EXIT_STATUS["unavailable"]
    with connection:
        state = connection.call("daemon.status")
    if arguments.has("json"):
        print_json(state)
    else:
        sys.stdout.write(_render(state))
    return 0


def start(arguments: Arguments) -> int:
    with open_connection() as connection:
        state = connection.call("daemon.status")
    print(f"the daemon runs, pid {state['pid']}")
    return 0


def stop(arguments: Arguments) -> int:
    """Returns when the process has gone. One that speaks another protocol gets a SIGTERM instead."""
    connection = find_connection()
    if connection is None:
        print("the daemon does not run")
        return 0
    _end(connection, keep_vms=arguments.has("keep_vms"))
    print("the daemon has stopped")
    return 0


def restart(arguments: Arguments) -> int:
    """Who speaks another protocol is not ended: nothing else than a request keeps its VMs. Nor is anybody as long as
    the next one would refuse its configuration."""
    if (command := find_system_restart()) is not None:
        raise Failure("unavailable", "the system runs this daemon for you", hint=command)
    if (connection := find_connection()) is not None:
        _refuse_bad_configuration()
        _end(connection, keep_vms=True)
    return start(arguments)


def _refuse_bad_configuration() -> None:
    try:
        check_configuration()
    except RemoteProblem as problem:
        problem.message += "; the daemon was left running with the configuration it had"
        problem.hint = "correct it, then banger daemon restart"
        raise


def _end(connection: Connection, *, keep_vms: bool) -> None:
    with connection:
        pid = connection.daemon_pid
        process = os.pidfd_open(pid)
        try:
            _ask_to_stop(connection, process, keep_vms=keep_vms)
            if not _wait_end(process):
                raise Failure(
                    "operation_failed",
                    f"the daemon (pid {pid}) has not ended after {_STOP_DEADLINE_S:.0f} s",
                    hint=f"kill {pid}",
                    outcome="unknown",
                )
        finally:
            os.close(process)


def _ask_to_stop(connection: Connection, process: int, *, keep_vms: bool) -> None:
    try:
        connection.call("daemon.stop", {"keep_vms": True} if keep_vms else {})
    except Failure as failure:
        if failure.code in ("bad_version", "unknown_method") and not keep_vms:
            note("banger: the daemon is of another version; ending it by signal")
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGTERM)
        elif failure.outcome != "unknown":  # it may well close the connection before it answers
            raise


def reconcile(arguments: Arguments) -> int:
    """Exits with the status of `operation_failed` if something is left that could not be mended."""
    with open_connection() as connection:
        found = connection.call("daemon.reconcile")
    if arguments.has("json"):
        print_json(found)
    else:
        sys.stdout.write(_render_reconciled(found))
    return EXIT_STATUS["operation_failed"] if found["left"] else 0


def serve(arguments: Arguments) -> int:
    """Becomes the daemon; does not return."""
    argv = (*daemon_argv(), "--foreground")
    os.execv(argv[0], argv)  # noqa: S606 (no shell is the point)


def _wait_end(process: int) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(_STOP_DEADLINE_S * 1000))


def _render(state: dict[str, Any]) -> str:
    return render_fields(
        [
            ("version", f"{state['version']}, protocol {state['protocol']}"),
            ("pid", f"{state['pid']}, uid {state['uid']}"),
            ("up", render_duration(state["uptime_s"])),
            ("VMs", f"{state['vms']}, running {state['running']}"),
            ("operations", str(state["operations"])),
            ("memory", render_size(state["rss_bytes"])),
            ("socket", state["socket"]),
            ("log", state["log"]),
        ]
    )


def _render_reconciled(found: dict[str, Any]) -> str:
    rows = [(words, each) for part, words in _RECONCILED.items() for each in found.get(part, ())]
    return render_table(("DONE", "WHAT"), rows) if rows else "everything is as the records say\n"
