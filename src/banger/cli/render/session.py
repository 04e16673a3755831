"""Sessions for people: `session list` and `session show`."""

from __future__ import annotations

from banger.cli.output import defuse
from banger.cli.render.tables import render_age, render_fields, render_size, render_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COMMAND_CHARACTERS = 60


def render_sessions(sessions: list[dict[str, Any]]) -> str:
    return render_table(
        ("SESSION", "ID", "STATE", "AGE", "TERMINAL", "COMMAND"),
        [
            (
                f"{each['vm']}/{each['name']}",
                each["id"],
                render_state(each),
                render_age(each["created_at"]),
                "yes" if each.get("pty") else "no",
                _shorten(render_command(each)),
            )
            for each in sessions
        ],
    )


def render_session(session: dict[str, Any]) -> str:
    """Fields of Session (docs/reference/methods.md)."""
    return render_fields(
        [
            ("session", f"{session['vm']}/{session['name']}"),
            ("id", session["id"]),
            ("state", render_state(session)),
            ("why", defuse(session.get("error") or "")),
            ("command", render_command(session)),
            ("directory", session.get("cwd") or ""),
            ("user", session.get("user") or ""),
            ("environment", ", ".join(session.get("env_names") or ())),
            ("tags", ", ".join(f"{key}={value}" for key, value in (session.get("tags") or {}).items())),
            ("input", _render_input(session)),
            ("output", _render_output(session)),
            ("started", _render_time(session.get("started_at"))),
            ("ended", _render_time(session.get("ended_at"))),
        ]
    )


def render_state(session: dict[str, Any]) -> str:
    """`exited 0`, `stopped by signal 15`."""
    state = str(session["state"])
    if session.get("signal") is not None:
        return f"{state} by signal {session['signal']}"
    return f"{state} {session['status']}" if session.get("status") is not None else state


def render_command(session: dict[str, Any]) -> str:
    """As a shell would have it; of several lines, one."""
    from shlex import join

    return defuse(" ".join(join(session["argv"]).split()))


def _shorten(text: str) -> str:
    return text if len(text) <= _COMMAND_CHARACTERS else text[: _COMMAND_CHARACTERS - 1] + "…"


def _render_input(session: dict[str, Any]) -> str:
    if not session.get("stdin"):
        return "none"
    kind = "pipe"
    if session.get("pty"):
        kind = "terminal"
        if session.get("rows"):
            kind += f" of {session['rows']} rows, {session['columns']} columns"
    return kind + (", taken" if session.get("has_writer") else "")


def _render_output(session: dict[str, Any]) -> str:
    begin, end = session.get("begin"), session.get("end")
    if begin is None or end is None:
        return ""
    kept = f"{render_size(end - begin)} kept, up to {end}"
    readers = session.get("readers") or 0
    return f"{kept}, {readers} reading" if readers else kept


def _render_time(at: str | None) -> str:
    return f"{at} ({render_age(at)} ago)" if at else ""
