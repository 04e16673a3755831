"""`vm run`, `vm exec` and `vm ssh`: what ends with somebody, or something, inside a VM."""

from __future__ import annotations

import os
from contextlib import suppress

from banger.cli.attach import attach
from banger.cli.output import note, warn
from banger.cli.terminal import find_size, is_terminal
from banger.cli.values import refuse
from banger.cli.work import run_operation
from banger.client.blocking import find_connection, open_connection
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments
    from banger.client.blocking import Connection

# The agent sets HOME and SHELL from the guest's passwd.
LOGIN_SHELL = ["/bin/sh", "-c", 'exec "${SHELL:-/bin/sh}" -l']
_EXEC_FLAGS = ("env", "cwd", "user", "pty", "stdin")


def run(arguments: Arguments) -> int:
    """Creates, runs, and with --rm deletes. The daemon deletes as well if we are killed meanwhile."""
    _refuse_contradictions(arguments)
    params = arguments.params("vm.create")
    if arguments.has("rm"):
        params["ephemeral"] = True
    connection = open_connection()
    quiet, op = arguments.has("quiet"), arguments.get("op")
    details = run_operation(connection, "vm.create", params, quiet=quiet, op=op)
    warn(details)
    name = details["vm"]["name"]
    if arguments.has("detach"):
        print(name)
        return 0
    status = _run_inside(arguments, connection, details["vm"]["id"], name)
    if not arguments.has("rm") and not arguments.rest and is_terminal(0):
        note(
            f"{name} is still running: banger vm exec -it {name} -- bash, "
            f"banger vm stop {name}, banger vm delete -f {name}"
        )
    return status


def execute(arguments: Arguments) -> int:
    """Runs a command in a VM that runs already. A terminal in the guest never ends for an input that has ended: what
    feeds it must be one, too."""
    if arguments.has("pty") and not is_terminal(0):
        raise refuse("the input is no terminal", hint="leave out -t")
    params = _command_params(arguments, arguments.rest)
    with open_connection() as connection:
        return _attach(connection, {"vm": arguments.get("vm"), **params})


def ssh(arguments: Arguments) -> int:
    """Becomes ssh; does not return."""
    with open_connection() as connection:
        target = connection.call("vm.ssh", arguments.params())
    argv = render_ssh_argv(target, arguments.rest, tty=arguments.has("tty"))
    try:
        os.execvp(argv[0], argv)  # noqa: S606 (no shell is the point)
    except OSError as error:
        raise Failure(
            "unavailable",
            f"ssh cannot be executed: {error.strerror}",
            hint="apt install openssh-client, or use: banger vm exec",
        ) from error


def render_ssh_argv(target: dict[str, Any], command: list[str], *, tty: bool) -> list[str]:
    """OpenSSH with our key and known_hosts and nobody's configuration; the command's words quoted for its shell."""
    from shlex import join

    options = {
        "UserKnownHostsFile": target["known_hosts_file"],
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": target["host_key_alias"],
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "LogLevel": "ERROR",
        # The post-quantum default takes seconds of CPU in a guest under software emulation.
        "KexAlgorithms": "^curve25519-sha256",
    }
    argv = ["ssh", "-F", "/dev/null", "-i", target["identity_file"], "-p", str(target["port"])]
    for option, value in options.items():
        argv += ["-o", f'{option}="{value}"' if option.endswith("File") else f"{option}={value}"]
    if tty:
        argv.append("-t")
    argv.append(f"{target['user']}@{target['host']}")
    return [*argv, "--", join(command)] if command else argv


def _refuse_contradictions(arguments: Arguments) -> None:
    if arguments.has("detach"):
        if arguments.has("rm") and not arguments.has("ttl_s"):
            raise refuse(
                "--rm and --detach contradict each other",
                hint="without a command there is no end to delete at; give it one, for example --ttl 1h",
            )
        if arguments.rest:
            raise refuse(
                "--detach and a command contradict each other",
                hint="banger vm run -d --name NAME, then: banger vm exec NAME -- CMD",
            )
        given = next((name for name in _EXEC_FLAGS if name in arguments.values), None)
        if given:
            raise refuse(
                f"--detach runs nothing that could use {_flag(arguments, given)}",
                hint="leave one of them out",
            )


def _flag(arguments: Arguments, name: str) -> str:
    return next(f"--{parameter.flag}" for parameter in arguments.command.parameters if parameter.name == name)


def _run_inside(arguments: Arguments, connection: Connection, vm: str, name: str) -> int:
    params: dict[str, Any] = {"vm": vm, "delete_after": True} if arguments.has("rm") else {"vm": vm}
    if arguments.rest:
        return _attach(connection, params | _command_params(arguments, arguments.rest))
    interactive = is_terminal(0) and is_terminal(1)
    shell = _command_params(arguments, LOGIN_SHELL) | {"stdin": True}
    if interactive:
        shell["pty"] = True
        _add_terminal(shell)
        note(f"{name} is ready; leave its shell with exit or Ctrl-D")
    return _attach(connection, params | shell)


def _command_params(arguments: Arguments, argv: list[str]) -> dict[str, Any]:
    """Parameters of vm.exec: stdin is forwarded when asked for, or when it is not a terminal."""
    params = {name: arguments.values[name] for name in _EXEC_FLAGS if name in arguments.values}
    params["argv"] = argv
    if not is_terminal(0):
        params["stdin"] = True
    if params.get("pty"):
        _add_terminal(params)
    return params


def _add_terminal(params: dict[str, Any]) -> None:
    """The size and the kind of our terminal; a TERM of the user's choice comes later and wins."""
    params["rows"], params["columns"] = find_size()
    params["env"] = [f"TERM={os.environ.get('TERM') or 'xterm'}", *params.get("env", [])]


def _attach(connection: Connection, params: dict[str, Any]) -> int:
    try:
        command = connection.stream("vm.exec", params)
    except Failure:
        if params.get("delete_after"):
            _ensure_deleted(params["vm"])
        raise
    return attach(command, stdin=bool(params.get("stdin")), pty=bool(params.get("pty")))


def _ensure_deleted(vm: str) -> None:
    """A VM that was to go with its command goes although the command never began."""
    connection = find_connection()
    if connection is not None:
        with connection, suppress(Failure):
            connection.call("vm.delete", {"vm": vm, "force": True})
