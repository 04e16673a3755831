"""A system installation's state as fields and a table for people, and as JSON with stable names."""

from __future__ import annotations

from banger.cli.render.tables import render_fields, render_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.installation.status import Status


def as_data(status: Status | None) -> dict[str, Any]:
    if status is None:
        return {"installed": False}
    return {
        "installed": True,
        **status._asdict(),
        "files": [file._asdict() for file in status.files],
        "helper": status.helper._asdict(),
        "daemon": status.daemon._asdict(),
        "problems": [{"text": text, "fix": fix} for text, fix in status.problems],
    }


def render_status(status: Status) -> str:
    forwarding = {True: "on", False: "off", None: "unknown"}[status.forwarding]
    fields = render_fields(
        [
            ("version", f"{status.version}, installed {status.installed_at}"),
            ("owner", f"{status.owner}, uid {status.uid}"),
            ("helper", _render_helper(status)),
            ("daemon", _render_daemon(status)),
            ("units", ", ".join(f"{unit} {state}" for unit, state in (status.units or {}).items())),
            ("forwarding", forwarding),
        ]
    )
    files = render_table(("FILE", "STATE"), status.files)
    problems = "".join(f"problem: {text}\n    fix: {fix}\n" for text, fix in status.problems)
    return "\n".join(part for part in (fields, files, problems) if part)


def _render_helper(status: Status) -> str:
    helper = status.helper
    return "does not answer" if helper.pid is None else f"pid {helper.pid}, build {helper.build}"


def _render_daemon(status: Status) -> str:
    daemon = status.daemon
    if daemon.pid is None:
        return "does not answer"
    return f"pid {daemon.pid}, version {daemon.version}, running VMs {daemon.running}"
