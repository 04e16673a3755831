"""A command in a guest, joined to its caller: two pumps, neither of which buffers."""

import msgspec

from banger.api.vm import VmExec
from banger.base.problem import bad_request
from banger.base.tasks import beside
from banger.guest.agent import Agent
from banger.guest.command import Command, ExecRequest, ExitStatus, parse_environment
from banger.services.contract import CommandStream, Resize, SendSignal, Stdin


def plan_command(request: VmExec) -> ExecRequest:
    """Raises `bad_request` for an environment entry without `=`."""
    return ExecRequest(
        argv=tuple(request.argv),
        env=parse_environment(request.env),
        cwd=request.cwd,
        user=request.user,
        pty=request.pty,
        stdin=request.stdin,
        rows=request.rows,
        columns=request.columns,
    )


def settle_place(request: VmExec, arranged: ExecRequest) -> ExecRequest:
    """Another directory for what is arranged as everything is that runs in the VM."""
    if request.guest_path is None:
        return arranged
    if request.cwd is not None:
        raise bad_request("--guest-path and --workdir contradict each other", hint="leave one of them out")
    return msgspec.structs.replace(arranged, cwd=request.guest_path)


async def run_command(agent: Agent, request: ExecRequest, stream: CommandStream) -> ExitStatus:
    """Runs to the end of the command. Cancelled (the caller left): the guest kills the command's group."""
    async with agent.exec(request) as command:
        await stream.accept(pid=command.pid)
        async with beside(_pump_inputs(command, stream)):
            async for number, data in command:
                await stream.write(number, data)
            return await command.wait()


async def _pump_inputs(command: Command, stream: CommandStream) -> None:
    """Ends when the caller's side ends; a command that takes no more input is no error."""
    async for item in stream.inputs():
        match item:
            case Stdin(data=b""):
                command.close_stdin()
            case Stdin(data=data):
                await command.write_stdin(data)
            case SendSignal(number=number):
                command.signal(number)
            case Resize(rows=rows, columns=columns):
                command.resize(rows, columns)
