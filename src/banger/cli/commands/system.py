"""`doctor` and `version`; and `system install`, `status`, `restart` and `uninstall`.

The latter are no methods of the daemon's: they install it. What they do is in `banger.installation`, loaded when
it is needed.
"""

from __future__ import annotations

import sys

import banger
from banger.cli.output import may_colour, note, print_json
from banger.client.blocking import find_connection
from banger.client.launch import look_without_daemon
from banger.client.statuses import EXIT_STATUS, PROTOCOL_VERSION
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments
    from banger.installation.purge import Doomed

_MARKS = {"pass": ("PASS", "\x1b[32m"), "warn": ("WARN", "\x1b[33m"), "fail": ("FAIL", "\x1b[31m")}


def doctor(arguments: Arguments) -> int:
    """Exits with the status of `unavailable` if a check has failed. Starts no daemon: where none runs, a process of its
    own looks at what the next start would meet."""
    try:
        connection = find_connection()
        if connection is None:
            findings = look_without_daemon()
        else:
            with connection:
                findings = connection.call("doctor.run")["findings"]
    except Failure as failure:
        text = " ".join([failure.message, *(failure.detail or "").splitlines()[-1:]])
        findings = [{"check": "daemon", "verdict": "fail", "text": text, "fix": failure.hint}]
    counts = {verdict: sum(1 for each in findings if each["verdict"] == verdict) for verdict in _MARKS}
    if arguments.has("json"):
        print_json({"findings": findings, "summary": counts})
    else:
        sys.stdout.write(_render(findings, counts, colour=may_colour(sys.stdout)))
    return EXIT_STATUS["unavailable"] if counts["fail"] else 0


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


def install(arguments: Arguments) -> int:
    from banger.installation.host import find_host
    from banger.installation.install import Wishes, install

    wishes = Wishes(
        owner=arguments.get("owner"),
        forwarding=not arguments.has("no_forwarding"),
        start=arguments.has("start"),
    )
    install(find_host(), wishes, _say)
    return 0


def status(arguments: Arguments) -> int:
    """Exits with the status of `unavailable` unless all is well."""
    from banger.cli.render.installation import as_data, render_status
    from banger.installation.host import find_host
    from banger.installation.status import find_status

    found = find_status(find_host())
    if arguments.has("json"):
        print_json(as_data(found))
    elif found is None:
        print("banger is not installed for the system; sudo banger system install does that")
    else:
        sys.stdout.write(render_status(found))
    return EXIT_STATUS["unavailable"] if found is None or found.problems else 0


def restart(arguments: Arguments) -> int:
    from banger.installation.host import find_host
    from banger.installation.install import restart

    restart(find_host(), _say)
    return 0


def uninstall(arguments: Arguments) -> int:
    """A purge is shown first, and asked for: it cannot be undone."""
    from banger.installation.host import find_host
    from banger.installation.uninstall import list_doomed, uninstall

    host = find_host()
    purge = arguments.has("purge")
    if purge:
        owner, doomed = list_doomed(host)
        note(_render_doomed(owner.name, doomed))
        if not arguments.has("yes") and not _agrees():
            return 0
    uninstall(host, _say, with_vms=purge)
    return 0


def _agrees() -> bool:
    if not sys.stdin.isatty():
        raise Failure(
            "bad_request",
            "--purge deletes VMs and nobody is there to be asked",
            hint="sudo banger system uninstall --purge --yes",
        )
    sys.stderr.write("delete all of that? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _render_doomed(owner: str, doomed: list[Doomed]) -> str:
    from banger.cli.render.tables import render_size

    if not doomed:
        return f"{owner} has no VMs, images or kernels"
    lines = [f"  {render_size(each.size_bytes):>9}  {each.path}" for each in doomed]
    return "\n".join([f"all of {owner}'s VMs, images, kernels and keys will be deleted:", *lines])


def _say(text: str) -> None:
    print(text, flush=True)


def _find_daemon_version() -> str | None:
    try:
        connection = find_connection()
        if connection is None:
            return None
        with connection:
            return str(connection.call("daemon.status")["version"])
    except Failure:
        return None


def _render(findings: list[dict[str, Any]], counts: dict[str, int], *, colour: bool) -> str:
    width = max((len(each["check"]) for each in findings), default=0)
    lines = []
    for each in findings:
        mark, paint = _MARKS.get(each["verdict"], (each["verdict"].upper(), ""))
        shown = f"{paint}{mark}\x1b[0m" if colour else mark
        lines.append(f"{shown}  {each['check']:<{width}}  {each['text']}")
        if each.get("fix"):
            lines.append(f"      {'':<{width}}  fix: {each['fix']}")
    counted = ", ".join(f"{counts[verdict]} {mark}" for verdict, (mark, _) in _MARKS.items())
    return "\n".join([*lines, "", f"{len(findings)} checks: {counted}"]) + "\n"
