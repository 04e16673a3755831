"""Methods on coding agents: what is known of them, and their programs in VMs. No method here takes a secret."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from banger.api.method import Effect, Kind, Request, VmReference, declare, field

AgentName = Annotated[str, field("the name of an agent", positional=True, metavar="AGENT")]


class AgentDetails(msgspec.Struct, frozen=True, kw_only=True):
    """One agent. `command` runs on a terminal, `serve` in the background on `port`. `program` is what a guest is given
    and `fetched` whether this host has it; `install` is run in a guest that has no such command. `env` are the names
    of variables, and `env_file` the file, that whoever starts it passes on. `installed`: in the VM that was named."""

    name: str
    origin: Literal["built in", "config.toml", "built in, changed in config.toml"]
    command: list[str]
    serve: list[str] = []
    port: int | None = None
    program: str | None = None
    version: str | None = None
    fetched: bool = False
    install: list[str] = []
    env: list[str] = []
    env_file: str | None = None
    installed: bool | None = None


class Agents(msgspec.Struct, frozen=True, kw_only=True):
    agents: list[AgentDetails]


class AgentReady(msgspec.Struct, frozen=True, kw_only=True):
    """`put`: whether anything had to be done for it."""

    agent: str
    put: bool


class AgentServes(msgspec.Struct, frozen=True, kw_only=True):
    agent: str
    port: int


@declare("agent.list")
class AgentList(Request[Agents]):
    """Lists the agents that are known, and whether a running VM has them."""

    vm: Annotated[str | None, field("a running VM to look into", positional=True, metavar="VM")] = None


@declare("agent.show")
class AgentShow(Request[AgentDetails]):
    """Everything known about one agent."""

    agent: AgentName


@declare("agent.prepare", effect=Effect.CHANGE, kind=Kind.OPERATION)
class AgentPrepare(Request[AgentReady]):
    """Gives a running VM an agent's program, unless it is there."""

    vm: VmReference
    agent: AgentName


@declare("agent.wait", kind=Kind.OPERATION)
class AgentWait(Request[AgentServes]):
    """Waits until the agent that a session serves listens on its port."""

    vm: VmReference
    agent: AgentName
    session: Annotated[str, field("the id of the session that serves it", hidden=True)]
    timeout_s: Annotated[
        Annotated[float, Meta(gt=0, le=3600)], field("how long to wait", flag="timeout", unit="seconds")
    ] = 300.0
