"""mise in the guest: where its things are, what it is told, and how it is asked. No state.

All of it is below ROOT, outside of any repository, and mise is run there: a mise.toml of the repository's, with its
hooks and its environment, is not on its way. It stays untrusted (mise trust) until somebody in the guest says
otherwise. What the guest answers is bounded and held to account, and goes back to that guest only.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from banger.base.problem import Code, Problem
from banger.guest.agent import Agent
from banger.guest.command import ExecRequest
from banger.model.tooling.found import Tool

ROOT = "/opt/banger/tools"
CONFIG = f"{ROOT}/config.toml"
INSTALLED = f"{ROOT}/installed.toml"  # the configuration that has been installed whole
PROFILE = "/etc/profile.d/banger-tools.sh"
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DATA = ("MISE_DATA_DIR", ROOT)
_SETTINGS = (
    _DATA,
    ("MISE_CACHE_DIR", f"{ROOT}/cache"),
    ("MISE_STATE_DIR", f"{ROOT}/state"),
    ("MISE_CONFIG_DIR", ROOT),
    ("MISE_GLOBAL_CONFIG_FILE", CONFIG),
    ("MISE_YES", "1"),
    ("MISE_USE_VERSIONS_HOST_TRACK", "0"),
    ("NO_COLOR", "1"),
    ("TERM", "dumb"),
    ("PATH", BASE_PATH),
)
_ASKING = (("MISE_OFFLINE", "1"), ("MISE_EXEC_AUTO_INSTALL", "0"), ("MISE_NOT_FOUND_AUTO_INSTALL", "0"))
OURS = frozenset(name for name, _ in _SETTINGS)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_VARIABLES_MAX = 64
_VALUE_MAX = 8192
_ANSWER_BYTES = 1024 * 1024

# $@: directories of programs, the first of which wins. Links of an earlier time go; nobody else's file is touched.
_LINK = r"""
set -u
at=/usr/local/bin
ours() { [ -L "$1" ] && case $(readlink "$1") in /opt/banger/tools/*) true ;; *) false ;; esac; }
for link in "$at"/*; do ours "$link" && rm -f "$link"; done
for directory in "$@"; do
    for program in "$directory"/*; do
        link=$at/${program##*/}
        [ -f "$program" ] && [ -x "$program" ] || continue
        [ -e "$link" ] || [ -L "$link" ] || ln -s "$program" "$link"
    done
done
exit 0
"""


def render_config(tools: Sequence[Tool], origin: str) -> str:
    """What mise is told. Names and versions are of closed patterns without quotes or backslashes."""
    versions: dict[str, list[str]] = {}
    for tool in tools:
        versions.setdefault(tool.name, []).append(tool.version)
    lines = [
        f'"{name}" = [{", ".join(f"{chr(34)}{each}{chr(34)}" for each in given)}]'
        for name, given in versions.items()
    ]
    where = "".join(letter if letter.isprintable() else "?" for letter in origin)
    head = f"# Of banger, from the files of {where}: banger tooling install writes it anew."
    return "\n".join([head, "[tools]", *lines, ""])


def plan_install(environment: Mapping[str, str], mise: str) -> ExecRequest:
    return ExecRequest(
        argv=(mise, "install"),
        env=(*environment.items(), *_SETTINGS),
        cwd=ROOT,
        merge_stderr=True,
    )


async def read_environment(agent: Agent, mise: str) -> dict[str, str]:
    """The variables under which the tools are found, PATH among them. Raises `operation_failed`."""
    found = await _ask(agent, mise, "env", "--json")
    environment = {
        name: value
        for name, value in found.items()
        if _VARIABLE.fullmatch(name)
        and isinstance(value, str)
        and len(value) <= _VALUE_MAX
        and value.isprintable()
    }
    if "PATH" not in environment or len(environment) > _VARIABLES_MAX:
        raise _bad_answer("env", "there is no PATH, or there are too many variables")
    return dict((_DATA, *environment.items()))


async def read_versions(agent: Agent, mise: str, tools: Sequence[Tool]) -> dict[tuple[str, str], str]:
    """Which release each version asked for is, by name and version; without those that are not installed. Raises
    `operation_failed`."""
    listed = await _ask(agent, mise, "ls", "--current", "--json")
    found: dict[tuple[str, str], str] = {}
    for tool in tools:
        rows = listed.get(tool.name)
        for row in rows if isinstance(rows, list) else ():
            if (
                isinstance(row, dict)
                and row.get("installed") is True
                and row.get("requested_version") == tool.version
            ):
                found[tool.name, tool.version] = _short(row.get("version"))
    return found


async def publish(agent: Agent, environment: Mapping[str, str]) -> None:
    """For whoever comes by another way than banger's: a login shell reads the profile, everybody else has links."""
    added = find_directories(environment)
    lines = ["# Of banger: the tools of the workspace. banger tooling install writes it anew."]
    if added:
        lines.append(f"PATH={shlex.quote(':'.join(added))}:$PATH; export PATH")
    lines += [
        f"{name}={shlex.quote(value)}; export {name}"
        for name, value in sorted(environment.items())
        if name != "PATH"
    ]
    text = "\n".join(lines) + "\n"
    await agent.file_write(PROFILE, text.encode(), mode=0o644, uid=0, gid=0, make_parents=True)
    done = await agent.run(("/bin/sh", "-c", _LINK, "link", *added), cwd="/")
    if done.status != 0:
        raise _bad_answer("link", done.stderr.decode("utf-8", "replace").strip()[-500:])


def find_directories(environment: Mapping[str, str]) -> list[str]:
    """Those of PATH that are the tools'."""
    usual = set(BASE_PATH.split(":"))
    return [
        each for each in environment.get("PATH", "").split(":") if each.startswith("/") and each not in usual
    ]


async def _ask(agent: Agent, mise: str, *question: str) -> dict[str, Any]:
    done = await agent.run((mise, *question), env=(*_SETTINGS, *_ASKING), cwd=ROOT, limit_bytes=_ANSWER_BYTES)
    if done.status != 0:
        raise _bad_answer(question[0], done.stderr.decode("utf-8", "replace").strip()[-500:])
    try:
        found = json.loads(done.stdout)
    except (ValueError, RecursionError) as error:
        raise _bad_answer(question[0], str(error)) from error
    if not isinstance(found, dict):
        raise _bad_answer(question[0], "it is no object")
    return found


def _short(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:80])


def _bad_answer(question: str, detail: str) -> Problem:
    return Problem(
        Code.OPERATION_FAILED,
        f"mise in the guest cannot tell what is installed ({question})",
        detail=detail or None,
    )
