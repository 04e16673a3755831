"""`vm run`, `vm exec` and `vm ssh`: what ends with somebody, or something, inside a VM."""

from __future__ import annotations

import os
from contextlib import suppress

from banger.cli.attach import attach
from banger.cli.env_files import collect_environment
from banger.cli.output import note, warn
from banger.cli.terminal import find_size, is_terminal
from banger.cli.values import refuse
from banger.cli.work import run_operation
from banger.cli.workspaces import keep_up, plan_ahead, prepare, read_params, require_path
from banger.client.blocking import find_connection, open_connection
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.agents import AgentRun
    from banger.cli.parser import Arguments
    from banger.client.blocking import Connection

# The agent sets HOME and SHELL from the guest's passwd.
LOGIN_SHELL = ["/bin/sh", "-c", 'exec "${SHELL:-/bin/sh}" -l']
_EXEC_FLAGS = ("env", "cwd", "user", "pty", "stdin")


def run(arguments: Arguments) -> int:
    """Creates, runs, and with --rm deletes. The daemon deletes as well if we are killed meanwhile."""
    _refuse_contradictions(arguments)
    require_path(arguments)
    _check_tooling(arguments)
    params, workspace = arguments.params("vm.create"), read_params(arguments)
    connection = open_connection()
    environment = collect_environment(arguments)
    agent = _plan_agent(arguments, connection, environment)
    if arguments.has("rm") and agent is None:
        params["ephemeral"] = True
    if workspace:
        plan_ahead(connection, workspace)
    tools = _plan_tools(arguments, connection, workspace)
    quiet, op = arguments.has("quiet"), arguments.get("op")
    details = run_operation(connection, "vm.create", params, quiet=quiet, op=op)
    warn(details)
    name = details["vm"]["name"]
    if workspace:
        _bring_repository(arguments, connection, details["vm"], workspace, tools=tools)
    if agent is not None:
        return _run_agent(arguments, connection, agent, details["vm"])
    if arguments.has("detach"):
        print(name)
        return 0
    status = _run_inside(arguments, connection, details["vm"]["id"], name, environment)
    if not arguments.has("rm") and (is_terminal(2) if workspace else not arguments.rest and is_terminal(0)):
        note(
            f"{name} is still running: banger vm exec -it {name} -- bash, "
            f"banger vm stop {name}, banger vm delete -f {name}"
        )
    return status


def _check_tooling(arguments: Arguments) -> None:
    if arguments.has("no_bootstrap") or "timeout_s" in arguments.values:
        from banger.cli.commands.tooling import check_flags

        check_flags(arguments)


def _plan_tools(arguments: Arguments, connection: Connection, workspace: dict[str, Any]) -> bool:
    """Whether the repository wants tools that are to be installed; refuses what could not be, before a VM is made."""
    if not workspace:
        return False
    from banger.cli.commands.tooling import require

    return require(
        connection,
        workspace["path"],
        nat=arguments.has("nat"),
        bootstrap=not arguments.has("no_bootstrap"),
    )


def _bring_repository(
    arguments: Arguments,
    connection: Connection,
    vm: dict[str, Any],
    workspace: dict[str, Any],
    *,
    tools: bool,
) -> None:
    """With its tools. A VM that was to go with its command goes when there is nothing to run it on."""
    again = f"banger workspace prepare {vm['name']} {arguments.get('path')}"
    try:
        prepare(connection, vm["id"], workspace, quiet=arguments.has("quiet"))
        if tools:
            from banger.cli.commands.tooling import bootstrap

            again = f"banger tooling install {vm['name']}"
            timeout_s = arguments.values.get("timeout_s")
            bootstrap(connection, vm["id"], timeout_s=timeout_s, quiet=arguments.has("quiet"))
    except (Failure, KeyboardInterrupt):
        if arguments.has("rm"):
            _ensure_deleted(vm["id"])
        else:
            note(f"{vm['name']} runs on: {again}, banger vm delete --force {vm['name']}")
        raise


def execute(arguments: Arguments) -> int:
    """Runs a command in a VM that runs already. A terminal in the guest never ends for an input that has ended: what
    feeds it must be one, too."""
    if arguments.has("pty") and not is_terminal(0):
        raise refuse("the input is no terminal", hint="leave out -t")
    params = _command_params(arguments, arguments.rest, collect_environment(arguments))
    if arguments.get("guest_path") is not None:
        params["guest_path"] = arguments.get("guest_path")
    with open_connection() as connection:
        vm, bring = arguments.get("vm"), arguments.has("auto_prepare")
        keep_up(connection, vm, bring=bring, tell=is_terminal(2))
        return _attach(connection, {"vm": vm, **params})


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


def _plan_agent(arguments: Arguments, connection: Connection, environment: list[str]) -> AgentRun | None:
    if arguments.get("agent") is None:
        return None
    from banger.cli.agents import plan_agent, warn_of_network

    agent = plan_agent(arguments, connection, environment)
    warn_of_network(agent.name, nat=arguments.has("nat"))
    return agent


def _run_agent(arguments: Arguments, connection: Connection, agent: AgentRun, vm: dict[str, Any]) -> int:
    """With --rm the VM goes as soon as no session goes on in it; somebody who only leaves keeps both."""
    from banger.cli.agents import attach_agent, start_agent

    try:
        session = start_agent(agent, connection, vm["id"], quiet=arguments.has("quiet"))
    except (Failure, KeyboardInterrupt):
        if arguments.has("rm"):
            _ensure_deleted(vm["id"])
        else:
            note(f"{vm['name']} runs on: banger vm delete --force {vm['name']}")
        raise
    if arguments.has("detach"):
        print(vm["name"])
        return 0
    try:
        return attach_agent(agent, connection, session)
    finally:
        _leave_agent(vm, remove=arguments.has("rm"))


def _leave_agent(vm: dict[str, Any], *, remove: bool) -> None:
    from banger.cli.agents import has_ended

    if remove:
        with suppress(Failure), open_connection() as anew:
            if has_ended(anew, vm["id"]):
                _ensure_deleted(vm["id"])
                return
    note(f"{vm['name']} is still running: banger session list, banger vm delete --force {vm['name']}")


def _refuse_contradictions(arguments: Arguments) -> None:
    if arguments.has("detach") and arguments.get("agent") is not None:
        if arguments.has("rm") and not arguments.has("ttl_s"):
            raise refuse(
                "--rm and --detach contradict each other",
                hint="without a command there is no end to delete at; give it one, for example --ttl 1h",
            )
    elif arguments.has("detach"):
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
        given = next((name for name in (*_EXEC_FLAGS, "env_file") if name in arguments.values), None)
        if given:
            raise refuse(
                f"--detach runs nothing that could use {_flag(arguments, given)}",
                hint="leave one of them out",
            )


def _flag(arguments: Arguments, name: str) -> str:
    return next(f"--{parameter.flag}" for parameter in arguments.command.parameters if parameter.name == name)


def _run_inside(
    arguments: Arguments, connection: Connection, vm: str, name: str, environment: list[str]
) -> int:
    params: dict[str, Any] = {"vm": vm, "delete_after": True} if arguments.has("rm") else {"vm": vm}
    if arguments.rest:
        return _attach(connection, params | _command_params(arguments, arguments.rest, environment))
    interactive = is_terminal(0) and is_terminal(1)
    shell = _command_params(arguments, LOGIN_SHELL, environment) | {"stdin": True}
    if interactive:
        shell["pty"] = True
        _add_terminal(shell)
        note(f"{name} is ready; leave its shell with exit or Ctrl-D")
    return _attach(connection, params | shell)


def _command_params(arguments: Arguments, argv: list[str], environment: list[str]) -> dict[str, Any]:
    """Parameters of vm.exec: stdin is forwarded when asked for, or when it is not a terminal."""
    params = {name: arguments.values[name] for name in _EXEC_FLAGS if name in arguments.values}
    params["argv"] = argv
    if environment:
        params["env"] = environment
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
