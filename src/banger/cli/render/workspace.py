"""Workspaces for people: what would go, what went, what has changed since."""

from __future__ import annotations

from banger.cli.output import defuse
from banger.cli.render.tables import render_fields, render_size, render_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST_LISTED = 50


def render_plan(plan: dict[str, Any]) -> str:
    """Every file that differs from the commit; of those that stay home, the first."""
    commit = f"{plan['commit'][:12]} and {_history(plan)}" if plan["commit"] else "none"
    fields = [
        ("repository", plan["host_root"]),
        ("goes to", plan["guest_path"]),
        ("branch", plan["branch"] or "detached"),
        ("commit", commit),
        ("origin", plan["origin"] or "none"),
        ("commits as", plan["identity"] or "nobody"),
        ("submodules", "\n".join(plan["submodules"])),
        ("is sent", f"{render_size(plan['transfer_bytes'])} in {plan['objects']} objects"),
        ("guest's work", "\n".join(plan.get("guest_work") or ())),
    ]
    if plan.get("up_to_date"):
        fields.append(("state", "up to date"))
    text = render_fields([(name, defuse(value)) for name, value in fields])
    if plan["files"]:
        rows = [_file(file) for file in plan["files"]]
        text += "\n" + render_table(("CHANGE", "SIZE", "FILE"), rows)
    home = plan["stays_home"]
    if home:
        shown = [f"  {name}" for name in home[:_MOST_LISTED]]
        more = [f"  and {len(home) - _MOST_LISTED} more"] if len(home) > _MOST_LISTED else []
        text += "\n".join(["", "Stays home (--untracked, --include FILE):", *shown, *more, ""])
    return text


def render_prepared(prepared: dict[str, Any]) -> str:
    workspace = prepared["workspace"]
    path = workspace["guest_path"]
    if not prepared["changed"]:
        return f"{path} is up to date\n"
    files = prepared["files"]
    changed = f", {files} file{'s' * (files != 1)} not committed" if files else ""
    return (
        f"{path}: {workspace.get('branch') or 'detached'} at {workspace.get('base_commit', '')[:12] or 'no commit'}"
        f"{changed} ({render_size(prepared['sent_bytes'])} in {prepared['took_ms'] / 1000:.1f} s)\n"
    )


def render_state(state: dict[str, Any]) -> str:
    workspace = state["workspace"]
    changes = state.get("guest_changes") or []
    fields = [
        ("vm", state["vm"]),
        ("repository", workspace["host_root"]),
        ("in the guest", workspace["guest_path"]),
        ("mode", workspace.get("mode", "shallow") + (", read-only" if workspace.get("read_only") else "")),
        (
            "brought in",
            f"{workspace.get('base_commit', '')[:12] or 'no commit'}, {workspace.get('prepared_at')}",
        ),
        ("host", _host(state)),
        ("guest", _guest(state)),
        ("changed there", "\n".join(changes[:_MOST_LISTED])),
        ("note", state.get("note", "")),
    ]
    return render_fields([(name, defuse(value)) for name, value in fields])


def _history(plan: dict[str, Any]) -> str:
    if plan["mode"] == "full":
        return f"its whole history, {plan['commits']} commits"
    before = plan["commits"] - 1
    return f"{before} before it" if before else "no history"


def _file(file: dict[str, Any]) -> tuple[str, ...]:
    change = "untracked" if file.get("untracked") else file["change"]
    return change, render_size(file.get("size_bytes", 0)) if change != "deleted" else "", file["path"]


def _host(state: dict[str, Any]) -> str:
    commit = state.get("host_commit", "")
    if not commit:
        return "not known"
    if state.get("host_moved"):
        return f"moved on to {commit[:12]}"
    return "has other changes now" if state.get("host_differs") else "as it was brought in"


def _guest(state: dict[str, Any]) -> str:
    if not state.get("reachable", True):
        return "not known"
    count, commits = len(state.get("guest_changes") or ()), state.get("guest_commits", 0)
    where = f"{state.get('guest_branch') or 'detached'} at {state.get('guest_commit', '')[:12]}"
    return f"{where}, {count} file{'s' * (count != 1)} changed, {commits} new commit{'s' * (commits != 1)}"
