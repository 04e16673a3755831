"""Helper and daemon without systemd: for containers and tests. They run in the background, in sessions of their own.

Nothing is written down about them: who listens at a socket is the process, says the kernel.
"""

import os
import select
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from banger.base.process import clean_environment
from banger.client.wire import Failure
from banger.installation import places
from banger.installation.answers import ask_daemon, find_pid, greet_helper, open_daemon, wait_answer
from banger.installation.host import Host
from banger.installation.owner import Owner
from banger.installation.programs import Argv
from banger.installation.tree import Tree
from banger.installation.units import render_helper_argv

_STOP_S = 60.0
_TAIL_LINES = 5


def start_helper(host: Host, tree: Tree, owner: Owner) -> None:
    """Returns when it answers. Its log is a file, for there is no journal."""
    socket_path = host.at(places.HELPER_SOCKET)
    tree.ensure_directory(places.HELPER_RUNTIME)
    argv = render_helper_argv(owner, helper=host.at(places.HELPER), socket=socket_path)
    log = tree.open_log(places.HELPER_LOG)
    try:
        process = _spawn(argv, {}, log)
    finally:
        os.close(log)
    try:
        wait_answer(lambda: greet_helper(socket_path, host.root_uid), lambda: process.poll() is not None)
    except Failure as failure:
        written = tree.find(places.HELPER_LOG)
        failure.detail = _last_lines(written.content if written else b"")
        failure.hint = f"look into {places.HELPER_LOG}"
        raise


def start_daemon(host: Host, owner: Owner, daemon: Argv) -> None:
    """Returns when it answers. Its log is in the owner's state directory."""
    socket_path = host.at(places.DAEMON_SOCKET)
    environment = {
        **owner.environment,
        "BANGER_RUNTIME_DIR": host.at(places.RUNTIME),
        "BANGER_CONFIG_DIR": host.at(places.CONFIG_DIRECTORY),
        "BANGER_ROOT_SOCKET": host.at(places.HELPER_SOCKET),
    }
    with tempfile.TemporaryFile() as words:
        process = _spawn((*daemon, "--keep-vms"), environment, words, **owner.credentials)
        try:
            wait_answer(
                lambda: open_daemon(socket_path, owner.uid).close(), lambda: process.poll() is not None
            )
        except Failure as failure:
            words.seek(0)
            failure.detail = _last_lines(words.read())
            failure.hint = f"look into {owner.state}/daemon.log"
            raise


def stop_helper(host: Host) -> None:
    pid = find_pid(host.at(places.HELPER_SOCKET), socket.SOCK_SEQPACKET, host.root_uid)
    if pid is not None:
        end(pid, host.root_uid)


def stop_daemon(host: Host, owner: Owner) -> None:
    """Its VMs run on: it is asked to leave them, as one that somebody serves in the foreground takes a signal for the
    wish to stop them. One of before there was such a request gets the signal."""
    path = host.at(places.DAEMON_SOCKET)
    pid = find_pid(path, socket.SOCK_STREAM, owner.uid)
    if pid is None:
        return
    try:
        ask_daemon(path, owner.uid, "daemon.stop", {"keep_vms": True})
    except Failure as failure:
        end(
            pid, owner.uid, asked=failure.outcome == "unknown"
        )  # it may close the connection before it answers
    else:
        end(pid, owner.uid, asked=True)


def render_foreground_commands(owner: Owner) -> tuple[str, str]:
    """For people: what to run as root, and what as the owner."""
    environment = f"BANGER_RUNTIME_DIR={places.RUNTIME} BANGER_CONFIG_DIR={places.CONFIG_DIRECTORY}"
    return " ".join(render_helper_argv(owner)), f"{environment} banger daemon serve"


def _spawn(
    argv: Argv, environment: dict[str, str], output: int | IO[bytes], **credentials: Any
) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            argv,
            cwd="/",
            env=clean_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            **credentials,
        )
    except OSError as error:
        raise Failure("unavailable", f"{argv[0]} cannot be executed: {error.strerror}") from error


def end(pid: int, uid: int, *, asked: bool = False) -> None:
    """SIGTERM, unless it was asked to end; returns when it has gone. Raises Failure at the deadline, and for a process
    that is not that user's: who had listened may have passed the socket on, and somebody else have got the pid."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _find_uid(pid) not in (uid, None):
            raise Failure("unauthorized", f"pid {pid} does not run as uid {uid}", hint=f"ps -fp {pid}")
        if not asked:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGTERM)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        if not poll.poll(_STOP_S * 1000):
            raise Failure(
                "operation_failed",
                f"pid {pid} has not ended after {_STOP_S:.0f} s",
                hint=f"sudo kill -9 {pid}",
            )
    finally:
        os.close(process)


def _find_uid(pid: int) -> int | None:
    """The real uid, or None when it has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return None
    return int(status.partition("\nUid:")[2].split()[0])


def _last_lines(text: bytes) -> str | None:
    return "\n".join(text.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]) or None
