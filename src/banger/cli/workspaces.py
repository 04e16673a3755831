"""Repositories on their way into VMs: what `vm run`, `vm exec` and `workspace prepare` do alike."""

from __future__ import annotations

import os

from banger.cli.output import defuse, note
from banger.cli.values import refuse
from banger.cli.work import run_operation
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments
    from banger.client.blocking import Connection

_OF_WORKSPACES = ("full", "depth", "untracked", "include", "branch", "commit", "guest_path", "read_only")


def read_params(arguments: Arguments) -> dict[str, Any]:
    """What of a command line is about the repository. The daemon's directory is not ours."""
    params = {name: arguments.values[name] for name in _OF_WORKSPACES if name in arguments.values}
    if arguments.get("path") is not None:
        params["path"] = make_absolute(arguments.values["path"])
    return params


def make_absolute(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise refuse(f"{path!r} is no text", hint="rename it, or name a link to it") from None
    return os.path.join(os.getcwd(), os.path.expanduser(path))


def require_path(arguments: Arguments) -> None:
    """Flags about a repository mean nothing without one; and a command without its hyphens looks like one."""
    path = arguments.get("path")
    if path is not None and not os.path.isdir(make_absolute(path)):
        command = " ".join((path, *arguments.rest))
        raise refuse(
            f"there is no directory {path!r}",
            hint=f"use -- before the command: banger vm run -- {command}; or name a repository",
        )
    if arguments.get("path") is None and any(name in arguments.values for name in _OF_WORKSPACES):
        given = next(name for name in _OF_WORKSPACES if name in arguments.values)
        flag = next(f"--{each.flag}" for each in arguments.command.parameters if each.name == given)
        raise refuse(f"{flag} is about a repository, and none is named", hint="banger vm run ./repo")


def plan_ahead(connection: Connection, params: dict[str, Any]) -> None:
    """Refuses before a VM is made for it. Says what nobody can see from the outside."""
    asked = {name: value for name, value in params.items() if name != "read_only"} | {"measure": False}
    tell_warnings(connection.call("workspace.plan", asked))


def prepare(
    connection: Connection, vm: str, params: dict[str, Any], *, quiet: bool, op: str | None = None
) -> dict[str, Any]:
    return run_operation(connection, "workspace.prepare", {"vm": vm, **params}, quiet=quiet, op=op)


def tell_warnings(result: dict[str, Any]) -> None:
    for warning in result.get("warnings") or ():
        note(f"banger: warning: {defuse(warning)}")


def keep_up(connection: Connection, vm: str, *, bring: bool, tell: bool) -> None:
    """Before a command in a VM whose repository has moved on: brings it, or says so."""
    if not (bring or tell):
        return
    try:
        state = connection.call("workspace.status", {"vm": vm, "quick": True})
    except Failure as failure:
        if bring or failure.code not in ("not_found", "unknown_method"):
            raise
        return
    if not state.get("host_moved"):
        return
    if bring:
        kept = {"read_only": True} if state["workspace"].get("read_only") else {}
        tell_warnings(prepare(connection, vm, kept, quiet=not tell))
        return
    commit = state["host_commit"][:12]
    note(f"banger: the repository is at {commit} now: --auto-prepare, or: banger workspace prepare {vm}")
