"""Agents as tables. Pure."""

from __future__ import annotations

from banger.cli.render.tables import render_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def render_agents(agents: list[dict[str, Any]], vm: str | None) -> str:
    columns = ["NAME", "FROM", "COMMAND", "PORT", "PROGRAM"] + ([f"IN {vm}"] if vm else [])
    return render_table(columns, [_row(agent) for agent in agents])


def _row(agent: dict[str, Any]) -> list[str]:
    row = [
        agent["name"],
        agent["origin"],
        " ".join(agent["command"]),
        str(agent.get("port") or "-"),
        _name_program(agent),
    ]
    installed = agent.get("installed")
    return row if installed is None else [*row, "installed" if installed else "not installed"]


def _name_program(agent: dict[str, Any]) -> str:
    if agent.get("program"):
        fetched = "fetched" if agent.get("fetched") else "not fetched yet"
        return f"{agent['program']} {agent.get('version') or ''}, {fetched}"
    return "installed in the guest" if agent.get("install") else "the image's"
