"""`agent list` and `agent run`."""

from __future__ import annotations

import sys

from banger.cli.agents import attach_agent, plan_agent, start_agent, warn_of_network
from banger.cli.env_files import collect_environment
from banger.cli.output import print_json
from banger.cli.render.agent import render_agents
from banger.client.blocking import open_connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from banger.cli.parser import Arguments


def show_list(arguments: Arguments) -> int:
    with open_connection() as connection:
        found = connection.call("agent.list", arguments.params())
    if arguments.has("json"):
        print_json(found)
    else:
        sys.stdout.write(render_agents(found["agents"], arguments.get("vm")))
    return 0


def run(arguments: Arguments) -> int:
    """In a VM that runs already. Exits with the agent's status; with -d prints VM/NAME of its session."""
    environment = collect_environment(arguments)
    with open_connection() as connection:
        agent = plan_agent(arguments, connection, environment)
        vm = connection.call("vm.show", {"vm": arguments.get("vm")})["vm"]
        warn_of_network(agent.name, nat=bool(vm["spec"].get("nat")))
        quiet, op = arguments.has("quiet"), arguments.get("op")
        session = start_agent(agent, connection, vm["id"], quiet=quiet, op=op)
        if arguments.has("detach"):
            print(f"{session['vm']}/{session['name']}")
            return 0
        return attach_agent(agent, connection, session)
