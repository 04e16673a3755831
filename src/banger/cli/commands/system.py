"""`doctor` and `version`."""

from __future__ import annotations

import sys

import banger
from banger.cli.output import may_colour, print_json
from banger.client.blocking import find_connection, open_connection
from banger.client.statuses import EXIT_STATUS, PROTOCOL_VERSION
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments

_MARKS = {"pass": ("PASS", "\x1b[32m"), "warn": ("WARN", "\x1b[33m"), "fail": ("FAIL", "\x1b[31m")}


def doctor(arguments: Arguments) -> int:
    """Exits with the status of `unavailable` if a check has failed; a daemon that does not start is one."""
    try:
        with open_connection() as connection:
            findings = connection.call("doctor.run")["findings"]
    except Failure as failure:
        text = " ".join([failure.message, *(failure.detail or "").splitlines()[-1:]])
        findings = [{"check": "daemon", "verdict": "fail", "text": text, "fix": failure.hint}]
    if arguments.has("json"):
        print_json({"findings": findings})
    else:
        sys.stdout.write(_render(findings, colour=may_colour(sys.stdout)))
    return EXIT_STATUS["unavailable"] if any(each["verdict"] == "fail" for each in findings) else 0


def version(arguments: Arguments) -> int:
    """Ours, and the daemon's if one runs."""
    daemon = _find_daemon_version()
    if arguments.has("json"):
        print_json({"version": banger.__version__, "protocol": PROTOCOL_VERSION, "daemon": daemon})
    else:
        print(f"banger {banger.__version__}")
        if daemon and daemon != banger.__version__:
            print(f"daemon {daemon} (banger daemon stop lets the new one start)")
    return 0


def _find_daemon_version() -> str | None:
    try:
        connection = find_connection()
        if connection is None:
            return None
        with connection:
            return str(connection.call("daemon.status")["version"])
    except Failure:
        return None


def _render(findings: list[dict[str, Any]], *, colour: bool) -> str:
    width = max((len(each["check"]) for each in findings), default=0)
    lines = []
    for each in findings:
        mark, paint = _MARKS.get(each["verdict"], (each["verdict"].upper(), ""))
        shown = f"{paint}{mark}\x1b[0m" if colour else mark
        lines.append(f"{shown}  {each['check']:<{width}}  {each['text']}")
        if each.get("fix"):
            lines.append(f"      {'':<{width}}  fix: {each['fix']}")
    return "\n".join(lines) + "\n"
