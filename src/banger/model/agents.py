"""Coding agents that can be run in VMs: what each is started by, and where its program comes from. Pure.

`opencode` is built in; `[agents.NAME]` of config.toml adds others, and changes it key by key. Of what an agent needs to
know in secret only names are here: of variables, and of a file. Their values are never the daemon's to know.
"""

import re
from collections.abc import Mapping
from typing import Annotated

import msgspec

from banger.base.problem import bad_request, not_found

PROGRAMS = ("mise", "opencode")  # those that are pinned; a test holds them to the catalog
PORT_WORD = "{port}"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

AgentPort = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class AgentKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One agent. `command` runs on a terminal; `serve` in the background, where `{port}` is its port. `program` is the
    name of a pinned program that the guest gets; `install` is run in a guest that lacks the command. `env` are names
    of variables that whoever starts it passes on; `env_file` is a file of theirs with more."""

    command: tuple[str, ...] = ()
    serve: tuple[str, ...] = ()
    port: AgentPort | None = None
    program: str | None = None
    install: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    env_file: str | None = None


# None of the caller's secrets goes into a guest because of what is written here: `env` is for who configures it.
BUILT_IN: Mapping[str, AgentKeys] = {
    "opencode": AgentKeys(
        command=("opencode",),
        serve=("opencode", "serve", "--hostname", "0.0.0.0", "--port", PORT_WORD),  # noqa: S104 (in the guest)
        port=4096,
        program="opencode",
    )
}


def settle_agents(configured: Mapping[str, AgentKeys]) -> Mapping[str, AgentKeys]:
    """All that are known, by name. A key that is configured replaces the built-in one."""
    names = sorted({*BUILT_IN, *configured})
    return {name: _merge(BUILT_IN.get(name), configured.get(name)) for name in names}


def get_agent_keys(agents: Mapping[str, AgentKeys], untrusted_name: str) -> AgentKeys:
    """Raises `not_found`."""
    if untrusted_name not in agents:
        raise not_found(
            f"there is no agent {untrusted_name!r}",
            hint=f"there are {', '.join(agents)}; others are [agents.NAME] in config.toml",
        )
    return agents[untrusted_name]


def render_serve(keys: AgentKeys) -> tuple[str, ...]:
    """The command that serves, its port filled in."""
    return tuple(word.replace(PORT_WORD, str(keys.port or "")) for word in keys.serve)


def validate_agent_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise bad_request(f"{name!r} is no name of an agent", hint="up to 32 of a-z 0-9 and inner hyphens")


def check_command(name: str, keys: AgentKeys) -> None:
    if not _merge(BUILT_IN.get(name), keys).command or "" in keys.command[:1]:
        raise bad_request("an agent needs a command")


def check_serve(name: str, keys: AgentKeys) -> None:
    merged = _merge(BUILT_IN.get(name), keys)
    if "" in keys.serve[:1]:
        raise bad_request("the command is empty")
    if any(PORT_WORD in word for word in merged.serve) and merged.port is None:
        raise bad_request(f"it has {PORT_WORD} and the agent no port", hint="add port = 4096, or the like")


def check_program(name: str, keys: AgentKeys) -> None:
    if keys.program is not None and keys.program not in PROGRAMS:
        raise bad_request(
            f"{keys.program!r} is no program that banger brings", hint=f"there are {', '.join(PROGRAMS)}"
        )


def check_install(name: str, keys: AgentKeys) -> None:
    if keys.install and keys.program is not None:
        raise bad_request("program and install say two things", hint="leave one of them out")
    if "" in keys.install[:1]:
        raise bad_request("the command is empty")


def check_env(name: str, keys: AgentKeys) -> None:
    for variable in keys.env:
        if not _VARIABLE.fullmatch(variable):
            shown = variable[:40] if "=" not in variable else variable.partition("=")[0][:40] + "=…"
            raise bad_request(
                f"{shown!r} is no name of a variable",
                hint="env has names only; values belong into the environment, or into env_file",
            )


def check_env_file(name: str, keys: AgentKeys) -> None:
    if keys.env_file is not None and not keys.env_file.startswith(("/", "~/")):
        raise bad_request(f"{keys.env_file!r} is neither absolute nor below ~/")


CHECKS = {
    "command": check_command,
    "serve": check_serve,
    "program": check_program,
    "install": check_install,
    "env": check_env,
    "env_file": check_env_file,
}


def _merge(base: AgentKeys | None, over: AgentKeys | None) -> AgentKeys:
    """`install` takes the place of a built-in program."""
    if base is None or over is None:
        return base or over or AgentKeys()
    default = AgentKeys()
    changed = {
        key: getattr(over, key)
        for key in AgentKeys.__struct_fields__
        if getattr(over, key) != getattr(default, key)
    }
    if over.install:
        changed["program"] = None
    return msgspec.structs.replace(base, **changed)
