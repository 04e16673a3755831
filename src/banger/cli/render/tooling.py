"""Tools for people: `tooling plan` and `tooling install`."""

from __future__ import annotations

from banger.cli.output import defuse
from banger.cli.render.tables import render_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def render_plan(planned: dict[str, Any]) -> str:
    if not planned["tools"]:
        return ""
    return render_table(
        ("TOOL", "VERSION", "WRITTEN", "IN"),
        [
            (tool["name"], tool["version"], defuse(tool["written"]), defuse(f"{tool['file']}:{tool['line']}"))
            for tool in planned["tools"]
        ],
    )


def render_installed(installed: dict[str, Any]) -> str:
    """The release that each version came to, as the guest says."""
    return render_table(
        ("TOOL", "VERSION", "ASKED", "BY"),
        [
            (tool["name"], defuse(tool["version"]) or "missing", defuse(tool["asked"]), defuse(tool["file"]))
            for tool in installed["tools"]
        ],
    )


def render_warning(warning: dict[str, Any]) -> str:
    return defuse(f"{warning['file']}:{warning['line']}: {warning['text']}")
